# SPDX-License-Identifier: Apache-2.0
"""Gemma 2: every other layer sees a window, scores and logits are capped.

Besides what Gemma 1 has, the output of attention and of the feed-forward is normed before it is
added.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gemma_config import gemma_dialect
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

DIALECT = gemma_dialect("gemma2")
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional", post_norms="required")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
