# SPDX-License-Identifier: Apache-2.0
"""Q6_K: 256 six-bit integers in 16 sub-blocks of 16, each with a signed eight-bit scale.

value = d · scale · (q − 32). Each half of 128 values has 64 `ql` bytes (low nibbles first) and
32 `qh` bytes, whose four two-bit fields belong to its four quarters.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._signed import fit_symmetric
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    scale = f16_field(blocks["d"]) * blocks["scales"].astype(np.float32)
    q = unpack(blocks["ql"], 4, 64) | (unpack(blocks["qh"], 2, 32) << 4)
    signed = (q.view(np.int8) - np.int8(32)).astype(np.float32).reshape(n, 16, 16)
    return (scale[:, :, None] * signed).reshape(n, 256)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    fit = fit_symmetric(values, sub_size=16, half=32, scale_half=128, type_name="Q6_K")
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"], out["scales"] = fit.d, fit.scales
    out["ql"] = pack(fit.q & 15, 4, 64)
    out["qh"] = pack(fit.q >> 4, 2, 32)
    return out


TYPE = QuantType("Q6_K", 14, 256, LAYOUT, decode_blocks, encode_blocks)
