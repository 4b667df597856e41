# SPDX-License-Identifier: Apache-2.0
"""Llama 2 to 3.3, Mistral 7B to Large 2, NeMo, DeepSeek LLM, R1-Distill-Llama and kin.

The dense decoder as it is. Biases occur only in community models (`attention_bias`).
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
