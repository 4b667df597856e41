# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V2, V2-Lite, V2.5, Coder-V2, V3, R1 and V3.1; Mistral Large 3 in GGUF.

Latent attention, and experts after the first layers. The layers that guess further tokens are left
out.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._latent_blocks import expected_tensors, load_latent
from freehold.models._latent_config import latent_dialect
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.ops import Ops

__all__ = ["DIALECT", "expected_tensors", "load"]

DIALECT = latent_dialect("deepseek2")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `_latent_blocks.load_latent`."""
    return load_latent(checkpoint, ops, progress)
