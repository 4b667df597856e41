# SPDX-License-Identifier: Apache-2.0
"""CSV as RFC 4180 has it, safe to open in a spreadsheet.

A spreadsheet takes text that begins like a formula for one and runs it: such text gets an
apostrophe before it, which spreadsheets take for "this is text". JSON Lines keeps it as it is.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.exports._table import table

ENDINGS = ("csv",)
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*(e[+-]?[0-9]+)?", re.IGNORECASE)


def lines(rows: Rows) -> Iterator[str]:
    """A line of names, then a line per item."""
    shape = table(rows)
    yield _line([safe(name) for name in shape.columns])
    for cells in shape.cells(rows):
        yield _line([safe(cell) for cell in cells])


def safe(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _line(cells: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow(cells)
    return buffer.getvalue()
