# SPDX-License-Identifier: Apache-2.0
"""IQ2_XS: 256 values as 32 half-words, each a nine-bit index into a book of 512 octets and,
above it, seven sign bits; a four-bit scale for every 16 values.

value = d · (½ + scale) / 4 · sign · book. Freehold reads this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import unpack
from freehold.quants._codebook import complete_signs, signs_of_bits
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype([("d", "<f2"), ("qs", "<u2", 32), ("scales", "u1", 8)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    qs = blocks["qs"]
    nibbles = unpack(blocks["scales"], 4, 1).astype(np.float32)
    scale = f16_field(blocks["d"]) * (np.float32(0.5) + nibbles) * np.float32(0.25)
    signs = signs_of_bits(complete_signs(qs >> 9))
    return scale_subs(grid("IQ2_XS")[qs & 511], scale) * signs


TYPE = QuantType("IQ2_XS", 17, 256, LAYOUT, decode_blocks)
