# SPDX-License-Identifier: Apache-2.0
"""Finding the largest of many numbers cheaply: what top-k, top-p and log-probabilities share.

A vocabulary has 128 k entries and a token may cost a millisecond, so nothing here sorts all of
them. Knows nothing of sampling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int64]

_STRIDE = 64
_SMALL = 4096
FIRST_GUESS = 256


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


def ranked_prefixes(values: npt.NDArray[np.floating]) -> Iterator[IndexArray]:
    """Ever longer beginnings of the ranking by descending value; the last one is complete.

    Lets a caller that needs few of the best stop early. Among equals the lower index is first.
    """
    count = FIRST_GUESS
    while True:
        chosen = top_indices(values, count)
        yield chosen[np.argsort(-values[chosen], kind="stable")]
        if len(chosen) == len(values):
            return
        count *= 8


def log_sum_exp(values: npt.NDArray[np.floating]) -> float:
    """log(sum(exp(values))) without overflow; -inf for no values or only -inf."""
    if not len(values):
        return -np.inf
    top = float(values.max())
    if top == -np.inf:
        return -np.inf
    return top + float(np.log(np.exp(values - values.dtype.type(top)).sum(dtype=np.float64)))
