# SPDX-License-Identifier: Apache-2.0
"""Q3_K: 256 three-bit integers in 16 sub-blocks of 16, each with a signed six-bit scale.

value = d · (scale − 32) · (q − 4); the top bit of q lies in `hmask`, the low two in `qs`. Of the
16 scales, low nibbles fill bytes 0-7 (first eight in the low half) and top bits bytes 8-11.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._signed import fit_symmetric
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    packed = blocks["scales"]
    scales = unpack(packed[:, :8], 4, 8) | (unpack(packed[:, 8:], 2, 4) << 4)
    scale = f16_field(blocks["d"]) * (scales.view(np.int8) - np.int8(32)).astype(np.float32)
    q = unpack(blocks["qs"], 2, 32) | (unpack(blocks["hmask"], 1, 32) << 2)
    signed = (q.view(np.int8) - np.int8(4)).astype(np.float32).reshape(n, 16, 16)
    return (scale[:, :, None] * signed).reshape(n, 256)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    fit = fit_symmetric(values, sub_size=16, half=4, scale_half=32, type_name="Q3_K")
    scales = (fit.scales + np.int8(32)).view(np.uint8)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = fit.d
    out["scales"][:, :8] = pack(scales & 15, 4, 8)
    out["scales"][:, 8:] = pack(scales >> 4, 2, 4)
    out["qs"] = pack(fit.q & 3, 2, 32)
    out["hmask"] = pack(fit.q >> 2, 1, 32)
    return out


TYPE = QuantType("Q3_K", 11, 256, LAYOUT, decode_blocks, encode_blocks)
