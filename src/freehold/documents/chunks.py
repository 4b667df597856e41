# SPDX-License-Identifier: Apache-2.0
"""A long text in pieces that fit a model, cut where people would cut it.

Between sections that begin with a heading, else between paragraphs, else between sentences, else
between words, else anywhere. Tables and fenced code stay whole where they fit at all. Every piece
is ``text[start:end]``; the pieces, without what they repeat, join to the text. Sizes are tokens as
`count` counts them; knows no tokenizer and no task.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from freehold.errors import ContextLengthError

if TYPE_CHECKING:
    from freehold.documents.asking import Asker
    from freehold.documents.prompts import Messages

VERSION = 1

Count = Callable[[str], int]
Span = tuple[int, int]  # [start, end) in the text

_LEAST = 32  # tokens; a piece of less says nothing by itself
_SLACK = 4  # tokens that a text may need more inside a conversation than alone
_OVERLAP_SHARE = 4  # at most one part in so many of a piece repeats the one before
_CHARACTERS = 8  # a token rarely spells more; where the search for a cut begins
_HEADING = re.compile(r"(?:#{1,6}[ \t]+\S|(?:\d{1,3}\.){1,6}\d*[ \t]+\S).{0,200}")
_UNDERLINE = re.compile(r"(?:=[= \t]{2,}|-[- \t]{2,})[ \t]*")
_TABLE = re.compile(r"[ \t]*\|.*|[^\n|]*\|[^\n|]*\|.*|[^\n\t]*\t[^\n]*\t.*")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’»)\]]*[ \t\n]+|[。！？]+[」』”）]*|\n")
_WORD_END = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a text: ``text[start:end]``. Its first `repeated` code points are the end of the
    piece before."""

    text: str
    start: int
    end: int
    repeated: int = 0


