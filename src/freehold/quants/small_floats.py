# SPDX-License-Identifier: Apache-2.0
"""Floating-point numbers of four and eight bits, each type a table of all its values.

Checkpoints store weights and scales in them. They are no types of their own here, because they
mean nothing without the scale beside them. Source: OCP 8-bit Floating Point and Microscaling
Formats, both 1.0.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.quants._fp4 import FP4_LEVELS
from freehold.quants.base import FloatArray


def decode(codes: npt.NDArray[np.uint8], dtype: str) -> FloatArray:
    """Bytes to float32 of the same shape. `dtype` is "F8_E4M3", "F8_E5M2" or "F8_E8M0", or "F4"
    for codes below 16, one to a byte."""
    values: FloatArray = _table(dtype)[codes]
    return values


def nibbles(data: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Bytes [..., k] to their four-bit halves in order, low half first: [..., 2·k]."""
    both = np.stack([data & np.uint8(15), data >> np.uint8(4)], axis=-1)
    return both.reshape(*data.shape[:-1], 2 * data.shape[-1])


@functools.cache
def _table(dtype: str) -> FloatArray:
    byte = np.arange(256, dtype=np.uint8)
    if dtype == "F8_E5M2":  # half precision without its lower byte
        table = (byte.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    elif dtype == "F8_E8M0":
        table = np.ldexp(np.float32(1), np.arange(-127, 129).clip(max=127)).astype(np.float32)
        table[255] = np.nan
    elif dtype == "F8_E4M3":
        exponent, mantissa = (byte >> 3 & 15).astype(np.int32), (byte & 7).astype(np.float32)
        mantissa[exponent > 0] += 8
        table = np.ldexp(mantissa, np.maximum(exponent, 1) - 10).astype(np.float32)
        table[[127, 255]] = np.nan
        table[128:] *= -1
    else:
        assert dtype == "F4"
        table = FP4_LEVELS / np.float32(2)
        table[8] = -0.0
    table.setflags(write=False)
    return table
