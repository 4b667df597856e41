# SPDX-License-Identifier: Apache-2.0
"""When enough is known of the labels of one prompt.

With s a label's log-probability, it counts w = exp(s / temperature + bias), and its probability is
its share of the sum. What is known of labels not computed yet is the chance P of the beginning they
have in common. Probabilities of different whole answers that begin alike add up to P at most, so
for n such labels, with B the greatest of their biases,

    sum of w  <=  exp(B) · P^(1/T) · n^max(0, 1 - 1/T)

(Hölder's inequality; for T = 1 and no biases the bound is P itself). With U the sum of these bounds
and R that of the w that are known, no probability can be off by more than U / (R + U), whatever
becomes of U: the rule is to stop when that is at most the tolerance. It goes on until no label that
is left could have the greatest w, so the winner is that of the whole computation. Each label that
is left gets P / n, whose w are within the same bound.

Knows numbers; knows no tokens and no engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Precision:
    """How far a label's probability may be off, and what is made of log-probabilities before they
    are compared. A tolerance of 0 computes whatever counts in any way."""

    tolerance: float = 0.0
    temperature: float = 1.0
    biases: tuple[float, ...] = ()  # one per label, or none

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance < 1.0:
            raise InvalidParameterError("tolerance is a probability, below 1")


EXACT = Precision()


class StopRule:
    """The rule for labels in groups: `below[i]` are the labels that begin like group i."""

    def __init__(self, precision: Precision, below: Sequence[Sequence[int]]) -> None:
        self._tolerance = precision.tolerance
        self._temperature = precision.temperature
        self._biases = precision.biases
        counts = np.array([len(labels) for labels in below], np.float64)
        self._top = np.zeros(len(below))  # greatest bias of a group
        if precision.biases:
            self._top[:] = [max(precision.biases[i] for i in labels) for labels in below]
        spread = max(0.0, 1.0 - 1.0 / precision.temperature)
        self._extra: _Doubles = self._top + spread * np.log(counts)

    def due(self, bounds: Mapping[int, float], known: Mapping[int, float]) -> dict[int, float]:
        """Groups to look into next, of those that are open, and the share of each in all that is
        open or known; none when it is enough. Given are log-probabilities of their beginnings, and
        of the labels that are known."""
        if not bounds:
            return {}
        groups = np.fromiter(bounds, np.intp)
        heights = np.fromiter(bounds.values(), np.float64) / self._temperature
        most = heights + self._extra[groups]
        weights = self._weights(known)
        best = float(weights.max()) if len(weights) else -math.inf
        top = max(best, float(most.max()))
        order = np.argsort(-most, kind="stable")
        masses = np.exp(most[order] - top)
        left = np.append(np.cumsum(masses[::-1])[::-1], 0.0)  # if the first i are looked into
        seen = float(np.exp(weights - top).sum()) + np.append(0.0, np.cumsum(masses))
        enough = left <= self._tolerance * (seen + left)
        count = int(np.argmax(enough))
        if not count:  # rivals of the best, if there are any, must be seen to be none
            rivals = heights + self._top[groups] >= best
            return {int(group): 1.0 for group in groups[rivals]}
        shares = masses[:count] / seen[-1]
        return dict(zip(groups[order[:count]].tolist(), shares.tolist(), strict=True))

    def _weights(self, known: Mapping[int, float]) -> _Doubles:
        """Logarithms of what the known labels count."""
        weights = np.fromiter(known.values(), np.float64) / self._temperature
        if self._biases:
            weights += np.array([self._biases[label] for label in known])
        return weights
