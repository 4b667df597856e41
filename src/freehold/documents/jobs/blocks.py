# SPDX-License-Identifier: Apache-2.0
"""Which items go together: texts that begin alike, then texts of about one length, in blocks.

Keys and values of a shared beginning are computed once when those that share it come one after
another. Within a block the longest answer is waited for, so a block holds texts of about one
length, the long ones first: short ones fill the end. Knows items, no tokens and no model.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from freehold.documents.jobs.items import Item

WINDOW_ITEMS = 2048  # looked at together; this bounds memory, with the next
WINDOW_CHARACTERS = 16_000_000
WINDOW_SECONDS = 1.0  # where reading takes long, whoever computes must not wait for a whole window
_BEGINNING = 200  # characters that texts must share to count as beginning alike
_BLOCK_CHARACTERS = 400_000  # a block is less than its number of items where they are long

_SHORT, _LONG = 0.5, 4.0  # seconds; a block should take between these


def windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Consecutive items, as many as may be in memory together."""
    window: list[Item] = []
    held, began = 0, time.monotonic()
    for item in items:
        window.append(item)
        held += len(_text(item))
        full = len(window) >= WINDOW_ITEMS or held >= WINDOW_CHARACTERS
        if full or time.monotonic() - began >= WINDOW_SECONDS:
            yield window
            window, held, began = [], 0, time.monotonic()
    if window:
        yield window


def arranged(items: Sequence[Item]) -> list[Item]:
    """In the order in which they are best computed."""
    beginnings = Counter(_text(item)[:_BEGINNING] for item in items)

    def key(item: Item) -> tuple[str, int, str]:
        text = _text(item)
        beginning = text[:_BEGINNING]
        shared = len(beginning) == _BEGINNING and beginnings[beginning] > 1
        return beginning if shared else "", -len(text).bit_length(), text[:_BEGINNING]

    return sorted(items, key=key)


class Pace:
    """How many items a block should hold: few enough that little is lost when the process dies,
    enough that handing over costs nothing."""

    FIRST = 8  # items in the first block, and the least
    MOST = 256

    def __init__(self) -> None:
        self.size = self.FIRST

    def took(self, items: int, seconds: float) -> None:
        """A block of so many items took so long."""
        if seconds < _SHORT and items * 2 > self.size:
            self.size = min(self.size * 2, self.MOST)
        elif seconds > _LONG:
            self.size = max(self.size // 2, self.FIRST)

    def take(self, items: Sequence[Item], start: int) -> Sequence[Item]:
        """The block that begins at `start`."""
        end, held = start, 0
        while end < min(start + self.size, len(items)):
            held += len(_text(items[end]))
            if held > _BLOCK_CHARACTERS and end > start:
                break
            end += 1
        return items[start:end]


def _text(item: Item) -> str:
    return item.document.text if item.document is not None else ""
