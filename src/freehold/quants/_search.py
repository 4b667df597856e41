# SPDX-License-Identifier: Apache-2.0
"""Scale search for the types whose reference has no closed rule: K-quants and IQ4.

Each sub-block's integers are tried under a range of candidate scales; for each, the scale (and
minimum) that fits them best follows in closed form by weighted least squares, and the candidate
of least weighted squared error wins. Scales are then rounded to the super-block's integers, and
integers and super-block scales improved in turn while the error falls.

A value's weight is its square plus the mean square of its sub-block: large weights matter more to
a matrix product than their number suggests, and small ones still count.

Arrays are held as [sub_size, columns], a column per sub-block, so that every sum runs along
contiguous memory: six times faster in NumPy than rows of 16 or 32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.quants.base import FloatArray, inverse, to_f16

Half = npt.NDArray[np.float16]
IQ4_LEVELS = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
_SUPER = 256


@dataclass(frozen=True, slots=True)
class AffineFit:
    """value ≈ d · scales · q − dmin · mins."""

    d: Half  # [n]
    dmin: Half  # [n]
    scales: npt.NDArray[np.uint8]  # [n, sub-blocks]
    mins: npt.NDArray[np.uint8]  # [n, sub-blocks]
    q: npt.NDArray[np.uint8]  # [n, 256]


@dataclass(frozen=True, slots=True)
class SignedFit:
    """value ≈ d · scales · (q − half), or d · scales · LEVELS[q]."""

    d: Half  # [n]
    scales: npt.NDArray[np.int8]  # [n, sub-blocks]
    q: npt.NDArray[np.uint8]  # [n, values of a block]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Sub-blocks as columns, in units in which the block's largest magnitude is below 1."""

    x: FloatArray  # [sub_size, columns]
    w: FloatArray  # [sub_size, columns]
    unit: FloatArray  # [n]: the block's power of two, so that scaling back is exact
    subs: int  # sub-blocks in a block

    def per_block(self, column: FloatArray) -> FloatArray:
        """[columns] to [n, subs]."""
        return column.reshape(-1, self.subs)

    def per_column(self, block: FloatArray) -> FloatArray:
        """[n] to [columns]."""
        return np.repeat(block, self.subs)

    def restore(self, q: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """[sub_size, columns] of small integers to [n, values] bytes."""
        return np.ascontiguousarray(q.astype(np.uint8).T).reshape(len(self.unit), -1)

    def store(self, d: FloatArray, type_name: str) -> tuple[Half, FloatArray]:
        """A block scale [n] as it will be stored, and that stored number in our units."""
        half = to_f16(d * self.unit, type_name)
        return half, half.astype(np.float32) / self.unit


def _columns(values: FloatArray, sub_size: int) -> _Columns:
    _, exponent = np.frexp(np.abs(values).max(axis=1))
    # Held where both 2**e and 2**-e are normal numbers; smaller blocks round to zero anyway.
    unit = np.ldexp(np.float32(1), np.clip(exponent, -120, 120)).astype(np.float32)
    scaled = values / unit[:, None]
    x = np.ascontiguousarray(scaled.reshape(-1, sub_size).T)
    w = x * x
    w += w.mean(axis=0)
    return _Columns(x, w, unit, values.shape[1] // sub_size)


def _dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Sum of products down each column."""
    return np.einsum("ij,ij->j", a, b)


def _ratio(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """top / bottom, 0 where bottom is not positive."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


# -- affine: scale and minimum -------------------------------------------------------------------


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
        scale = _ratio(self.w * self.wxq - self.wx * self.wq, self.w * self.wqq - self.wq * self.wq)
        minimum = _ratio(scale * self.wq - self.wx, self.w)
        alone = _ratio(self.wxq, self.wqq)  # best scale when the minimum must be 0
        return np.where(minimum > 0, scale, alone), np.maximum(minimum, 0)

    def error(self, scale: FloatArray, minimum: FloatArray) -> FloatArray:
        """Σ w (x − scale · q + minimum)²."""
        linear = scale * self.wxq - minimum * self.wx
        square = scale * (scale * self.wqq - 2 * minimum * self.wq) + minimum * minimum * self.w
        return self.wxx - 2 * linear + square


class _Affine:
    """Sub-blocks being fitted by scale · q − minimum with q in [0, top]."""

    def __init__(self, columns: _Columns, top: int) -> None:
        self.columns = columns
        self.top = np.float32(top)
        self.q = np.empty_like(columns.x)
        self._wq = np.empty_like(columns.x)
        x, w = columns.x, columns.w
        self._w, self._wx = w.sum(axis=0), _dot(w, x)
        self._wxx = np.einsum("ij,ij,ij->j", w, x, x)

    def round_to(self, scale_inverse: FloatArray, minimum: FloatArray) -> _AffineSums:
        """Set q to the nearest integers; their sums."""
        np.add(self.columns.x, minimum, out=self.q)
        np.multiply(self.q, scale_inverse, out=self.q)
        np.rint(self.q, out=self.q)
        np.maximum(self.q, 0, out=self.q)
        np.minimum(self.q, self.top, out=self.q)
        np.multiply(self.columns.w, self.q, out=self._wq)
        return _AffineSums(
            self._w, self._wx, self._wxx,
            self._wq.sum(axis=0), _dot(self._wq, self.q), _dot(self._wq, self.columns.x),
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
        for stretch in stretches:
            sums = self.round_to((self.top + stretch) * per_span, -low)
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
    columns = _columns(values, sub_size)
    work = _Affine(columns, top)
    reach = 0.5 if top > 15 else 0.9 if top > 3 else 1.2
    steps = 9 if top > 3 else 13
    scale, minimum = work.search(np.linspace(-reach, reach, steps, dtype=np.float32))
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
        best = found if best is None else _keep_better(columns, best, found)
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
        refit = _ratio(s * sums.wq - sums.wx, sums.w)
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
    columns: _Columns,
    sums: _AffineSums,
    s_int: FloatArray,
    m_int: FloatArray,
    d: FloatArray,
    dmin: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Block scales of least error for the integers at hand: a 2×2 system per block."""

    def total(column: FloatArray) -> FloatArray:
        return columns.per_block(column).sum(axis=1, dtype=np.float64)

    aa = total(s_int * s_int * sums.wqq)
    ab = total(s_int * m_int * sums.wq)
    bb = total(m_int * m_int * sums.w)
    ax = total(s_int * sums.wxq)
    bx = total(m_int * sums.wx)
    det = aa * bb - ab * ab
    sound = det > 1e-9 * aa * bb
    new_d = _ratio(ax * bb - bx * ab, np.where(sound, det, 0))
    new_m = _ratio(ax * ab - bx * aa, np.where(sound, det, 0))
    alone = _ratio(ax, aa)
    keep = sound & (new_d > 0) & (new_m >= 0)
    only_scale = ~keep & (bb <= 0) & (alone > 0)
    return (
        np.where(keep, new_d, np.where(only_scale, alone, d)).astype(np.float32),
        np.where(keep, new_m, dmin).astype(np.float32),
    )


def _keep_better(columns: _Columns, old: tuple, new: tuple) -> tuple:  # type: ignore[type-arg]
    """Of two fits, block by block, the one of less error."""
    better = new[0] < old[0]
    wide = columns.per_column(better)

    def pick(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> object:
        return np.where(better if a.shape == better.shape else wide, b, a)

    return tuple(pick(a, b) for a, b in zip(old, new, strict=True))


# -- signed: one scale, integers or table levels ---------------------------------------------------


class _Signed:
    """Sub-blocks being fitted by scale · level."""

    def __init__(self, columns: _Columns, levels: FloatArray) -> None:
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
        return _dot(self._wl, self.columns.x), _dot(self._wl, self.level)

    def error(self, scale: FloatArray, sums: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Σ w (x − scale · level)²."""
        return self._wxx - 2 * scale * sums[0] + scale * scale * sums[1]

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
                candidate = _ratio(wxl, wll)
                found = wxl * candidate  # error removed by the best scale for these levels
                better = found > gain
                scale = np.where(better, candidate, scale)
                gain = np.where(better, found, gain)
        return scale


def _nearest_table(levels: FloatArray) -> FloatArray:
    """Nearest level to lowest + i/2."""
    grid = levels[0] + np.arange(int(2 * (levels[-1] - levels[0])) + 1, dtype=np.float32) / 2
    return levels[np.abs(grid[:, None] - levels).argmin(axis=1)]


def fit_symmetric(
    values: FloatArray, *, sub_size: int, half: int, scale_half: int, type_name: str
) -> SignedFit:
    """Fit [n, 256] values by d · scales · (q − half) with scales in [−scale_half, scale_half)."""
    work = _Signed(_columns(values, sub_size), np.arange(-half, half, dtype=np.float32))
    reach = (0.75 if half > 4 else 1.0) / half
    stretches = 1 + np.linspace(-reach, reach, 7, dtype=np.float32)
    d, s_int, level = _fit_super(work, work.search(stretches), scale_half, type_name)
    return SignedFit(
        d, work.columns.per_block(s_int).astype(np.int8), work.columns.restore(level + half)
    )


def fit_levels(values: FloatArray, *, scale_half: int | None, type_name: str) -> SignedFit:
    """Fit [n, 32 or 256] values by d · scales · IQ4_LEVELS[q].

    Without `scale_half` a block is one sub-block and its scale is d alone."""
    columns = _columns(values, 32)
    work = _Signed(columns, IQ4_LEVELS)
    scale = work.search(np.linspace(0.86, 1.1, 7, dtype=np.float32))
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
        best = found if best is None else _keep_better(columns, best, found)
        top = columns.per_block(s_int * sums[0]).sum(axis=1)
        d = _ratio(top, columns.per_block(s_int * s_int * sums[1]).sum(axis=1))
        scale = _ratio(*sums)
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
