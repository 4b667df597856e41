# SPDX-License-Identifier: Apache-2.0
"""Running text out of XML events: paragraphs, and rows of cells, however they are nested.

Knows how text lies in lines; which elements mean what, the reader says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from freehold.documents.document import Limits
from freehold.documents.readers._ooxml import Event
from freehold.errors import DocumentTooLargeError

_BAR = " | "


@dataclass(frozen=True, slots=True)
class Grammar:
    """The local names of elements that carry text."""

    paragraph: str
    text: str
    row: str
    cell: str
    hidden: frozenset[str] = frozenset()  # nothing inside is text of the document
    spelled: Mapping[str, str] = field(default_factory=dict)  # elements that stand for characters


def text(events: Iterable[Event], grammar: Grammar, limits: Limits) -> str:
    """Paragraphs on lines, rows on one line each. Raises DocumentTooLargeError."""
    return _Flow(grammar, limits.max_characters).run(events)


class _Flow:
    """Where text goes: to the innermost open paragraph, and that to the innermost open cell."""

    def __init__(self, grammar: Grammar, limit: int) -> None:
        self.grammar = grammar
        self.limit = limit
        self.taken = 0
        self.hidden = 0  # open hidden elements
        self.in_text = 0
        self.lines: list[list[str]] = [[]]  # finished paragraphs, of the document and open cells
        self.paragraphs: list[list[str]] = []  # pieces of the open ones: text boxes lie in others
        self.rows: list[list[str]] = []  # finished cells of the open rows

    def run(self, events: Iterable[Event]) -> str:
        for what, name, _ in events:
            if what == "t":
                if self.in_text and not self.hidden:
                    self._take(name)
            elif name in self.grammar.hidden:
                self.hidden += 1 if what == "<" else -1
            elif not self.hidden:
                if what == "<":
                    self._open(name)
                else:
                    self._close(name)
        return "\n".join(self.lines[0]).strip("\n")

    def _take(self, text: str) -> None:
        self._count(len(text))
        (self.paragraphs or self.lines)[-1].append(text)

    def _count(self, length: int) -> None:
        self.taken += length
        if self.taken > self.limit:
            raise DocumentTooLargeError(f"a text of more than {self.limit:,} characters")

    def _open(self, name: str) -> None:
        grammar = self.grammar
        if name == grammar.text:
            self.in_text += 1
        elif name == grammar.paragraph:
            self.paragraphs.append([])
        elif name == grammar.row:
            self.rows.append([])
        elif name == grammar.cell:
            self.lines.append([])
        elif name in grammar.spelled:
            self._take(grammar.spelled[name])

    def _close(self, name: str) -> None:
        grammar = self.grammar
        if name == grammar.text:
            self.in_text -= 1
        elif name == grammar.paragraph:
            self._end_paragraph()
        elif name == grammar.cell:
            lines = self.lines.pop()
            self._count(len(_BAR))
            if self.rows:
                self.rows[-1].append(" ".join(" ".join(lines).split()))
        elif name == grammar.row:
            cells = self.rows.pop()
            if any(cells):
                self.lines[-1].append(_BAR.join(cells).rstrip())

    def _end_paragraph(self) -> None:
        line = "".join(self.paragraphs.pop()).rstrip()
        lines = self.lines[-1]
        # One empty line keeps paragraphs apart as the author did; more say nothing.
        if line or (lines and lines[-1]):
            lines.append(line)
