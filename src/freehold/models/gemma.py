# SPDX-License-Identifier: Apache-2.0
"""Gemma 1 and CodeGemma: a scaled embedding and a feed-forward gated by the tanh form of GELU.

Norms multiply by 1 + w; the head is the embedding.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gemma_config import gemma_dialect
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

DIALECT = gemma_dialect("gemma")
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
