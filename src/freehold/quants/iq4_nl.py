# SPDX-License-Identifier: Apache-2.0
"""IQ4_NL: blocks of 32 indices into a fixed table of 16 levels and a half-precision scale d.

value = d · LEVELS[q]; the levels lie closer together near zero, where weights are.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._signed import IQ4_LEVELS, fit_levels
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    return f16_field(blocks["d"]) * IQ4_LEVELS[unpack(blocks["qs"], 4, 16)]


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks."""
    fit = fit_levels(values, scale_half=None, type_name="IQ4_NL")
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = fit.d
    out["qs"] = pack(fit.q, 4, 16)
    return out


TYPE = QuantType("IQ4_NL", 20, 32, LAYOUT, decode_blocks, encode_blocks)
