# SPDX-License-Identifier: Apache-2.0
"""Scale search for Q2_K, Q4_K and Q5_K: value ≈ d · scale · q − dmin · minimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.quants._columns import Columns, Half, dot, keep_better, ratio, to_columns
from freehold.quants.base import FloatArray, inverse

# How far beyond the top integer a candidate maps the range of a sub-block. Found by measuring on
# Gaussian and Student-t values; twice as many candidates gain 0.1 %.
_STRETCHES = np.linspace(-1.5, 0.5, 11, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class AffineFit:
    """value ≈ d · scales · q − dmin · mins."""

    d: Half  # [n]
    dmin: Half  # [n]
    scales: npt.NDArray[np.uint8]  # [n, sub-blocks]
    mins: npt.NDArray[np.uint8]  # [n, sub-blocks]
    q: npt.NDArray[np.uint8]  # [n, 256]


@dataclass(slots=True)
class _AffineSums:
    """Weighted sums of a column that give the error of any scale and minimum for fixed q."""

    w: FloatArray
    wx: FloatArray
    wxx: FloatArray
    wq: FloatArray
    wqq: FloatArray
    wxq: FloatArray

    def best(self) -> tuple[FloatArray, FloatArray]:
        """The scale and non-negative minimum of least error: x ≈ scale · q − minimum."""
        scale = ratio(self.w * self.wxq - self.wx * self.wq, self.w * self.wqq - self.wq * self.wq)
        minimum = ratio(scale * self.wq - self.wx, self.w)
        alone = ratio(self.wxq, self.wqq)  # best scale when the minimum must be 0
        return np.where(minimum > 0, scale, alone), np.maximum(minimum, 0)

    def error(self, scale: FloatArray, minimum: FloatArray) -> FloatArray:
        """Σ w (x − scale · q + minimum)²."""
        linear = scale * self.wxq - minimum * self.wx
        square = scale * (scale * self.wqq - 2 * minimum * self.wq) + minimum * minimum * self.w
        total: FloatArray = self.wxx - 2 * linear + square
        return total


class _Affine:
    """Sub-blocks being fitted by scale · q − minimum with q in [0, top]."""

    def __init__(self, columns: Columns, top: int) -> None:
        self.columns = columns
        self.top = np.float32(top)
        self.q = np.empty_like(columns.x)
        self._wq = np.empty_like(columns.x)
        x, w = columns.x, columns.w
        self._w, self._wx = w.sum(axis=0), dot(w, x)
        self._wxx = np.einsum("ij,ij,ij->j", w, x, x)

    def round_to(self, scale_inverse: FloatArray, minimum: FloatArray) -> _AffineSums:
        """Set q to the nearest integers; their sums."""
        np.add(self.columns.x, minimum, out=self.q)
        np.multiply(self.q, scale_inverse, out=self.q)
        np.maximum(self.q, 0, out=self.q)
        return self._round()

    def _round(self) -> _AffineSums:
        """Round q, which holds non-negative reals, and sum."""
        np.rint(self.q, out=self.q)
        np.minimum(self.q, self.top, out=self.q)
        np.multiply(self.columns.w, self.q, out=self._wq)
        return _AffineSums(
            self._w, self._wx, self._wxx,
            self._wq.sum(axis=0), dot(self._wq, self.q), dot(self._wq, self.columns.x),
        )  # fmt: skip

    def search(self, stretches: npt.NDArray[np.float32]) -> tuple[FloatArray, FloatArray]:
        """Real-valued scale and minimum of each column.

        A candidate maps the column's range to [0, top + stretch]."""
        x = self.columns.x
        low = np.minimum(x.min(axis=0), 0)
        span = x.max(axis=0) - low
        per_span = inverse(span)
        scale, minimum = span / self.top, -low
        error = np.full_like(span, np.inf)
        shifted = x - low
        for stretch in stretches:
            np.multiply(shifted, (self.top + stretch) * per_span, out=self.q)
            sums = self._round()
            candidate = sums.best()
            found = sums.error(*candidate)
            better = found < error
            scale = np.where(better, candidate[0], scale)
            minimum = np.where(better, candidate[1], minimum)
            error = np.where(better, found, error)
        return scale, minimum


