# SPDX-License-Identifier: Apache-2.0
"""What the codebook types (IQ1, IQ2, IQ3) share besides their books: signs and scale nibbles.

Books hold magnitudes; the sign of each value is a bit beside them, or follows from seven bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.quants.base import FloatArray

DELTA = np.float32(0.125)  # shift of the IQ1 levels, its sign stored once per 8 or 32 values
_SEVENS = np.arange(0, 28, 7, dtype=np.uint32)


def words(field: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """A byte or half-word field of [n] records as little-endian 32-bit words, [n, words]."""
    return np.ascontiguousarray(field).view("<u4").astype(np.uint32, copy=False)


def signs_of_bits(data: npt.NDArray[Any]) -> FloatArray:
    """Bytes [n, k] to +1 where a bit is clear and −1 where it is set, [n, 8·k]."""
    bits = np.unpackbits(np.ascontiguousarray(data), axis=1, bitorder="little")
    return 1 - 2 * bits.astype(np.float32)


def complete_signs(seven: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Seven sign bits to eight: the last makes the number of negative values even."""
    low = seven.astype(np.uint8)
    parity = low ^ (low >> np.uint8(4))
    parity ^= parity >> np.uint8(2)
    parity ^= parity >> np.uint8(1)
    return low | ((parity & np.uint8(1)) << np.uint8(7))


def packed_signs(word: npt.NDArray[np.uint32]) -> FloatArray:
    """Four sets of seven sign bits in each word's low 28: [n, k] to ±1, [n, 32·k]."""
    seven = (word[:, :, None] >> _SEVENS) & np.uint32(127)
    return signs_of_bits(complete_signs(seven).reshape(len(word), -1))
