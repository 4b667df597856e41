# SPDX-License-Identifier: Apache-2.0
"""Rounding to few levels around zero, as TQ1_0, TQ2_0 and Q2_0 share it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.quants.base import FloatArray, inverse


def round_to_signs(values: FloatArray) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Scale d [n], the largest magnitude, and integers 0, 1 or 2 with value ≈ d · (q − 1).

    Halves go away from zero, as in the format's reference encoder."""
    d = np.abs(values).max(axis=1, keepdims=True)
    scaled = values * inverse(d)
    q = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return d[:, 0], (q + 1).astype(np.uint8)
