# SPDX-License-Identifier: Apache-2.0
"""Four-bit floating point (E2M1) and the eight-bit scales that go with it.

Levels are held doubled, so that they are whole numbers, and scales halved in return.
"""

from __future__ import annotations

import functools

import numpy as np

from freehold.quants.base import FloatArray

# 0 ½ 1 1½ 2 3 4 6 doubled, then the same below zero; −0 counts as 0.
FP4_LEVELS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)
# Halfway between neighbouring magnitudes.
FP4_LIMITS = (FP4_LEVELS[:7] + FP4_LEVELS[1:8]) / 2


@functools.cache
def half_e8m0() -> FloatArray:
    """Half of 2^(e − 127) for every byte e, [256]. Shared, so read-only.

    255, which stands for NaN elsewhere, is a number here, as in ggml."""
    scales = np.ldexp(np.float32(1), np.arange(256) - 128).astype(np.float32)
    scales.setflags(write=False)
    return scales


@functools.cache
def half_ue4m3() -> FloatArray:
    """Half of the unsigned E4M3 number for every byte, [256]. Shared, so read-only.

    The top bit is not looked at; 127, which stands for NaN elsewhere, gives 0, as in ggml."""
    byte = np.arange(256)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    normal = np.ldexp((8 + mantissa).astype(np.float32), exponent - 11)
    scales = np.where(exponent > 0, normal, np.ldexp(mantissa.astype(np.float32), -10))
    scales = scales.astype(np.float32)
    scales[127] = 0
    scales.setflags(write=False)
    return scales
