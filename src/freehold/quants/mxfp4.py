# SPDX-License-Identifier: Apache-2.0
"""MXFP4: blocks of 32 four-bit floating-point values (E2M1) and a power of two as scale (E8M0).

value = 2^(e − 127) · {0, ½, 1, 1½, 2, 3, 4, 6} with a sign; low nibbles hold the first 16.
Source: OCP Microscaling Formats 1.0, with the nibble order of ggml.
"""

from __future__ import annotations

import numpy as np

from freehold.quants._bits import pack, unpack
from freehold.quants._fp4 import FP4_LEVELS, FP4_LIMITS, half_e8m0
from freehold.quants.base import Blocks, FloatArray, QuantType, scale_subs

LAYOUT = np.dtype([("e", "u1"), ("qs", "u1", 16)])


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 32]."""
    levels = FP4_LEVELS[unpack(blocks["qs"], 4, 16)]
    return scale_subs(levels, half_e8m0()[blocks["e"]][:, None])


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 32] to [n] blocks.

    The largest magnitude m is put between 4 and 8 scales: e = floor(log2 m) − 2. Halfway, the
    smaller level is taken, as the format's reference encoder does."""
    _, exponent = np.frexp(np.abs(values).max(axis=1))  # m = 0 gives 0
    e = np.clip(exponent - 1 - 2 + 127, 0, 254)
    e[~values.any(axis=1)] = 0
    doubled = np.ldexp(np.abs(values), (128 - e)[:, None])
    q = np.searchsorted(FP4_LIMITS, doubled).astype(np.uint8)
    q[(values < 0) & (q > 0)] += 8
    out = np.empty(len(values), dtype=LAYOUT)
    out["e"] = e
    out["qs"] = pack(q, 4, 16)
    return out


TYPE = QuantType("MXFP4", 39, 32, LAYOUT, decode_blocks, encode_blocks)