def chunk(text: str, limit: int, count: Count, *, overlap: int = 0) -> list[Chunk]:
    """The pieces of `text`, each of at most `limit` tokens.

    `overlap`: so many sentences before a piece are repeated at its beginning, as far as they fit a
    quarter of it.
    """
    # No tokenizer makes more tokens of ASCII than letters, but one before them. Counting may be a
    # request to another machine.
    if (text.isascii() and len(text) < limit) or count(text) <= limit:
        return [Chunk(text, 0, len(text))]
    room = max(1, limit - limit // _OVERLAP_SHARE) if overlap else limit
    spans = list(_Cutter(text, room, count).spans())
    pieces = [Chunk(text[start:end], start, end) for start, end in spans]
    return pieces if not overlap else _overlapping(text, pieces, overlap, limit - room, count)


def chunks_for(
    asker: Asker, text: str, question: Messages, answer_tokens: int, *, overlap: int = 0
) -> list[Chunk]:
    """The pieces of `text` that fit into `question`, a conversation without a text, and leave room
    for an answer.

    Raises ContextLengthError where the question alone fills the context.
    """
    room = room_beside(asker, question, answer_tokens)
    return chunk(text, room, asker.count_text, overlap=overlap)


def room_beside(asker: Asker, question: Messages, answer_tokens: int) -> int:
    """Tokens of a text that fit into `question` and leave room for an answer. Raises
    ContextLengthError as `chunks_for` does."""
    room = asker.context_length - asker.count(question) - answer_tokens - _SLACK
    if room < _LEAST:
        raise ContextLengthError(
            f"the instruction and the answer leave {max(0, room):,} of {asker.context_length:,} "
            "tokens for a document",
            hint="use a model with a longer context, or ask for less at once",
        )
    return room


class _Cutter:
    """Cuts one text. `levels` are ways of cutting, from the one that hurts least."""

    def __init__(self, text: str, limit: int, count: Count) -> None:
        self._text = text
        self._limit = limit
        self._count = count
        self._levels = (self._sections, self._paragraphs, self._sentences, self._anywhere)

    def spans(self) -> Iterator[Span]:
        """The pieces, in order."""
        yield from self._packed((0, len(self._text)), 0)

    def _packed(self, span: Span, level: int) -> Iterator[Span]:
        """Parts of `span`, joined as long as they fit; one that does not is cut at the next level,
        and what is left of it is not joined with what follows."""
        begin, size = span[0], 0
        for start, end in self._levels[level](span):
            tokens = self._count(self._text[start:end])
            if size + tokens > self._limit and start > begin:
                yield begin, start
                begin, size = start, 0
            if tokens > self._limit:
                last = level + 1 >= len(self._levels)
                yield from [(start, end)] if last else self._packed((start, end), level + 1)
                begin, size = end, 0
                continue
            size += tokens
        if begin < span[1]:
            yield begin, span[1]

    # -- ways of cutting -----------------------------------------------------------------------
    def _sections(self, span: Span) -> Iterator[Span]:
        begin = span[0]
        for kind, start, _ in self._blocks(span):
            if kind == "heading" and start > begin:
                yield begin, start
                begin = start
        yield begin, span[1]

    def _paragraphs(self, span: Span) -> Iterator[Span]:
        """Paragraphs with the empty lines behind them; a heading goes with what it is above."""
        begin, headed = span[0], False
        for kind, start, end in self._blocks(span):
            if start > begin and not headed:
                yield begin, start
                begin = start
            headed = kind == "heading"
            if not headed:
                yield begin, end
                begin = end
        if begin < span[1]:
            yield begin, span[1]

    def _sentences(self, span: Span) -> Iterator[Span]:
        yield from _cut_after(self._text, span, _SENTENCE_END)

    def _anywhere(self, span: Span) -> Iterator[Span]:
        """Between words where there are some, by as many characters as fit."""
        text, (begin, stop) = self._text, span
        while begin < stop:
            size = min(stop - begin, self._limit * _CHARACTERS)
            while size > 1 and self._count(text[begin : begin + size]) > self._limit:
                size = size * 3 // 4
            end = begin + max(1, size)
            if end < stop:
                end = self._nicer(begin, end)
            yield begin, end
            begin = end

    def _nicer(self, begin: int, end: int) -> int:
        """A place not far before `end` that cuts no word, or at least no letter from its accent."""
        text = self._text
        least = begin + max(1, (end - begin) * 3 // 4)
        for at in range(end, least, -1):
            if text[at - 1].isspace():
                return at
        while end > least and unicodedata.combining(text[end]):
            end -= 1
        return end

    # -- lines -----------------------------------------------------------------------------------
    def _blocks(self, span: Span) -> Iterator[tuple[str, int, int]]:
        """Headings, tables, fenced code and paragraphs, with the empty lines behind them."""
        kind, begin, fenced, blank = "", span[0], False, False
        for start, end, line_kind in self._lines(span):
            if line_kind == "fence":
                fenced = not fenced
                line_kind = "code"
                opens = fenced
            else:
                line_kind = "code" if fenced else line_kind
                opens = False
            if line_kind == "blank":
                blank = True
                continue
            if kind and (line_kind != kind or opens or (blank and kind != "code")
                         or kind == "heading"):  # fmt: skip
                yield kind, begin, start
                begin = start
            kind, blank = line_kind, False
            del end
        if begin < span[1]:
            yield kind or "text", begin, span[1]

    def _lines(self, span: Span) -> Iterator[tuple[int, int, str]]:
        start, stop = span
        while start < stop:
            at = self._text.find("\n", start, stop)
            end = stop if at < 0 else at + 1
            yield start, end, self._kind(start, end, stop)
            start = end

    def _kind(self, start: int, end: int, stop: int) -> str:
        line = self._text[start : min(end, start + 1000)].rstrip("\n")
        if not line.strip():
            return "blank"
        if _FENCE.match(line):
            return "fence"
        if _TABLE.fullmatch(line):
            return "table"
        if _HEADING.fullmatch(line):
            return "heading"
        following = self._text[end : min(stop, end + 200)].partition("\n")[0]
        underlined = len(line) <= 200 and _UNDERLINE.fullmatch(following) is not None
        return "heading" if underlined and not _UNDERLINE.fullmatch(line) else "text"


def _cut_after(text: str, span: Span, end: re.Pattern[str]) -> Iterator[Span]:
    begin, stop = span
    for found in end.finditer(text, begin, stop):
        if found.end() > begin:
            yield begin, found.end()
            begin = found.end()
    if begin < stop:
        yield begin, stop


def _overlapping(
    text: str, pieces: Sequence[Chunk], sentences: int, room: int, count: Count
) -> list[Chunk]:
    """Pieces that begin some sentences earlier, as far as `room` tokens hold them."""
    found = [pieces[0]]
    for before, piece in pairwise(pieces):
        # Only the last part of a long piece can fit.
        start = max(before.start, before.end - room * _CHARACTERS)
        ends = list(_cut_after(text, (start, before.end), _SENTENCE_END))
        begin = piece.start
        for candidate, _ in reversed(ends[-sentences:]):
            if count(text[candidate : piece.start]) > room:
                break
            begin = candidate
        found.append(Chunk(text[begin : piece.end], begin, piece.end, piece.start - begin))
    return found
