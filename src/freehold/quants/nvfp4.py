# SPDX-License-Identifier: Apache-2.0
"""NVFP4: 64 four-bit floating-point values (E2M1) in four sub-blocks with a scale each (E4M3).

value = scale · {0, ½, 1, 1½, 2, 3, 4, 6} with a sign; in the eight bytes of a sub-block low
nibbles hold the first eight values. A tensor may have one more scale for all of it, which files
keep beside it under a name of its own. Freehold reads this type only.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import unpack
from freehold.quants._fp4 import FP4_LEVELS, half_ue4m3
from freehold.quants.base import Blocks, FloatArray, QuantType, scale_subs

LAYOUT = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 64]."""
    levels = FP4_LEVELS[unpack(blocks["qs"], 4, 8)]
    return scale_subs(levels, half_ue4m3()[blocks["d"]])


TYPE = QuantType("NVFP4", 40, 64, LAYOUT, decode_blocks)