def fit_affine(
    values: FloatArray, *, sub_size: int, top: int, scale_top: int, type_name: str
) -> AffineFit:
    """Fit [n, 256] values by d · scales · q − dmin · mins, q ≤ top, scales and mins ≤ scale_top."""
    columns = to_columns(values, sub_size)
    work = _Affine(columns, top)
    scale, minimum = work.search(_STRETCHES)
    d = columns.per_block(scale).max(axis=1) / scale_top
    dmin = columns.per_block(minimum).max(axis=1) / scale_top
    best: tuple[FloatArray, Half, Half, FloatArray, FloatArray, FloatArray] | None = None
    for _ in range(2):
        half, d = columns.store(d, type_name)
        half_min, dmin = columns.store(dmin, type_name)
        d_col, dmin_col = columns.per_column(d), columns.per_column(dmin)
        s_int, m_int = _round_scales(work, scale, minimum, (d_col, dmin_col), scale_top)
        sums = work.round_to(inverse(d_col * s_int), dmin_col * m_int)
        error = columns.per_block(sums.error(d_col * s_int, dmin_col * m_int)).sum(axis=1)
        found = (error, half, half_min, s_int, m_int, work.q.copy())
        best = found if best is None else keep_better(columns, best, found)
        d, dmin = _solve_super(columns, sums, s_int, m_int, d, dmin)
        scale, minimum = sums.best()
    assert best is not None
    _, half, half_min, s_int, m_int, q = best
    return AffineFit(
        half, half_min,
        columns.per_block(s_int).astype(np.uint8), columns.per_block(m_int).astype(np.uint8),
        columns.restore(q),
    )  # fmt: skip


def _round_scales(
    work: _Affine,
    scale: FloatArray,
    minimum: FloatArray,
    units: tuple[FloatArray, FloatArray],
    scale_top: int,
) -> tuple[FloatArray, FloatArray]:
    """Integers for the scales and minimums of each column.

    Rounding a scale shifts its best minimum, so neighbours are tried with the minimum refitted."""
    d, dmin = units
    nearest = np.rint(scale * inverse(d))
    best_s = best_m = error = np.empty(0, np.float32)
    for step in (0, -1, 1):
        s_int = np.clip(nearest + np.float32(step), 0, scale_top)
        s = d * s_int
        s_inv = inverse(s)
        sums = work.round_to(s_inv, minimum)
        refit = ratio(s * sums.wq - sums.wx, sums.w)
        m_int = np.clip(np.rint(refit * inverse(dmin)), 0, scale_top)
        m = dmin * m_int
        found = work.round_to(s_inv, m).error(s, m)
        if step == 0:
            best_s, best_m, error = s_int, m_int, found
            continue
        better = found < error
        best_s, best_m = np.where(better, s_int, best_s), np.where(better, m_int, best_m)
        error = np.where(better, found, error)
    return best_s, best_m


def _solve_super(
    columns: Columns,
    sums: _AffineSums,
    s_int: FloatArray,
    m_int: FloatArray,
    d: FloatArray,
    dmin: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Block scales of least error for the integers at hand: a 2×2 system per block."""

    def total(column: FloatArray) -> npt.NDArray[np.float64]:
        summed: npt.NDArray[np.float64] = columns.per_block(column).sum(axis=1, dtype=np.float64)
        return summed

    aa = total(s_int * s_int * sums.wqq)
    ab = total(s_int * m_int * sums.wq)
    bb = total(m_int * m_int * sums.w)
    ax = total(s_int * sums.wxq)
    bx = total(m_int * sums.wx)
    det = aa * bb - ab * ab
    sound = det > 1e-9 * aa * bb
    new_d = ratio(ax * bb - bx * ab, np.where(sound, det, 0))
    new_m = ratio(ax * ab - bx * aa, np.where(sound, det, 0))
    alone = ratio(ax, aa)
    keep = sound & (new_d > 0) & (new_m >= 0)
    only_scale = ~keep & (bb <= 0) & (alone > 0)
    return (
        np.where(keep, new_d, np.where(only_scale, alone, d)).astype(np.float32),
        np.where(keep, new_m, dmin).astype(np.float32),
    )
