# SPDX-License-Identifier: Apache-2.0
"""TQ1_0: 256 ternary values, five to a byte, and a half-precision scale d behind them.

A byte is a fraction of 256: times three, what exceeds 256 is a digit, and the rest holds the
next. Bytes 0-31 give the digits of values i, i+32 … i+128, bytes 32-47 of values 160+i, 176+i …
and the four of `qh`, with four digits each, the last 16. value = d · (digit − 1).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.quants._ternary import round_to_signs
from freehold.quants.base import Blocks, FloatArray, QuantType, f16_field, to_f16

LAYOUT = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
_POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)
# First byte, bytes, digits in each, first value.
_PARTS = ((0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240))


def decode_blocks(blocks: Blocks) -> FloatArray:
    """[n] blocks to float32 [n, 256]."""
    n = len(blocks)
    data = np.concatenate([blocks["qs"], blocks["qh"]], axis=1)
    digits = np.empty((n, 256), dtype=np.float32)
    for first, count, depth, value in _PARTS:
        part = data[:, None, first : first + count]
        # The product wraps at 256: digits that came before drop out.
        shifted = (part * _POWERS[:depth, None]).astype(np.uint16)
        digits[:, value : value + count * depth] = (shifted * 3 >> 8).reshape(n, -1)
    return f16_field(blocks["d"]) * (digits - 1)


def encode_blocks(values: FloatArray) -> Blocks:
    """Float32 [n, 256] to [n] blocks."""
    d, q = round_to_signs(values)
    out = np.empty(len(values), dtype=LAYOUT)
    out["d"] = to_f16(d, "TQ1_0")
    data: npt.NDArray[np.uint8] = np.empty((len(values), 52), dtype=np.uint8)
    for first, count, depth, value in _PARTS:
        digits = q[:, value : value + count * depth].reshape(-1, depth, count)
        number = (digits * _POWERS[::-1][:depth, None]).sum(axis=1, dtype=np.uint16)
        data[:, first : first + count] = (number * 256 + 242) // 243  # rounded up
    out["qs"], out["qh"] = data[:, :48], data[:, 48:]
    return out


TYPE = QuantType("TQ1_0", 34, 256, LAYOUT, decode_blocks, encode_blocks)
