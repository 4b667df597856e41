# SPDX-License-Identifier: Apache-2.0
"""Q8_0: blocks of 32 signed bytes and a half-precision scale d; value = d · q."""

from __future__ import annotations

import numpy as np

from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, inverse, to_f16

LAYOUT = np.dtype([("d", "<f2"), ("qs", "i1", 32)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    return blocks["qs"].astype(np.float32) * f16_field(blocks["d"])


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks: the largest magnitude becomes 127, halves round away."""
    d = np.abs(values).max(axis=1, keepdims=True) / np.float32(127)
    scaled = values * inverse(d)
    magnitude = np.abs(scaled)
    whole = np.floor(magnitude)
    whole += np.floor(2 * (magnitude - whole))
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d[:, 0], "Q8_0")
    out["qs"] = np.copysign(whole, scaled)
    return out


TYPE = QuantType("Q8_0", 8, 32, LAYOUT, decode_blocks, encode_blocks)
