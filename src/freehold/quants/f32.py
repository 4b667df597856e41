# SPDX-License-Identifier: Apache-2.0
"""F32: IEEE single precision, stored as is."""

from __future__ import annotations

import numpy as np

from freehold.quants.base import Blocks, FloatArray, QuantType

LAYOUT = np.dtype("<f4")


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] stored values to float32 [n, 1]."""
    return blocks.astype(np.float32)[:, None]


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 1] to [n] stored values."""
    return values[:, 0]


TYPE = QuantType("F32", 0, 1, LAYOUT, decode_blocks, encode_blocks)
