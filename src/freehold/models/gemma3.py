# SPDX-License-Identifier: Apache-2.0
"""Gemma 3, its language model: windows in five layers of six, with a rotation of their own.

Gemma 2 without its caps and with normed queries and keys. Images are not seen.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gemma_config import gemma_dialect
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

DIALECT = gemma_dialect("gemma3")
LAYOUT = DenseLayout(
    qkv_bias="optional", output_bias="optional", qk_norm="required", post_norms="required"
)


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
