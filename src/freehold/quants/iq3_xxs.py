# SPDX-License-Identifier: Apache-2.0
"""IQ3_XXS: 256 values as 64 indices into a book of 256 quartets, with seven sign bits for every
eight values.

The eight words after the indices hold, for 32 values each, four times seven sign bits and a
four-bit scale on top. value = d · (½ + scale) / 2 · sign · book. Freehold reads this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._codebook import packed_signs, words
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 64), ("scales_signs", "u1", 32)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    word = words(blocks["scales_signs"])
    scale = f16_field(blocks["d"]) * (np.float32(0.5) + (word >> 28).astype(np.float32))
    scale *= np.float32(0.5)
    return scale_subs(grid("IQ3_XXS")[blocks["qs"]], scale) * packed_signs(word)


TYPE = QuantType("IQ3_XXS", 18, 256, LAYOUT, decode_blocks)
