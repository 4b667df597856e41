# SPDX-License-Identifier: Apache-2.0
"""Packing and unpacking of small unsigned integers, as ggml's blocks lay them out.

A byte holds the same position of several groups: its lowest bits belong to the first group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]


def unpack(data: npt.NDArray[Any], bits: int, group: int) -> ByteArray:
    """[n, k] bytes to [n, k * 8 / bits] integers.

    Each stretch of `group` bytes gives 8/bits groups of `group` integers, low bits first."""
    parts = 8 // bits
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    out = (data.reshape(len(data), -1, 1, group) >> shifts) & np.uint8((1 << bits) - 1)
    assert out.shape[2] == parts
    return out.reshape(len(data), -1)


def pack(values: npt.NDArray[Any], bits: int, group: int) -> ByteArray:
    """The inverse of `unpack`: [n, k] integers below 2**bits to [n, k * bits / 8] bytes."""
    parts = 8 // bits
    grouped = values.astype(np.uint8, copy=False).reshape(len(values), -1, parts, group)
    out = grouped[:, :, 0].copy()
    for part in range(1, parts):
        out |= grouped[:, :, part] << np.uint8(part * bits)
    return out.reshape(len(values), -1)


def unpack_scales_mins(data: npt.NDArray[Any]) -> tuple[ByteArray, ByteArray]:
    """The 12 bytes of Q4_K and Q5_K to 8 six-bit scales and 8 six-bit minimums, each [n, 8].

    Bytes 0-3 hold scales 0-3 and bytes 4-7 minimums 0-3 in their low six bits; the top two bits
    of each are the top two bits of scale and minimum 4-7, whose low four bits share bytes 8-11.
    """
    first, second, third = data[:, 0:4], data[:, 4:8], data[:, 8:12]
    scales = np.concatenate([first & 63, (third & 15) | ((first >> 6) << 4)], axis=1)
    mins = np.concatenate([second & 63, (third >> 4) | ((second >> 6) << 4)], axis=1)
    return scales, mins


def pack_scales_mins(scales: ByteArray, mins: ByteArray) -> ByteArray:
    """The inverse of `unpack_scales_mins`."""
    first = scales[:, :4] | ((scales[:, 4:] >> 4) << 6)
    second = mins[:, :4] | ((mins[:, 4:] >> 4) << 6)
    third = (scales[:, 4:] & 15) | ((mins[:, 4:] & 15) << 4)
    return np.concatenate([first, second, third], axis=1)
