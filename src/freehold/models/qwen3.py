# SPDX-License-Identifier: Apache-2.0
"""Qwen3 dense and R1-0528-Qwen3-8B: the dense decoder with normed queries and keys.

Each head is RMS-normed before rotation; `attention_bias` exists in the config, and is rare.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional", qk_norm="required")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
