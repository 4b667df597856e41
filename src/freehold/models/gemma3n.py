# SPDX-License-Identifier: Apache-2.0
"""Gemma 3n, its language model: four residual streams of which each layer runs one.

The last layers have no keys of their own, the first ones' gates are mostly zero, and every layer
looks up an input of its own. Images and sounds are not seen.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gemma3n_blocks import expected_tensors, load_gemma3n
from freehold.models._gemma3n_config import GEMMA3N_DIALECT
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.ops import Ops

DIALECT = GEMMA3N_DIALECT

__all__ = ["DIALECT", "expected_tensors", "load"]


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_gemma3n(checkpoint, ops, progress)
