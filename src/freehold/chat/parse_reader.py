# SPDX-License-Identifier: Apache-2.0
"""Reading a text that arrives in pieces as if it were all there.

A parser is a generator: it asks the `Reader` for what it needs and is suspended while the text is
not there yet. The same code parses whole answers and streams, and because no primitive looks at
where a piece ended, both give the same result. Text is consumed as it is read, so what is kept is
never longer than the longest marker looked for (plus, inside a call, its raw text up to a limit).
Knows nothing about formats.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Iterable
from typing import TypeAlias, TypeVar

from freehold.chat.parse_events import NoteKind

MAX_CALL_LENGTH = 1_000_000  # characters of one call; longer ones come back as text
MAX_NAME_LENGTH = 256

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # suspended = wants more text
Sink: TypeAlias = Callable[[str], object]

_SPACE = re.compile(r"\s*")


class Malformed(Exception):
    """What is being read is no call. `kind` None: nor did it claim to be one."""

    def __init__(self, kind: NoteKind | None, message: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Markers:
    """A set of literals to look for: leftmost, then longest."""

    def __init__(self, literals: Iterable[str]) -> None:
        self.literals = tuple(sorted({x for x in literals if x}, key=lambda x: (-len(x), x)))
        self._search = re.compile("|".join(map(re.escape, self.literals))).search
        self.beginnings = {x[:k] for x in self.literals for k in range(1, len(x))}
        self.longest = max(map(len, self.literals), default=0)

    def find(self, text: str, start: int, ended: bool) -> tuple[int, int]:
        """(where the text stops being plain, where the marker there ends, or -1 for none yet)."""
        if not self.literals:
            return len(text), -1
        open_at = len(text)
        if not ended:
            for k in range(min(self.longest - 1, len(text) - start), 0, -1):
                if text[len(text) - k :] in self.beginnings:
                    open_at = len(text) - k
                    break
        found = self._search(text, start)
        if found is None or found.start() >= open_at:
            return open_at, -1
        return found.start(), found.end()


@functools.lru_cache(maxsize=512)
def markers(*literals: str) -> Markers:
    """The set of these literals."""
    return Markers(literals)


class Reader:
    """A text of which only the beginning may be known."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._ended = False
        self._record: list[str] | None = None
        self._recorded = 0

    def feed(self, text: str) -> None:
        """More text has come."""
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        """No more text will come."""
        self._ended = True

    # -- raw text of what may turn out to be no call -------------------------------------------

    def record(self, so_far: str = "") -> None:
        """Keep what is consumed from here on."""
        self._record = [so_far]
        self._recorded = len(so_far)

    def recorded(self) -> str:
        """What was kept; stops keeping."""
        text = "".join(self._record or ())
        self._record = None
        return text

    def _take(self, count: int) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += count
        if self._record is not None:
            self._record.append(taken)
            self._recorded += len(taken)
            if self._recorded > MAX_CALL_LENGTH:
                raise Malformed("too_long", f"a call of more than {MAX_CALL_LENGTH} characters")
        return taken

    # -- primitives ----------------------------------------------------------------------------

    def peek(self, count: int = 1) -> Steps[str]:
        """The next characters, not consumed; fewer only at the end."""
        while len(self._text) - self._at < count and not self._ended:
            yield
        return self._text[self._at : self._at + count]

    def take(self, count: int = 1) -> Steps[str]:
        """Consume exactly so many characters; Malformed at the end."""
        if len((yield from self.peek(count))) < count:
            raise Malformed("truncated", "the answer ends inside a call")
        return self._take(count)

    def skip_space(self) -> Steps[str]:
        """Consume white space; returns it."""
        parts = []
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None
            if found.end() > self._at:
                parts.append(self._take(found.end() - self._at))
            if self._at < len(self._text) or self._ended:
                return "".join(parts)
            yield

    def run(self, pattern: re.Pattern[str], sink: Sink) -> Steps[None]:
        """Consume as long as characters match `pattern`, which looks like ``[...]+``."""
        while True:
            found = pattern.match(self._text, self._at)
            if found is not None:
                sink(self._take(found.end() - self._at))
            if self._at < len(self._text) or self._ended:
                return
            yield

    def text_of(self, pattern: re.Pattern[str], limit: int, too_long: Malformed) -> Steps[str]:
        """What `run` reads, as one text; raises `too_long` once it has more than `limit`."""
        parts: list[str] = []
        size = 0

        def sink(text: str) -> None:
            nonlocal size
            size += len(text)
            parts.append(text)
            if size > limit:
                raise too_long

        yield from self.run(pattern, sink)
        return "".join(parts)

    def at(self, wanted: Markers) -> Steps[str | None]:
        """The marker that stands here, not consumed; None if there is none."""
        while True:
            rest = self._text[self._at : self._at + (wanted.longest or 1)]
            if not self._ended and (not rest or rest in wanted.beginnings):
                yield
                continue
            return next((x for x in wanted.literals if rest.startswith(x)), None)

    def accept(self, *literals: str) -> Steps[str | None]:
        """Consume one of the literals if it stands here."""
        found = yield from self.at(markers(*literals))
        return None if found is None else self._take(len(found))

    def need(self, *literals: str) -> Steps[str]:
        """Consume one of the literals; Malformed if none stands here."""
        found = yield from self.accept(*literals)
        if found is None:
            rest = yield from self.peek()
            if not rest:
                raise Malformed("truncated", "the answer ends inside a call")
            raise Malformed("bad_syntax", f"a call has {rest!r} where {literals[0]!r} belongs")
        return found

    def until(self, stops: Markers, sink: Sink) -> Steps[str | None]:
        """Consume plain text up to a marker, which is consumed too. None: the text ended first."""
        while True:
            stop, end = stops.find(self._text, self._at, self._ended)
            if stop > self._at:
                sink(self._take(stop - self._at))
            if end >= 0:
                return self._take(end - stop)
            if self._ended:
                return None
            yield

    def collect(self, *literals: str, limit: int = MAX_CALL_LENGTH) -> Steps[tuple[str, str]]:
        """(text up to one of the literals, that literal); Malformed at the end or the limit."""
        parts: list[str] = []
        size = 0

        def sink(text: str) -> None:
            nonlocal size
            size += len(text)
            parts.append(text)
            if size > limit:
                raise Malformed("too_long", f"a part of a call has more than {limit} characters")

        found = yield from self.until(markers(*literals), sink)
        if found is None:
            raise Malformed("truncated", "the answer ends inside a call")
        return "".join(parts), found

    def at_end(self) -> Steps[bool]:
        """Whether nothing more will come."""
        return not (yield from self.peek())
