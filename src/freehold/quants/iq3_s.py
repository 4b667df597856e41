# SPDX-License-Identifier: Apache-2.0
"""IQ3_S: 256 values as 64 nine-bit indices into a book of 512 quartets, a sign bit per value and
a four-bit scale for every 32 values.

value = d · (1 + 2 · scale) · sign · book; the top bits of the indices lie in `qh`. Freehold reads
this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import unpack
from freehold.quants._codebook import signs_of_bits
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype(
    [("d", "<f2"), ("qs", "u1", 64), ("qh", "u1", 8), ("signs", "u1", 32), ("scales", "u1", 4)]
)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    index = blocks["qs"].astype(np.uint16) | (unpack(blocks["qh"], 1, 1).astype(np.uint16) << 8)
    odd = 1 + 2 * unpack(blocks["scales"], 4, 1).astype(np.float32)
    scale = f16_field(blocks["d"]) * odd
    return scale_subs(grid("IQ3_S")[index], scale) * signs_of_bits(blocks["signs"])


TYPE = QuantType("IQ3_S", 21, 256, LAYOUT, decode_blocks)
