# SPDX-License-Identifier: Apache-2.0
"""What many texts begin with, tokenised once.

A thousand documents under one instruction, or the turns of one conversation, begin alike, and
splitting a long instruction takes longer than the rest of a short question. Knows texts and where
they may be cut; how a text is tokenised is the caller's matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

_LEAST = 256  # characters that are worth it
_MOST = 1 << 16  # characters looked at
_KEPT = 8  # beginnings, and as many texts that had none of them

Encode: TypeAlias = Callable[[str], list[int]]


class Beginnings:
    """Ids of texts, by way of what earlier ones began with. May be shared between threads.

    `cut` matches what is behind a place where a text may be cut: the ids of what is before the
    match and of what begins with it, one behind the other, are those of the whole.
    """

    def __init__(self, encode: Encode, cut: re.Pattern[str]) -> None:
        self._encode = encode
        self._cut = cut
        # Replaced, never changed: another thread may be reading them.
        self._known: tuple[tuple[str, list[int]], ...] = ()  # the longest first
        self._recent: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`."""
        if len(text) < _LEAST:
            return self._encode(text)
        for begin, ids in self._known:
            if text.startswith(begin) and self._cut.match(text, len(begin)):
                return ids + self._encode(text[len(begin) :])
        if begin := self._shared(text):
            ids = self._encode(begin)
            kept = [*self._known[-_KEPT + 1 :], (begin, ids)]
            self._known = tuple(sorted(kept, key=lambda each: -len(each[0])))
            return ids + self._encode(text[len(begin) :])
        self._recent = (text[:_MOST], *self._recent)[:_KEPT]
        return self._encode(text)

    def _shared(self, text: str) -> str:
        """The longest beginning that it has in common with a recent one, up to a cut."""
        most = max((_alike(text, other) for other in self._recent), default=0)
        places = [match.start() for match in self._cut.finditer(text, 0, most)]
        return text[: places[-1]] if places and places[-1] >= _LEAST else ""


def _alike(left: str, right: str) -> int:
    """Characters that two texts begin with, found by halving."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle - 1)
    return low
