# SPDX-License-Identifier: Apache-2.0
"""Finding the largest of many numbers cheaply: what top-k, top-p and log-probabilities share.

A vocabulary has 128 k entries and a token may cost a millisecond, so nothing here sorts all of
them. Knows nothing of sampling.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int64]

_STRIDE = 64
_SMALL = 4096
FIRST_GUESS = 256
_STEPS = 64  # of a score, per unit
_LAST_STEP = 4095


def top_indices(values: npt.NDArray[np.floating], count: int) -> IndexArray:
    """Indices of the `count` largest values, ascending; among equals the lowest index wins.

    No NaN. For a large array the maxima of 64-element groups give a lower bound first: the
    count-th largest maximum is not above the count-th largest value.
    """
    size = len(values)
    if count >= size:
        return np.arange(size)
    if count <= 0:
        return np.empty(0, np.int64)
    groups = size // _STRIDE
    if size > _SMALL and count <= groups:
        maxima = values[: groups * _STRIDE].reshape(_STRIDE, groups).max(axis=0)
        bound = np.partition(maxima, groups - count)[groups - count]
        candidates = np.flatnonzero(values >= bound)
        return candidates[_exact(values[candidates], count)]
    return _exact(values, count)


def _exact(values: npt.NDArray[np.floating], count: int) -> IndexArray:
    size = len(values)
    if count >= size:
        return np.arange(size)
    threshold = np.partition(values, size - count)[size - count]
    chosen = np.flatnonzero(values >= threshold)
    excess = len(chosen) - count
    if excess:
        ties = np.flatnonzero(values[chosen] == threshold)
        chosen = np.delete(chosen, ties[-excess:])
    return chosen


def edge_of_mass(
    score: npt.NDArray[np.floating], weights: npt.NDArray[np.floating], mass: float
) -> tuple[npt.NDArray[np.bool_], float, IndexArray]:
    """Where the running sum of weights, taken by descending score, reaches `mass`.

    (mask of those that surely come before, the sum of their weights, ascending indices of those
    among which it happens); everything else comes after. Scores are told apart by steps of 1/64
    only, so neither part is sorted.
    """
    size = len(score)
    none = np.zeros(size, np.bool_)
    if size <= FIRST_GUESS:
        return none, 0.0, np.arange(size)
    best = top_indices(score, FIRST_GUESS)
    if float(weights[best].sum(dtype=np.float64)) >= mass:
        return none, 0.0, best  # mostly the best few are enough
    with np.errstate(over="ignore"):  # a difference beyond float32 is far enough
        depth = score.max() - score
        depth *= _STEPS
    step = np.minimum(depth, _LAST_STEP, out=depth).astype(np.intp)
    sums = np.cumsum(np.bincount(step, weights))
    edge = min(int(np.searchsorted(sums, mass)), len(sums) - 1)
    return step < edge, float(sums[edge - 1]) if edge else 0.0, np.flatnonzero(step == edge)


def log_sum_exp(values: npt.NDArray[np.floating]) -> float:
    """log(sum(exp(values))) without overflow; -inf for no values or only -inf."""
    if not len(values):
        return -np.inf
    top = float(values.max())
    if top == -np.inf:
        return -np.inf
    shifted = values - values.dtype.type(top)
    np.exp(shifted, out=shifted)
    return top + float(np.log(shifted.sum(dtype=np.float64)))


def log_sum_exps(
    rows: npt.NDArray[np.floating], *, overwrite: bool = False
) -> npt.NDArray[np.float64]:
    """`log_sum_exp` of each row of [R, n], n at least 1, to the bit: [R]. May `overwrite` them,
    which saves memory as large as they are."""
    tops = rows.max(axis=1)
    shifts = np.where(tops == -np.inf, rows.dtype.type(0), tops)[:, None]
    shifted = np.subtract(rows, shifts, out=rows if overwrite else None)
    np.exp(shifted, out=shifted)
    with np.errstate(divide="ignore"):  # the logarithm of nothing
        found: npt.NDArray[np.float64] = tops + np.log(shifted.sum(axis=1, dtype=np.float64))
    return found
