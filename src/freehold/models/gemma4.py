# SPDX-License-Identifier: Apache-2.0
"""Gemma 4, its language model: layers of two shapes, some without keys of their own.

Small models look up an input for every layer, the larger ones project keys and values at once or
run experts beside the feed-forward. Images and sounds are not seen.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._gemma4_blocks import expected_tensors, load_gemma4
from freehold.models._gemma4_config import GEMMA4_DIALECT
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.ops import Ops

DIALECT = GEMMA4_DIALECT

__all__ = ["DIALECT", "expected_tensors", "load"]


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_gemma4(checkpoint, ops, progress)
