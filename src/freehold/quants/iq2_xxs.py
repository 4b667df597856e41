# SPDX-License-Identifier: Apache-2.0
"""IQ2_XXS: 256 values as 32 indices into a book of 256 octets, with seven sign bits per octet.

Each 32 values take eight bytes: four indices, then a word of four times seven sign bits and, on
top, a four-bit scale. value = d · (½ + scale) / 4 · sign · book. Freehold reads this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._codebook import packed_signs, words
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype([("d", "<f2"), ("qs", "<u2", 32)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    pairs = words(blocks["qs"]).reshape(n, 8, 2)
    index = np.ascontiguousarray(pairs[:, :, 0], "<u4").view(np.uint8).reshape(n, 32)
    word = pairs[:, :, 1]
    scale = f16_field(blocks["d"]) * (np.float32(0.5) + (word >> 28).astype(np.float32))
    scale *= np.float32(0.25)
    return scale_subs(grid("IQ2_XXS")[index], scale) * packed_signs(word)


TYPE = QuantType("IQ2_XXS", 16, 256, LAYOUT, decode_blocks)
