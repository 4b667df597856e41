# SPDX-License-Identifier: Apache-2.0
"""Arithmetic shared by Q4_0, Q4_1, Q5_0 and Q5_1: 32 values, one scale, perhaps a minimum.

The encoders are the format's reference ones, in single precision and in the reference's order of
operations, because files are compared bit by bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.quants.base import FloatArray, inverse

ByteArray = npt.NDArray[np.uint8]


def quantise_signed(values: FloatArray, half: int) -> tuple[FloatArray, ByteArray]:
    """Scale [n] and integers [n, 32] in [0, 2·half) with value ≈ d · (q − half).

    The value of largest magnitude, with its sign, becomes −half."""
    at = np.abs(values).argmax(axis=1, keepdims=True)
    d = np.take_along_axis(values, at, axis=1) / np.float32(-half)
    q = np.trunc(values * inverse(d) + np.float32(half + 0.5))
    return d[:, 0], np.clip(q, 0, 2 * half - 1).astype(np.uint8)


def quantise_affine(values: FloatArray, top: int) -> tuple[FloatArray, FloatArray, ByteArray]:
    """Scale [n], minimum [n] and integers [n, 32] in [0, top] with value ≈ d · q + m."""
    low = values.min(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # the caller refuses what does not fit in half precision
        d = (values.max(axis=1, keepdims=True) - low) / np.float32(top)
        q = np.trunc((values - low) * inverse(d) + np.float32(0.5))
    return d[:, 0], low[:, 0], np.clip(q, 0, top).astype(np.uint8)


def high_bits(q: ByteArray) -> ByteArray:
    """Bit 4 of 32 integers, [n, 32] to [n, 4]: bit i of the little-endian word is value i's."""
    return np.packbits(q >> 4, axis=1, bitorder="little")


def spread_bits(qh: ByteArray) -> ByteArray:
    """The inverse of `high_bits`, placed at bit 4: [n, 4] to [n, 32] of 0 or 16."""
    return np.unpackbits(qh, axis=1, bitorder="little") << np.uint8(4)
