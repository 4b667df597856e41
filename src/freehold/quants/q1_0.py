# SPDX-License-Identifier: Apache-2.0
"""Q1_0: blocks of 128 signs and a half-precision magnitude d.

value = d where the bit is set, else −d; bits lie in the order of the values, lowest first.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 128]."""
    return f16_field(blocks["d"]) * (2 * unpack(blocks["qs"], 1, 1).astype(np.float32) - 1)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 128] to [n] blocks. The mean magnitude is the d of least squared error."""
    out = np.empty(len(values), dtype=LAYOUT)
    mean = np.abs(values).mean(axis=1, dtype=np.float64)
    out["d"] = to_f16(mean.astype(np.float32), "Q1_0")
    out["qs"] = pack(values >= 0, 1, 1)
    return out


TYPE = QuantType("Q1_0", 41, 128, LAYOUT, decode_blocks, encode_blocks)
