# SPDX-License-Identifier: Apache-2.0
"""Excel: each sheet under its name, a line per row, bars between the cells.

Cells say what they hold, in the spelling of the file; dates and percentages, which a file stores as
bare numbers, are written as such (ISO 8601). Formulas stand for the value that was saved with
them; where none was, a note counts them. Empty rows are left out, empty cells between others kept.
Hidden sheets are read, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from freehold.documents.document import Limits, Part
from freehold.documents.readers import _cells
from freehold.documents.readers._ooxml import Package
from freehold.documents.readers._pages import Pages
from freehold.errors import DocumentTooLargeError, MalformedDocumentError

VERSION = 1
LARGE = True

_BAR = " | "
_MAX_COLUMNS = 16_384
_PLACE = re.compile(r"([A-Za-z]{1,3})[0-9]{1,7}")


@dataclass(frozen=True, slots=True)
class _Sheet:
    name: str
    part: str
    hidden: bool


def read(file: BinaryIO, limits: Limits) -> Iterator[Part]:
    """The workbook as one part with a map of sheets."""
    package = Package(file, limits, ".xlsx")
    main = package.main()
    sheets, since_1904 = _sheets(package, main, limits)
    beside = {r.kind: r.target for r in package.relations(main) if package.has(r.target)}
    strings: list[str] = []
    if "sharedStrings" in beside:
        strings = _cells.shared_strings(package.events(beside["sharedStrings"]), limits)
    formats: list[_cells.Format] = []
    if "styles" in beside:
        formats = _cells.formats(package.events(beside["styles"]))
    pages = Pages(limits)
    broken: list[str] = []
    unsaved = 0
    holds_any = False
    for number, sheet in enumerate(sheets, 1):
        rows = _Rows(_cells.Values(strings, formats, since_1904), limits)
        try:
            text = rows.text(package, sheet.part)
        except MalformedDocumentError:
            broken.append(sheet.name)
            continue
        unsaved += rows.unsaved
        holds_any = holds_any or bool(text)
        pages.add(f"{sheet.name}\n{text}" if text else "", number, sheet.name)
    if sheets and len(broken) == len(sheets):
        raise MalformedDocumentError("a damaged .xlsx file: none of its sheets can be read")
    notes = []
    if broken:
        notes.append(f"damaged sheets left out: {', '.join(broken[:20])}")
    if hidden := [sheet.name for sheet in sheets if sheet.hidden]:
        notes.append(f"hidden sheets: {', '.join(hidden[:20])}")
    if unsaved:
        notes.append(f"{unsaved:,} formulas were saved without a value and are missing")
    if holds_any:
        yield Part(pages.text, notes=tuple(notes), pages=pages.pages, pages_total=len(sheets))


def _sheets(package: Package, main: str, limits: Limits) -> tuple[list[_Sheet], bool]:
    """The sheets in the order of their tabs, and whether days are counted from 1904."""
    targets = {r.id: r for r in package.relations(main)}
    sheets: list[_Sheet] = []
    since_1904 = False
    for what, name, attributes in package.events(main):
        if what == "<" and name == "workbookPr":
            since_1904 = attributes.get("date1904", "0") in ("1", "true")
        elif what == "<" and name == "sheet":
            found = targets.get(attributes.get("r:id", ""))
            shown = attributes.get("state", "visible") == "visible"
            label = " ".join(_cells.plain(attributes.get("name", "")).split())[:100]
            if found is not None and found.kind == "worksheet":  # charts have sheets too
                sheets.append(_Sheet(label, found.target, not shown))
            if len(sheets) > limits.max_pages:
                raise DocumentTooLargeError(f"more than {limits.max_pages:,} sheets")
    return sheets, since_1904


class _Rows:
    """The rows of one sheet as text. Memory is what the text takes, not what the sheet spans."""

    def __init__(self, values: _cells.Values, limits: Limits) -> None:
        self.unsaved = 0  # formulas without a value
        self._values = values
        self._limit = limits.max_characters
        self._length = 0
        self._lines: list[str] = []

    def text(self, package: Package, part: str) -> str:
        row: dict[int, str] = {}
        cell = _cells.Cell()
        column = 0
        for what, name, attributes in package.events(part):
            if what == "t":
                cell.text(name)
            elif what == "<":
                if name == "row":
                    row, column = {}, 0
                elif name == "c":
                    cell = _cells.Cell(attributes.get("t", "n"), attributes.get("s", ""))
                    column = _column(attributes.get("r", ""), column)
                else:
                    cell.open(name)
            elif name == "c":
                value = self._values.text(cell)
                self.unsaved += cell.formula and not cell.value
                if value:
                    row[column] = value
                column += 1
            elif name == "row":
                self._end(row)
                row = {}
            else:
                cell.close(name)
        return "\n".join(self._lines)

    def _end(self, row: dict[int, str]) -> None:
        if not row:
            return
        line = _BAR.join(row.get(column, "") for column in range(max(row) + 1))
        self._length += len(line) + 1
        if self._length > self._limit:
            raise DocumentTooLargeError(f"a text of more than {self._limit:,} characters")
        self._lines.append(line)


def _column(place: str, following: int) -> int:
    """From ``AB12`` to 27; cells without a place follow the one before."""
    match = _PLACE.fullmatch(place)
    column = following
    if match is not None:
        column = 0
        for letter in match[1].upper():
            column = 26 * column + ord(letter) - ord("A") + 1
        column -= 1
    if column >= _MAX_COLUMNS:
        raise MalformedDocumentError("a cell beyond the last column")
    return column
