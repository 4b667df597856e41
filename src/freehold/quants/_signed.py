# SPDX-License-Identifier: Apache-2.0
"""Scale search for Q3_K, Q6_K, IQ4_NL and IQ4_XS: value ≈ d · scale · level.

Levels are consecutive integers around zero, or the fixed table of the IQ4 types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.quants._columns import Columns, Half, dot, keep_better, ratio, to_columns
from freehold.quants.base import FloatArray, inverse

IQ4_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
_LEVEL_STRETCHES = np.linspace(0.86, 1.1, 7, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class SignedFit:
    """value ≈ d · scales · (q − half), or d · scales · LEVELS[q]."""

    d: Half  # [n]
    scales: npt.NDArray[np.int8]  # [n, sub-blocks]
    q: npt.NDArray[np.uint8]  # [n, values of a block]


class _Signed:
    """Sub-blocks being fitted by scale · level."""

    def __init__(self, columns: Columns, levels: FloatArray) -> None:
        self.columns = columns
        self.low, self.high = levels[0], levels[-1]
        self.level = np.empty_like(columns.x)
        self._wl = np.empty_like(columns.x)
        self._wxx = np.einsum("ij,ij,ij->j", columns.w, columns.x, columns.x)
        # Uniform levels round arithmetically; others through a table at half-unit steps.
        self._table = None if (np.diff(levels) == 1).all() else _nearest_table(levels)

    def round_to(self, scale_inverse: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Set each value's level to the nearest; Σ w x level and Σ w level²."""
        np.multiply(self.columns.x, scale_inverse, out=self.level)
        if self._table is None:
            np.rint(self.level, out=self.level)
            np.maximum(self.level, self.low, out=self.level)
            np.minimum(self.level, self.high, out=self.level)
        else:
            np.maximum(self.level, self.low, out=self.level)
            np.minimum(self.level, self.high, out=self.level)
            self.level -= self.low
            self.level *= 2
            self.level += np.float32(0.5)
            np.take(self._table, self.level.astype(np.int32), out=self.level, mode="clip")
        np.multiply(self.columns.w, self.level, out=self._wl)
        return dot(self._wl, self.columns.x), dot(self._wl, self.level)

    def error(self, scale: FloatArray, sums: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Σ w (x − scale · level)²."""
        total: FloatArray = self._wxx - 2 * scale * sums[0] + scale * scale * sums[1]
        return total

    def search(self, stretches: npt.NDArray[np.float32]) -> FloatArray:
        """Real-valued scale of each column, positive or negative.

        A candidate maps the value of largest magnitude to an end of the levels, stretched."""
        x = self.columns.x
        at = np.abs(x).argmax(axis=0)
        per_peak = inverse(np.take_along_axis(x, at[None], axis=0)[0])
        scale = np.zeros_like(per_peak)
        gain = np.zeros_like(per_peak)
        for end in (self.low, self.high):
            for stretch in stretches:
                wxl, wll = self.round_to((end * stretch) * per_peak)
                candidate = ratio(wxl, wll)
                found = wxl * candidate  # error removed by the best scale for these levels
                better = found > gain
                scale = np.where(better, candidate, scale)
                gain = np.where(better, found, gain)
        return scale


def _nearest_table(levels: FloatArray) -> FloatArray:
    """Nearest level to lowest + i/2."""
    grid = levels[0] + np.arange(int(2 * (levels[-1] - levels[0])) + 1, dtype=np.float32) / 2
    nearest: FloatArray = levels[np.abs(grid[:, None] - levels).argmin(axis=1)]
    return nearest


def fit_symmetric(
    values: FloatArray, *, sub_size: int, half: int, scale_half: int, type_name: str
) -> SignedFit:
    """Fit [n, 256] values by d · scales · (q − half) with scales in [−scale_half, scale_half)."""
    work = _Signed(to_columns(values, sub_size), np.arange(-half, half, dtype=np.float32))
    stretches = 1 + np.linspace(-2, 1, 9, dtype=np.float32) / np.float32(half)
    d, s_int, level = _fit_super(work, work.search(stretches), scale_half, type_name)
    return SignedFit(
        d, work.columns.per_block(s_int).astype(np.int8), work.columns.restore(level + half)
    )


def fit_levels(values: FloatArray, *, scale_half: int | None, type_name: str) -> SignedFit:
    """Fit [n, 32 or 256] values by d · scales · IQ4_LEVELS[q].

    Without `scale_half` a block is one sub-block and its scale is d alone."""
    columns = to_columns(values, 32)
    work = _Signed(columns, IQ4_LEVELS)
    scale = work.search(_LEVEL_STRETCHES)
    if scale_half is None:
        d, stored = columns.store(scale, type_name)
        s_int = np.ones_like(scale)
        work.round_to(inverse(stored))
        level = work.level
    else:
        d, s_int, level = _fit_super(work, scale, scale_half, type_name)
    q = np.searchsorted(IQ4_LEVELS, level).astype(np.float32)
    return SignedFit(d, columns.per_block(s_int).astype(np.int8), columns.restore(q))


def _fit_super(
    work: _Signed, scale: FloatArray, scale_half: int, type_name: str
) -> tuple[Half, FloatArray, FloatArray]:
    """Stored block scale [n], integer scales [columns] and levels [sub_size, columns]."""
    columns = work.columns
    grouped = columns.per_block(scale)
    at = np.abs(grouped).argmax(axis=1)[:, None]
    # The scale of largest magnitude, with its sign, takes the longer, negative end.
    d = np.take_along_axis(grouped, at, axis=1)[:, 0] / np.float32(-scale_half)
    best: tuple[FloatArray, Half, FloatArray, FloatArray] | None = None
    for _ in range(2):
        half, d = columns.store(d, type_name)
        d_col = columns.per_column(d)
        s_int = _round_signed(work, scale, d_col, scale_half)
        sums = work.round_to(inverse(d_col * s_int))
        error = columns.per_block(work.error(d_col * s_int, sums)).sum(axis=1)
        found = (error, half, s_int, work.level.copy())
        best = found if best is None else keep_better(columns, best, found)
        top = columns.per_block(s_int * sums[0]).sum(axis=1)
        d = ratio(top, columns.per_block(s_int * s_int * sums[1]).sum(axis=1))
        scale = ratio(*sums)
    assert best is not None
    return best[1], best[2], best[3]


def _round_signed(work: _Signed, scale: FloatArray, d: FloatArray, scale_half: int) -> FloatArray:
    """Integer scale of each column: the nearest, or a neighbour of less error."""
    nearest = np.rint(scale * inverse(d))
    best = error = np.empty(0, np.float32)
    for step in (0, -1, 1) if scale_half < 128 else (0,):
        s_int = np.clip(nearest + np.float32(step), -scale_half, scale_half - 1)
        s = d * s_int
        found = work.error(s, work.round_to(inverse(s)))
        if step == 0:
            best, error = s_int, found
            continue
        better = found < error
        best, error = np.where(better, s_int, best), np.where(better, found, error)
    return best
