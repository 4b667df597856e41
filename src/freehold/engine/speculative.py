# SPDX-License-Identifier: Apache-2.0
"""Drafts by prompt lookup, and when they are worth their cost.

A draft is what followed the last earlier occurrence of the sequence's last few tokens (Saxena
2023, "Prompt lookup decoding"). Verification is the engine's: it samples from the model at each
drafted position as it would without drafts and goes on while the sample equals the draft, so
drafts change the speed and nothing else. Knows no model and reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_NGRAM = 4
MIN_NGRAM = 2
# Lookups stay cheap on very long contexts: only this many last tokens are searched.
SEARCH_WINDOW = 16384

_SMOOTHING = 0.2  # weight of the newest measurement
_EVIDENCE = 12  # drafts seen before a verdict
_FIRST_PAUSE = 16  # tokens without drafts after a verdict; doubles up to the last
_LAST_PAUSE = 512


def propose(context: npt.NDArray[np.int32], count: int) -> list[int]:
    """Up to `count` tokens that followed the latest earlier occurrence of the context's ending.

    Longer endings (4 tokens) are preferred to shorter ones (2); [] when there is none.
    """
    context = context[max(0, len(context) - SEARCH_WINDOW) :]
    size = len(context)
    if size <= MIN_NGRAM or count < 1:
        return []
    # Ends of earlier occurrences, thinned out as the ending grows.
    ends = np.flatnonzero(context[: size - 1] == context[size - 1])
    found: npt.NDArray[np.intp] | None = None
    for n in range(2, MAX_NGRAM + 1):
        ends = ends[ends >= n - 1]
        ends = ends[context[ends - (n - 1)] == context[size - n]]
        if not len(ends):
            break
        found = ends
    if found is None:
        return []
    start = int(found[-1]) + 1
    drafts: list[int] = context[start : start + count].tolist()
    if len(drafts) < count:
        # The occurrence runs into the present: the loop it is in goes on.
        period = size - start
        drafts = [int(context[start + i % period]) for i in range(count)]
    return drafts


@dataclass(slots=True)
class StepCosts:
    """What a decode step costs with and without drafts, measured as the engine runs.

    Steps are told apart by the number of decoding sequences (next power of two), for a row more
    costs little at a batch of one and nearly its share at sixty-four.
    """

    _plain: dict[int, float] = field(default_factory=dict)  # seconds of a step without drafts
    _extra: dict[int, float] = field(default_factory=dict)  # seconds one more draft row costs

    def record(self, num_seqs: int, num_drafts: int, seconds: float) -> None:
        """One pure decode step was measured."""
        key = _bucket(num_seqs)
        plain = self._plain.get(key)
        if num_drafts == 0:
            self._plain[key] = _blend(plain, seconds)
        elif plain is not None:
            extra = max(0.0, seconds - plain) / num_drafts
            self._extra[key] = _blend(self._extra.get(key), extra)

    def knows_plain(self, num_seqs: int) -> bool:
        """Whether a step of this size has been seen without drafts."""
        return _bucket(num_seqs) in self._plain

    def break_even(self, num_seqs: int) -> float:
        """Share of drafts that must be accepted to pay for all of them; 0 when unknown.

        N sequences get N tokens out of a plain step of c seconds. A draft adds m seconds and
        r tokens, so throughput rises when r / m > N / c.
        """
        key = _bucket(num_seqs)
        plain, extra = self._plain.get(key), self._extra.get(key)
        if plain is None or extra is None or plain <= 0.0:
            return 0.0
        return num_seqs * extra / plain


@dataclass(slots=True)
class DraftControl:
    """One sequence's record of drafts: how many to try next, and when to stop trying."""

    max_drafts: int
    _proposed: float = 0.0  # fading sums
    _accepted: float = 0.0
    _pause: int = 0  # tokens to go without drafts
    _next_pause: int = _FIRST_PAUSE
    _length: int = 0

    def __post_init__(self) -> None:
        self._length = self.max_drafts

    def allowance(self) -> int:
        """Drafts to propose now; call once per decode step."""
        if self._pause > 0:
            self._pause -= 1
            return 0
        return self._length

    def record(self, proposed: int, accepted: int, break_even: float) -> None:
        """Learn from a verification; pause when drafts have not been paying."""
        fade = 0.9
        self._proposed = self._proposed * fade + proposed
        self._accepted = self._accepted * fade + accepted
        # Ask for a little more than was taken last time: rejected rows are pure cost.
        if accepted == proposed:
            self._length = min(self.max_drafts, max(1, self._length) * 2)
        else:
            self._length = max(1, min(self.max_drafts, accepted + 1))
        if self._proposed >= _EVIDENCE:
            if self._accepted / self._proposed <= break_even:
                self._pause = self._next_pause
                self._next_pause = min(_LAST_PAUSE, 2 * self._next_pause)
                self._proposed = self._accepted = 0.0
                self._length = self.max_drafts
            else:
                self._next_pause = _FIRST_PAUSE


def _bucket(num_seqs: int) -> int:
    return 1 << max(0, num_seqs - 1).bit_length()


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
