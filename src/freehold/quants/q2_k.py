# SPDX-License-Identifier: Apache-2.0
"""Q2_K: 256 two-bit integers in 16 sub-blocks of 16, each with a four-bit scale and minimum.

value = d · scale · q − dmin · minimum; d and dmin are half precision.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._affine import fit_affine
from freehold.quants._bits import pack, unpack
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    scales = f16_field(blocks["d"]) * (blocks["scales"] & 15).astype(np.float32)
    mins = f16_field(blocks["dmin"]) * (blocks["scales"] >> 4).astype(np.float32)
    q = unpack(blocks["qs"], 2, 32).astype(np.float32).reshape(n, 16, 16)
    return (scales[:, :, None] * q - mins[:, :, None]).reshape(n, 256)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    fit = fit_affine(values, sub_size=16, top=3, scale_top=15, type_name="Q2_K")
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"], out["dmin"] = fit.d, fit.dmin
    out["scales"] = fit.scales | (fit.mins << 4)
    out["qs"] = pack(fit.q, 2, 32)
    return out


TYPE = QuantType("Q2_K", 10, 256, LAYOUT, decode_blocks, encode_blocks)
