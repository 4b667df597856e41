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

from freehold.errors import InvalidParameterError


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
        self._top = [0.0] * len(below)  # greatest bias of a group
        if precision.biases:
            self._top = [max(precision.biases[i] for i in labels) for labels in below]
        spread = max(0.0, 1.0 - 1.0 / precision.temperature)
        self._extra = [
            bias + spread * math.log(len(labels))
            for bias, labels in zip(self._top, below, strict=True)
        ]

    def due(self, bounds: Mapping[int, float], known: Mapping[int, float]) -> dict[int, float]:
        """Groups to look into next, of those that are open, and the share of each in all that is
        open or known; none when it is enough. Given are log-probabilities of their beginnings, and
        of the labels that are known."""
        if not bounds:
            return {}
        # Plain floats: a handful of labels is what there mostly is, and arrays cost more then.
        most = {group: self._most(group, bound) for group, bound in bounds.items()}
        weights = self._weights(known)
        best = max(weights, default=-math.inf)
        top = max(best, *most.values())
        order = sorted(most, key=most.__getitem__, reverse=True)
        masses = [math.exp(most[group] - top) for group in order]
        total = math.fsum(math.exp(weight - top) for weight in weights) + math.fsum(masses)
        count, left = len(order), 0.0  # the first so many are looked into, and that is left
        while count and left + masses[count - 1] <= self._tolerance * total:
            count -= 1
            left += masses[count]
        if not count:  # rivals of the best, if there are any, must be seen to be none
            return {
                group: 1.0
                for group, bound in bounds.items()
                if bound / self._temperature + self._top[group] >= best
            }
        return {group: mass / total for group, mass in zip(order[:count], masses, strict=False)}

    def _most(self, group: int, bound: float) -> float:
        """Logarithm of what the labels of an open group can count together."""
        return bound / self._temperature + self._extra[group]

    def _weights(self, known: Mapping[int, float]) -> list[float]:
        """Logarithms of what the known labels count."""
        temperature, biases = self._temperature, self._biases
        if not biases:
            return [value / temperature for value in known.values()]
        return [value / temperature + biases[label] for label, value in known.items()]
