# SPDX-License-Identifier: Apache-2.0
"""The logits of a step from which tokens are chosen, or that a ``next`` measurement looks at.

They are computed for all sequences together, some rows at a time, and given out in the order of
the plan. Prompt log-probabilities and kin are `results.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from freehold.engine.model_runner import ModelRunner, RowSpan
from freehold.engine.results import ROWS_PER_SLICE
from freehold.ops import Array, FloatArray


class ChosenRows:
    """Computed at once; `take` gives the next ones."""

    def __init__(self, runner: ModelRunner, hidden: Array, spans: Sequence[RowSpan]) -> None:
        rows: list[int] = []
        for span in spans:
            if span.item.seq.want in ("tokens", "next"):
                rows.extend(range(span.start + span.num_prompt_rows, span.start + span.count))
        self._slices: list[FloatArray] = []
        self._given = 0
        if rows:
            chosen = hidden if len(rows) == hidden.shape[0] else runner.take(hidden, rows)
            self._slices = [
                runner.logits(chosen[at : at + ROWS_PER_SLICE])
                for at in range(0, len(rows), ROWS_PER_SLICE)
            ]

    def take(self, count: int) -> list[FloatArray]:
        """The next `count` rows: logits [vocab]."""
        first, self._given = self._given, self._given + count
        return [
            self._slices[row // ROWS_PER_SLICE][row % ROWS_PER_SLICE]
            for row in range(first, self._given)
        ]
