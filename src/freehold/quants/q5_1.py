# SPDX-License-Identifier: Apache-2.0
"""Q5_1: blocks of 32 five-bit integers, half-precision scale d and minimum m; value = d · q + m."""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._legacy import high_bits, quantise_affine, spread_bits
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    q = unpack(blocks["qs"], 4, 16) | spread_bits(blocks["qh"])
    return f16_field(blocks["d"]) * q.astype(np.float32) + f16_field(blocks["m"])


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks."""
    d, m, q = quantise_affine(values, 31)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "Q5_1")
    out["m"] = to_f16(m, "Q5_1")
    out["qh"] = high_bits(q)
    out["qs"] = pack(q & np.uint8(15), 4, 16)
    return out


TYPE = QuantType("Q5_1", 7, 32, LAYOUT, decode_blocks, encode_blocks)
