# SPDX-License-Identifier: Apache-2.0
"""IQ1_S: 256 values as 32 eleven-bit indices into a book of 2048 ternary octets.

Each 32 values share a half-word of `qh`: the top three bits of four indices, a three-bit scale
and, highest, the sign of a shift of ⅛. value = d · (2 · scale + 1) · (book ± ⅛). Freehold reads
this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._codebook import DELTA
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 32), ("qh", "<u2", 8)])
_SHIFTS = np.arange(0, 12, 3, dtype=np.uint16)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    qh = blocks["qh"].astype(np.uint16)
    high = (qh[:, :, None] >> _SHIFTS) & np.uint16(7)
    index = blocks["qs"].astype(np.uint16) | (high.reshape(n, 32) << 8)
    scale = f16_field(blocks["d"]) * (2 * ((qh >> 12) & 7) + 1).astype(np.float32)
    delta = np.where(qh >> 15, -DELTA, DELTA)
    levels = grid("IQ1")[index].reshape(n, 8, 32) + delta[:, :, None]
    return scale_subs(levels, scale)


TYPE = QuantType("IQ1_S", 19, 256, LAYOUT, decode_blocks)
