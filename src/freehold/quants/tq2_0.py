# SPDX-License-Identifier: Apache-2.0
"""TQ2_0: 256 ternary values of two bits and a half-precision scale d behind them.

value = d · (q − 1); each stretch of 32 bytes holds four stretches of 32 values, low bits first.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._ternary import round_to_signs
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("qs", "u1", 64), ("d", "<f2")])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    return f16_field(blocks["d"]) * (unpack(blocks["qs"], 2, 32).astype(np.float32) - 1)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    d, q = round_to_signs(values)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "TQ2_0")
    out["qs"] = pack(q, 2, 32)
    return out


TYPE = QuantType("TQ2_0", 35, 256, LAYOUT, decode_blocks, encode_blocks)
