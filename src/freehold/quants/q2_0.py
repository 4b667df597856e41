# SPDX-License-Identifier: Apache-2.0
"""Q2_0: blocks of 64 two-bit integers and a half-precision scale d, made for ternary models.

value = d · (q − 1), so −d, 0, d or 2d; four values to a byte in their order, low bits first. The
encoder writes three of the levels.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._ternary import round_to_signs
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 64]."""
    return f16_field(blocks["d"]) * (unpack(blocks["qs"], 2, 1).astype(np.float32) - 1)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 64] to [n] blocks."""
    d, q = round_to_signs(values)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "Q2_0")
    out["qs"] = pack(q, 2, 1)
    return out


TYPE = QuantType("Q2_0", 42, 64, LAYOUT, decode_blocks, encode_blocks)
