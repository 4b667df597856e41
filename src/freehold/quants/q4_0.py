# SPDX-License-Identifier: Apache-2.0
"""Q4_0: blocks of 32 four-bit integers and a half-precision scale d; value = d · (q − 8)."""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._legacy import quantise_signed
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    q = unpack(blocks["qs"], 4, 16).view(np.int8) - np.int8(8)
    return f16_field(blocks["d"]) * q.astype(np.float32)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks."""
    d, q = quantise_signed(values, 8)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "Q4_0")
    out["qs"] = pack(q, 4, 16)
    return out


TYPE = QuantType("Q4_0", 2, 32, LAYOUT, decode_blocks, encode_blocks)
