# SPDX-License-Identifier: Apache-2.0
"""Q5_K: 256 five-bit integers in 8 sub-blocks of 32, each with a six-bit scale and minimum.

value = d · scale · q − dmin · minimum; bit i of `qh` byte l is the top bit of value l of
sub-block i.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._affine import fit_affine
from freehold.quants._bits import pack, pack_scales_mins, unpack, unpack_scales_mins
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype(
    [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    scales, mins = unpack_scales_mins(blocks["scales"])
    scale = f16_field(blocks["d"]) * scales.astype(np.float32)
    minimum = f16_field(blocks["dmin"]) * mins.astype(np.float32)
    q = unpack(blocks["qs"], 4, 32) | (unpack(blocks["qh"], 1, 32) << 4)
    wide = q.astype(np.float32).reshape(n, 8, 32)
    return (scale[:, :, None] * wide - minimum[:, :, None]).reshape(n, 256)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    fit = fit_affine(values, sub_size=32, top=31, scale_top=63, type_name="Q5_K")
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"], out["dmin"] = fit.d, fit.dmin
    out["scales"] = pack_scales_mins(fit.scales, fit.mins)
    out["qs"] = pack(fit.q & 15, 4, 32)
    out["qh"] = pack(fit.q >> 4, 1, 32)
    return out


TYPE = QuantType("Q5_K", 13, 256, LAYOUT, decode_blocks, encode_blocks)
