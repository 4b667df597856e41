# SPDX-License-Identifier: Apache-2.0
"""Llama 4 Scout and Maverick, their language models, and MobileLLM-R1. Images are not seen.

Three layers of four attend within chunks; the fourth sees everything, rotates nothing and grows
its queries with the position. One expert a token, besides the shared one, is given the token times
its weight.
"""

from __future__ import annotations

from freehold.formats.checkpoint import Checkpoint
from freehold.models._llama4_config import DIALECT as DIALECT
from freehold.models._weights import Progress
from freehold.models.base import CausalLM
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops

LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
