# SPDX-License-Identifier: Apache-2.0
"""Q4_1: blocks of 32 four-bit integers, half-precision scale d and minimum m; value = d · q + m."""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._legacy import quantise_affine
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    q = unpack(blocks["qs"], 4, 16).astype(np.float32)
    return f16_field(blocks["d"]) * q + f16_field(blocks["m"])


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks."""
    d, m, q = quantise_affine(values, 15)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "Q4_1")
    out["m"] = to_f16(m, "Q4_1")
    out["qs"] = pack(q, 4, 16)
    return out


TYPE = QuantType("Q4_1", 3, 32, LAYOUT, decode_blocks, encode_blocks)
