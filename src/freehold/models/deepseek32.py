# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V3.2: V3 with an indexer in every layer, which picks the keys that attention sees.

The vendor's code rotates the indexer's vectors by a Hadamard matrix and rounds them to eight bits;
the former changes no product and the latter only its precision, so neither is done here.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._latent_blocks import expected_tensors, load_latent
from freehold.models._latent_config import latent_dialect
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.ops import Ops

__all__ = ["DIALECT", "expected_tensors", "load"]

DIALECT = latent_dialect("deepseek32")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `_latent_blocks.load_latent`."""
    return load_latent(checkpoint, ops, progress)
