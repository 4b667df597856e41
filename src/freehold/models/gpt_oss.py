# SPDX-License-Identifier: Apache-2.0
"""gpt-oss 20B and 120B (GGUF: "gpt-oss"): experts with biases and a clamped gate, windows in every
other layer, and a learned weight per head that takes attention from nothing in particular (a sink).
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gptoss_config import DIALECT as DIALECT
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(
    qkv_bias="required",
    output_bias="required",
    sinks="required",
    ffn_norm="post_attention_norm",
)


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
