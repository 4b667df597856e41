# SPDX-License-Identifier: Apache-2.0
"""Muse Glimmer 30B, its language model (GGUF: "muse-glimmer"). Images are not seen.

Embeddings are normed, queries and keys too, without weights of their own; what attention gives is
gated by its input. Layers without a window do not rotate.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._muse_config import DIALECT as DIALECT
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(qk_norm="required", attn_gate="required", post_norms="required")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
