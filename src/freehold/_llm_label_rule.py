# SPDX-License-Identifier: Apache-2.0
"""When enough is known of the labels of a prompt.

With s a label's log-probability, it counts w = exp(s / temperature + bias), and its probability is
its share of the sum. What is known of labels not computed yet is the chance P of the beginning they
have in common. Probabilities of different whole answers that begin alike add up to P at most, so
for n such labels, with B the greatest of their biases,

    sum of w  <=  exp(B) · P^(1/T) · n^max(0, 1 - 1/T)

(Hölder's inequality; for T = 1 and no biases the bound is P itself). With U the sum of these bounds
and R that of the w that are known, no probability can be off by more than U / (R + U), whatever
becomes of U: the rule is to stop when that is at most the tolerance. It goes on until no label that
is left could have the greatest w, so the winner is that of the whole computation, and until the
winner's probability, between w / (R + U) and w / R, is on one side of the threshold it is compared
with. Each label that is left gets P / n, whose w are within the same bounds.

Prompts are rows of arrays, so that all of them are looked at in one go: a number for each group of
labels that begin alike, and one for each label, -inf where there is none. Knows no tokens and no
engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError

Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Precision:
    """How far a label's probability may be off, and what is made of log-probabilities before they
    are compared. A tolerance of 0 computes whatever counts in any way."""

    tolerance: float = 0.0
    temperature: float = 1.0
    biases: tuple[float, ...] = ()  # one per label, or none
    threshold: float = 0.0  # a probability that the winner's is told from, whatever the tolerance

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance < 1.0:
            raise InvalidParameterError("tolerance is a probability, below 1")


EXACT = Precision()


class Rule(Protocol):
    """What to look into next."""

    def due(self, bounds: Doubles, known: Doubles) -> Doubles:
        """Of log-probabilities of the beginnings of open groups [prompts, groups] and of known
        labels [prompts, labels]: the share of each group that is to be looked into in all that is
        open or known, 0 for the others; only 0 where it is enough."""


@dataclass(frozen=True, slots=True)
class MarginRule:
    """Whatever is not further behind the best label than so many nats. Those far behind the
    likeliest beginning wait: it may yet come to nothing."""

    margin: float

    def due(self, bounds: Doubles, known: Doubles) -> Doubles:
        """See `Rule`."""
        reach = np.maximum(bounds.max(axis=1), known.max(axis=1)) - self.margin
        due = (bounds >= reach[:, None]) & (bounds > -np.inf)
        shares: Doubles = due.astype(np.float64)
        return shares


class StopRule:
    """The rule above for labels in groups: `below[i]` are the labels that begin like group i."""

    def __init__(self, precision: Precision, below: Sequence[Sequence[int]]) -> None:
        self._tolerance = precision.tolerance
        self._temperature = precision.temperature
        self._threshold = precision.threshold
        self._biases = np.array(precision.biases or 0.0)
        self._top: Doubles = np.zeros(len(below))  # greatest bias of a group
        if precision.biases:
            self._top[:] = [self._biases[list(labels)].max() for labels in below]
        spread = max(0.0, 1.0 - 1.0 / precision.temperature)
        self._extra = self._top + spread * np.log([len(labels) for labels in below])

    def due(self, bounds: Doubles, known: Doubles) -> Doubles:
        """See `Rule`."""
        most = bounds / self._temperature + self._extra  # what the labels of a group count together
        weights = known / self._temperature + self._biases
        best = weights.max(axis=1)
        top = np.maximum(best, most.max(axis=1))[:, None]
        masses, sums = np.exp(most - top), np.exp(weights - top).sum(axis=1)
        order = np.argsort(masses, axis=1)
        ascending = np.take_along_axis(masses, order, axis=1)
        left = np.cumsum(ascending, axis=1)  # with each group, what is left if none after it is
        total = sums + left[:, -1]
        shares: Doubles = np.zeros_like(masses)
        wanted = np.where(left > self._tolerance * total[:, None], ascending, 0.0)
        np.put_along_axis(shares, order, wanted / total[:, None], axis=1)
        enough = ~shares.any(axis=1)
        if enough.any():
            # rivals of the best, if there are any, must be seen to be none
            rivals = bounds / self._temperature + self._top >= best[:, None]
            shares[enough] = (rivals & (bounds > -np.inf))[enough]
            enough = ~shares.any(axis=1)
        if self._threshold > 0.0 and enough.any():
            winner = np.exp(best - top[:, 0])
            unsure = (winner < self._threshold * total) & (winner >= self._threshold * sums)
            half = masses >= masses.max(axis=1, keepdims=True) / 2
            shares = np.where((enough & unsure)[:, None] & half & (masses > 0.0), 1.0, shares)
        return shares
