# SPDX-License-Identifier: Apache-2.0
"""Prompt lookup: guess that a text which begins to repeat itself goes on as it did before.

Drafts cost extra rows in a step and are worth the ones that turn out right. Whether that pays is
measured, never assumed: `StepCost` learns what a row costs on this machine with this model,
`DraftControl` what the drafts of one sequence are worth, stops when they are not worth it and
tries again later. Knows no model; verifying drafts is the engine's work and never changes a
result, only how fast it comes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_NGRAM = 4
MIN_NGRAM = 2
_DECAY = 0.97  # weight of a step after the next one has been seen
_FIRST_PAUSE = 16  # steps without drafts after they did not pay; doubles each time
_LAST_PAUSE = 512
_RATE_STEP = 0.25  # how fast the accepted share follows what is seen
_PROBES = 3  # proposals a sequence may make before it is judged


def propose(context: npt.NDArray[np.int32], count: int) -> list[int]:
    """`count` tokens that followed the latest earlier occurrence of the context's tail.

    The longest tail of 4, 3 or 2 tokens that occurs earlier decides; [] when none does. An
    occurrence so recent that it runs into the present is a loop, which is taken to go on.
    """
    size = len(context)
    for n in range(min(MAX_NGRAM, size - 1), MIN_NGRAM - 1, -1):
        tail = context[size - n :]
        # starts of earlier occurrences; the last possible one leaves a token to follow it
        hits = np.flatnonzero(context[: size - n] == tail[0])
        for i in range(1, n):
            hits = hits[context[hits + i] == tail[i]]
        if len(hits):
            start = int(hits[-1]) + n
            period = size - start
            return [int(context[start + i % period]) for i in range(count)]
    return []


class StepCost:
    """Seconds of a decoding step as a line over its rows, fitted with fading memory."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`."""
        sums = (self._weight, self._x, self._y, self._xx, self._xy)
        new = (1.0, rows, seconds, rows * rows, rows * seconds)
        self._weight, self._x, self._y, self._xx, self._xy = (
            old * _DECAY + add for old, add in zip(sums, new, strict=True)
        )

    def line(self) -> tuple[float, float] | None:
        """(seconds of a step without rows, seconds per row); None before rows have varied."""
        if self._weight < 4.0:
            return None
        spread = self._xx - self._x * self._x / self._weight
        if spread < 0.1 * self._weight:
            return None
        slope = max(0.0, (self._xy - self._x * self._y / self._weight) / spread)
        return max(0.0, (self._y - slope * self._x) / self._weight), slope


class DraftControl:
    """Whether one sequence drafts, and how well its drafts did."""

    def __init__(self, max_drafts: int) -> None:
        self._max_drafts = max_drafts
        self._rate = 0.5
        self._seen = 0
        self._pause = _FIRST_PAUSE
        self._resting = 0

    @property
    def resting(self) -> bool:
        """Whether the sequence has stopped drafting for the time being."""
        return self._resting > 0

    def drafts(
        self, context: npt.NDArray[np.int32], num_decoding: int, cost: StepCost
    ) -> list[int]:
        """Tokens to try after `context` in a step of `num_decoding` sequences."""
        if self._resting:
            self._resting -= 1
            return []
        if self._seen >= _PROBES and not self._pays(num_decoding, cost):
            self._resting = self._pause
            self._pause = min(2 * self._pause, _LAST_PAUSE)
            self._seen = 0  # after the rest, look afresh
            self._rate = 0.5
            return []
        return propose(context, self._max_drafts)

    def judge(self, proposed: int, accepted: int) -> None:
        """`accepted` of `proposed` drafts were right."""
        self._seen += 1
        self._rate += _RATE_STEP * (accepted / proposed - self._rate)

    def _pays(self, num_decoding: int, cost: StepCost) -> bool:
        """A row is worth its rate of acceptance times what a token costs without drafts."""
        line = cost.line()
        if line is None:
            return True
        base, per_row = line
        token_seconds = (base + per_row * num_decoding) / num_decoding
        pays = self._rate * token_seconds > per_row
        if pays:
            self._pause = _FIRST_PAUSE
        return pays
