# SPDX-License-Identifier: Apache-2.0
"""IQ2_S: 256 values as 32 ten-bit indices into a book of 1024 octets, a sign bit per value and
a four-bit scale for every 16 values.

value = d · (½ + scale) / 4 · sign · book; the top two bits of the indices lie in `qh`. Freehold
reads this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import unpack
from freehold.quants._codebook import signs_of_bits
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype(
    [("d", "<f2"), ("qs", "u1", 32), ("signs", "u1", 32), ("qh", "u1", 8), ("scales", "u1", 8)]
)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    index = blocks["qs"].astype(np.uint16) | (unpack(blocks["qh"], 2, 1).astype(np.uint16) << 8)
    nibbles = unpack(blocks["scales"], 4, 1).astype(np.float32)
    scale = f16_field(blocks["d"]) * (np.float32(0.5) + nibbles) * np.float32(0.25)
    return scale_subs(grid("IQ2_S")[index], scale) * signs_of_bits(blocks["signs"])


TYPE = QuantType("IQ2_S", 22, 256, LAYOUT, decode_blocks)
