# SPDX-License-Identifier: Apache-2.0
"""BF16: the upper half of a single-precision number, rounded to nearest even; NaN stays NaN."""

from __future__ import annotations

import numpy as np

from freehold.quants.base import Blocks, FloatArray, QuantType

LAYOUT = np.dtype("<u2")


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] stored values to float32 [n, 1]."""
    return (blocks.astype(np.uint32) << np.uint32(16)).view(np.float32)[:, None]


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 1] to [n] stored values."""
    bits = np.ascontiguousarray(values[:, 0]).view(np.uint32)
    upper = bits >> np.uint32(16)
    # Half a unit less one, plus the last kept bit: exact ties go to the even neighbour. The sum
    # cannot wrap: bits that large are NaNs, which are replaced below.
    rounded = (bits + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    quiet_nan = upper | np.uint32(0x40)  # a NaN whose payload sat in the lower half would be inf
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(is_nan, quiet_nan, rounded).astype(np.uint16)


TYPE = QuantType("BF16", 30, 1, LAYOUT, decode_blocks, encode_blocks)
