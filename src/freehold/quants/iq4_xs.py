# SPDX-License-Identifier: Apache-2.0
"""IQ4_XS: 256 indices into the IQ4_NL levels, 8 sub-blocks of 32 with a signed six-bit scale.

value = d · (scale − 32) · LEVELS[q]; two bits of each scale lie in `scales_h`, four in `scales_l`.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._signed import IQ4_LEVELS, fit_levels
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype([("d", "<f2"), ("scales_h", "<u2"), ("scales_l", "u1", 4), ("qs", "u1", 128)])
_HIGH_SHIFTS = np.arange(0, 16, 2, dtype=np.uint16)


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    high = (blocks["scales_h"][:, None] >> _HIGH_SHIFTS).astype(np.uint8) & np.uint8(3)
    scales = unpack(blocks["scales_l"], 4, 1) | (high << 4)
    scale = f16_field(blocks["d"]) * (scales.view(np.int8) - np.int8(32)).astype(np.float32)
    levels = IQ4_LEVELS[unpack(blocks["qs"], 4, 16)].reshape(n, 8, 32)
    return (scale[:, :, None] * levels).reshape(n, 256)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    fit = fit_levels(values, scale_half=32, type_name="IQ4_XS")
    scales = (fit.scales + np.int8(32)).view(np.uint8)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = fit.d
    out["scales_l"] = pack(scales & 15, 4, 1)
    high = (scales >> 4).astype(np.uint16) << _HIGH_SHIFTS
    out["scales_h"] = np.bitwise_or.reduce(high, axis=1)
    out["qs"] = pack(fit.q, 4, 16)
    return out


TYPE = QuantType("IQ4_XS", 23, 256, LAYOUT, decode_blocks, encode_blocks)
