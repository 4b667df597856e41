# SPDX-License-Identifier: Apache-2.0
"""IQ1_M: 256 values as 32 eleven-bit indices into the book of IQ1_S, with a three-bit scale for
every 16 values.

A nibble of `qh` holds the top three bits of an index and the sign of a shift of ⅛ for its octet.
Each of the four half-words of `scales` holds four scales and, on top, four bits of the
half-precision d, lowest first. value = d · (2 · scale + 1) · (book ± ⅛). Freehold reads this type
only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import unpack
from freehold.quants._codebook import DELTA
from freehold.quants._grids import grid
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, scale_subs

# `scales` are bytes in the format's own definition, so byte order does not touch them.
LAYOUT = np.dtype([("qs", "u1", 32), ("qh", "u1", 16), ("scales", "u1", 8)])
_SHIFTS = np.arange(0, 12, 3, dtype=np.uint16)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    packed = np.ascontiguousarray(blocks["scales"]).view("<u2").astype(np.uint16)  # [n, 4]
    parts = (packed >> 12) << np.arange(0, 16, 4, dtype=np.uint16)
    d = f16_field(np.bitwise_or.reduce(parts, axis=1).view(np.float16))
    three = ((packed[:, :, None] >> _SHIFTS) & np.uint16(7)).reshape(n, 16)
    scale = d * (2 * three + 1).astype(np.float32)
    high = unpack(blocks["qh"], 4, 1)  # [n, 32]
    index = blocks["qs"].astype(np.uint16) | ((high & 7).astype(np.uint16) << 8)
    delta = np.where(high >> 3, -DELTA, DELTA)
    return scale_subs(grid("IQ1")[index] + delta[:, :, None], scale)


TYPE = QuantType("IQ1_M", 29, 256, LAYOUT, decode_blocks)
