# SPDX-License-Identifier: Apache-2.0
"""Tables in text: one document per row, written as ``column: cell`` lines.

The delimiter is guessed from the beginning of the file. The first row names the columns unless a
cell of it is empty, repeated or a number. Cells beyond the named columns are kept under numbers;
a broken quotation is an error, for it may swallow rows. The file is read line by line, however long
it is; a row has the limit of a document.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text
from freehold.errors import DocumentTooLargeError, MalformedDocumentError

VERSION = 1
LARGE = True

_DELIMITERS = ",;\t|"
_SAMPLE = 64_000  # characters looked at to guess the delimiter
_SAMPLE_ROWS = 20
_NUMBER = re.compile(r"[-+]?(?=[.,]*\d)[\d.,]+%?")


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """One part per row that holds anything."""
    encoding = _text.encoding_of(file)
    notes = encoding.notes
    limit = limits.max_characters
    delimiter = _delimiter(_text.lines(file, encoding, limit))
    rows = _Rows(_text.lines(file, encoding, limit), delimiter, limit, strict=True)
    try:
        first = next(rows, [])
        names = _header(first)
        if names is None:
            names = [_numbered(i) for i in range(len(first))]
            notes = (*notes, "the first row does not name the columns, so they are numbered")
            rows.put_back(first)
        for number, row in enumerate(rows, 1):
            yield _part(number, names, row, notes)
    except csv.Error as error:
        raise MalformedDocumentError(f"not a table at line {rows.line:,}: {error}") from None


class _Rows:
    """Rows that hold anything, as cells without surrounding blanks."""

    def __init__(
        self, lines: Iterable[str | None], delimiter: str, limit: int, *, strict: bool
    ) -> None:
        self._limit = limit  # characters of a row
        self._taken = 0  # of the row that is being read
        self._reader = csv.reader(self._lines(lines), delimiter=delimiter, strict=strict)
        self._waiting: list[list[str]] = []

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        if self._waiting:
            return self._waiting.pop()
        # The library's limit on a cell is the whole process's, and small: it is lent for a row.
        before = csv.field_size_limit(self._limit)
        try:
            while True:
                self._taken = 0
                row = [cell.strip() for cell in next(self._reader)]
                if any(row):
                    return row
        finally:
            csv.field_size_limit(before)

    def put_back(self, row: list[str]) -> None:
        if row:
            self._waiting.append(row)

    @property
    def line(self) -> int:
        return self._reader.line_num

    def _lines(self, lines: Iterable[str | None]) -> Iterator[str]:
        for line in lines:
            self._taken += len(line or "")
            if line is None or self._taken > self._limit:
                raise DocumentTooLargeError(
                    f"a row of more than {self._limit:,} characters at line {self.line + 1:,}",
                    hint="if it should not be that long, a quotation mark is not closed",
                )
            yield line


def _part(number: int, names: Sequence[str], row: list[str], notes: tuple[str, ...]) -> Part:
    if len(row) > len(names):
        notes = (*notes, f"row {number} has {len(row)} cells for {len(names)} columns")
    cells = dict(zip(names, row, strict=False))
    for i in range(len(names), len(row)):
        name = _numbered(i)
        cells[name + " (no header)" if name in cells else name] = row[i]
    lines = (f"{name}: {cell}" for name, cell in cells.items() if cell)
    return Part("\n".join(lines), row=number, columns=cells, notes=notes)


def _delimiter(lines: Iterable[str | None]) -> str:
    """The character that cuts most rows at the beginning into the same number of cells."""
    sample: list[str] = []
    length = 0
    for line in lines:
        length += len(line or "")
        if line is None or (length > _SAMPLE and sample):
            break
        sample.append(line)
    best, best_score = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        widths: list[int] = []
        try:
            for row in _Rows(sample, delimiter, length + 1, strict=False):
                widths.append(len(row))
                if len(widths) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            continue
        if not widths:
            continue
        width, same = Counter(widths).most_common(1)[0]
        score = (same / len(widths), width) if width > 1 else (0.0, 0)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _header(row: list[str]) -> list[str] | None:
    """The names of the columns, or None when the row does not look like names."""
    names = [" ".join(cell.split()) for cell in row]
    while names and not names[-1]:  # spreadsheets write empty columns at the end
        names.pop()
    distinct = len({name.casefold() for name in names}) == len(names)
    if not distinct or any(not name or _NUMBER.fullmatch(name) for name in names):
        return None
    return names


def _numbered(index: int) -> str:
    return f"column {index + 1}"
