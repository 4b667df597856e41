# SPDX-License-Identifier: Apache-2.0
"""Tables in text: one document per row, written as ``column: cell`` lines.

The delimiter is guessed from the beginning of the file. The first row names the columns unless a
cell of it is empty, repeated or a number. Cells beyond the named columns are kept under numbers;
a broken quotation is an error, for it may swallow rows.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _text
from freehold.errors import MalformedDocumentError

VERSION = 1

_DELIMITERS = ",;\t|"
_SAMPLE = 64_000  # characters looked at to guess the delimiter
_SAMPLE_ROWS = 20
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_NUMBER = re.compile(r"[-+]?(?=[.,]*\d)[\d.,]+%?")


def read(data: bytes, limits: Limits) -> Iterator[Part]:
    """One part per row that holds anything."""
    del limits
    text, notes = _text.decode(data)
    rows = _Rows(text, _delimiter(text), strict=True)
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

    def __init__(self, text: str, delimiter: str, *, strict: bool) -> None:
        lines = (match.group() for match in _LINE.finditer(text))
        self._reader = csv.reader(lines, delimiter=delimiter, strict=strict)
        self._waiting: list[list[str]] = []

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        if self._waiting:
            return self._waiting.pop()
        while True:
            row = [cell.strip() for cell in next(self._reader)]
            if any(row):
                return row

    def put_back(self, row: list[str]) -> None:
        if row:
            self._waiting.append(row)

    @property
    def line(self) -> int:
        return self._reader.line_num


def _part(number: int, names: Sequence[str], row: list[str], notes: tuple[str, ...]) -> Part:
    if len(row) > len(names):
        notes = (*notes, f"row {number} has {len(row)} cells for {len(names)} columns")
    cells = dict(zip(names, row, strict=False))
    for i in range(len(names), len(row)):
        name = _numbered(i)
        cells[name + " (no header)" if name in cells else name] = row[i]
    lines = (f"{name}: {cell}" for name, cell in cells.items() if cell)
    return Part("\n".join(lines), row=number, columns=cells, notes=notes)


def _delimiter(text: str) -> str:
    """The character that cuts most rows at the beginning into the same number of cells."""
    sample = text[:_SAMPLE]
    if len(sample) < len(text):
        sample = sample[: sample.rfind("\n") + 1] or sample
    best, best_score = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        widths: list[int] = []
        try:
            for row in _Rows(sample, delimiter, strict=False):
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
