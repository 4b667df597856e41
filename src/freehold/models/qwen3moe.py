# SPDX-License-Identifier: Apache-2.0
"""Qwen3-30B-A3B, 235B-A22B and Qwen3-Coder: Qwen3 with experts and none that is shared.

The published models divide the chosen weights by their sum (`norm_topk_prob`, false by default).
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
