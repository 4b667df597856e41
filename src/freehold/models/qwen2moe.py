# SPDX-License-Identifier: Apache-2.0
"""Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B: Qwen2 with experts.

The chosen weights stay as the softmax gave them, and every token also passes through one shared
expert, weighed by a sigmoid of its own.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(qkv_bias="required")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
