# SPDX-License-Identifier: Apache-2.0
"""A document as every task sees it: one text, and where it came from.

Knows no file format; readers make documents, tasks read them. Everything here can be pickled, so
that a reader may run in another process.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath

from freehold.errors import DocumentError, InvalidParameterError


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a reader may take in. Beyond a limit is an error; nothing is cut."""

    max_bytes: int = 32_000_000  # of a file that its reader holds whole
    max_large_bytes: int = 16_000_000_000  # of a file that is read piece by piece
    max_characters: int = 4_000_000  # of one document's text
    max_parts: int = 100  # nested or sibling containers in a file, such as parts of an e-mail
    max_pages: int = 20_000  # pages, slides or sheets
    max_members: int = 200_000  # files in an archive, those in archives inside it counted in
    max_unpacked_bytes: int = 2_000_000_000  # of an archive or office file, all depths together
    max_depth: int = 3  # archives in archives


@dataclass(frozen=True, slots=True)
class Page:
    """Where the text of a page, slide or sheet lies: ``text[start:end]`` in code points."""

    number: int  # from 1, as the file counts them
    start: int
    end: int
    name: str | None = None  # of a sheet


@dataclass(frozen=True, slots=True)
class Part:
    """What a reader found: text and what it says about itself. The loader adds the origin."""

    text: str
    row: int | None = None  # of a table, counted from 1 below the header
    columns: Mapping[str, str] = field(default_factory=dict)  # the cells of that row
    notes: tuple[str, ...] = ()
    pages: tuple[Page, ...] = ()  # those that were read
    pages_total: int | None = None  # those the file has; None where it has no pages


@dataclass(frozen=True, slots=True)
class Unread:
    """A document that could not be read, in its place among those that could."""

    error: DocumentError
    source: str = ""  # empty until the loader has added it
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One text to work on.

    `text` is canonical: every offset into a document counts code points of exactly this string,
    with ``\\n`` between lines. `notes` say what its reader decided or left out, as sentences.
    """

    text: str
    source: str  # path, as given; in an archive followed by the path inside
    reader: str  # name and version tell which code made the text
    reader_version: int
    row: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pages: tuple[Page, ...] = ()  # in order; empty for kinds of files that have none
    pages_total: int | None = None

    @property
    def name(self) -> str:
        """What to call it in a sentence: file name, and the row where a file holds many."""
        base = PurePath(self.source).name
        return base if self.row is None else f"{base}, row {self.row}"

    @property
    def sha256(self) -> str:
        """Of the text in UTF-8: the same content, the same digest, wherever it lies."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()

    @property
    def pages_read(self) -> int | None:
        """How many of `pages_total` are in the text."""
        return None if self.pages_total is None else len(self.pages)

    def page_at(self, offset: int) -> Page | None:
        """The page on which the code point at `offset` stands."""
        at = bisect.bisect_right(self.pages, offset, key=lambda page: page.start) - 1
        return self.pages[at] if at >= 0 and offset < self.pages[at].end else None

    def column(self, name: str) -> Document:
        """This row with the text of one column only. Raises InvalidParameterError."""
        if name not in self.columns:
            known = ", ".join(list(self.columns)[:20])
            raise InvalidParameterError(
                f"{self.name} has no column {name!r:.100}",
                hint=f"columns: {known}" if known else "only tables have columns",
            )
        return replace(self, text=self.columns[name])
