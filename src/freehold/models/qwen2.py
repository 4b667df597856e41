# SPDX-License-Identifier: Apache-2.0
"""Qwen2, Qwen2.5 and R1-Distill-Qwen: the dense decoder with biases on queries, keys and values.

Half-split rotation in every file format; a sliding window only where the config turns it on.
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
