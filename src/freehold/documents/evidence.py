# SPDX-License-Identifier: Apache-2.0
"""Where in a text the words stand that an answer was copied from.

A model is shown to copy from the text with every run of blanks as one space; here such a copy is
found again in the text as it is. Offsets count code points. Knows no model and no schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from freehold.chat.grounded_json import words

_MAX_COUNTED = 1000  # places of one quote; more is as many


@dataclass(frozen=True, slots=True)
class Span:
    """``text[start:end]`` in code points, the first of `places` where the same words stand."""

    start: int
    end: int
    places: int = 1


class Passage:
    """A text, or the stretch of it that begins at `offset`, to copy from and to find copies in."""

    def __init__(self, text: str, offset: int = 0) -> None:
        self.text = text
        self.offset = offset

    @cached_property
    def flat(self) -> str:
        """The text with every run of blanks as one space: what is copied from."""
        return "".join(" " if piece.isspace() else piece for piece in self._pieces)

    @cached_property
    def _pieces(self) -> list[str]:
        return words(self.text)

    @cached_property
    def _places(self) -> tuple[dict[int, int], dict[int, int]]:
        """Where pieces begin and end: offset in the flat text -> offset in the text."""
        begins: dict[int, int] = {}
        ends: dict[int, int] = {}
        flat = at = 0
        for piece in self._pieces:
            begins[flat] = at
            flat += 1 if piece.isspace() else len(piece)
            at += len(piece)
            ends[flat] = at
        return begins, ends

    def find(self, quote: str) -> Span | None:
        """The first place where `quote` stands as whole words, None where there is none."""
        begins, ends = self._places
        first: tuple[int, int] | None = None
        count, at = 0, self.flat.find(quote) if quote else -1
        while at >= 0 and count < _MAX_COUNTED:
            if at in begins and at + len(quote) in ends:
                count += 1
                first = first or (begins[at], ends[at + len(quote)])
            at = self.flat.find(quote, at + 1)
        if first is None:
            return None
        return Span(self.offset + first[0], self.offset + first[1], count)
