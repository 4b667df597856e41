# SPDX-License-Identifier: Apache-2.0
"""Integers and scales that somebody else computed, written as blocks of our types.

The numbers stay what they are but for scales, which are rounded to half precision. Rows of K
values, K a multiple of 32; scales one per 32 values. Each function raises InvalidParameterError
for a scale beyond half precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.quants import get
from freehold.quants._bits import pack
from freehold.quants.base import Blocks, ByteArray, FloatArray, to_f16


def q4_0(q: ByteArray, d: FloatArray) -> ByteArray:
    """d · (q − 8): q [n, K] below 16, d [n, K/32]."""
    blocks = _blocks("Q4_0", d)
    blocks["qs"] = pack(q.reshape(-1, 32), 4, 16)
    return blocks.view(np.uint8)


def q4_1(q: ByteArray, d: FloatArray, m: FloatArray) -> ByteArray:
    """d · q + m: q [n, K] below 16, d and m [n, K/32]."""
    blocks = _blocks("Q4_1", d)
    blocks["m"] = to_f16(m.reshape(-1), "Q4_1")
    blocks["qs"] = pack(q.reshape(-1, 32), 4, 16)
    return blocks.view(np.uint8)


def q8_0(q: npt.NDArray[np.int8], d: FloatArray) -> ByteArray:
    """d · q: q [n, K], d [n, K/32]."""
    blocks = _blocks("Q8_0", d)
    blocks["qs"] = q.reshape(-1, 32)
    return blocks.view(np.uint8)


def mxfp4(codes: ByteArray, e: ByteArray) -> ByteArray:
    """2^(e − 127) · E2M1(code): codes [n, K] below 16, e [n, K/32]."""
    blocks = np.empty(e.size, dtype=get("MXFP4").layout)
    blocks["e"] = e.reshape(-1)
    blocks["qs"] = pack(codes.reshape(-1, 32), 4, 16)
    return blocks.view(np.uint8)


def _blocks(name: str, d: npt.NDArray[Any]) -> Blocks:
    blocks = np.empty(d.size, dtype=get(name).layout)
    blocks["d"] = to_f16(d.reshape(-1), name)
    return blocks
