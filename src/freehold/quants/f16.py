# SPDX-License-Identifier: Apache-2.0
"""F16: IEEE half precision, rounded to nearest even."""

from __future__ import annotations

import numpy as np

from freehold.quants.base import Blocks, FloatArray, QuantType, to_f16

LAYOUT = np.dtype("<f2")


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] stored values to float32 [n, 1]."""
    return blocks.astype(np.float32)[:, None]


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 1] to [n] stored values; a finite value that would overflow is refused."""
    return to_f16(values[:, 0], "F16")


TYPE = QuantType("F16", 1, 1, LAYOUT, decode_blocks, encode_blocks)
