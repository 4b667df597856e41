# SPDX-License-Identifier: Apache-2.0
"""One table, `answers`, in a SQLite database of its own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.exports._table import table
from freehold.errors import CapacityError, InvalidParameterError

ENDINGS = ("sqlite", "db", "sqlite3")


def write(rows: Rows, path: Path) -> None:
    """Write it. Raises CapacityError and InvalidParameterError."""
    shape = table(rows)
    names = distinct(list(shape.columns))
    columns = ", ".join(
        f"{_quoted(name)} {kind.upper()}"
        for name, kind in zip(names, shape.columns.values(), strict=True)
    )
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode=OFF")  # nobody sees it before it is whole
            database.execute("BEGIN")
            database.execute(f"CREATE TABLE answers ({columns})")
            marks = ", ".join("?" * len(names))
            database.executemany(f"INSERT INTO answers VALUES ({marks})", shape.cells(rows))
            database.execute("COMMIT")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise CapacityError(f"{path}: the disk is full", hint="make room") from None
        raise InvalidParameterError(f"{path}: cannot be written: {error}") from None


def _quoted(name: str) -> str:
    return '"' + name.replace("\0", " ").replace('"', '""') + '"'


def distinct(names: list[str]) -> list[str]:
    """Names that differ in more than case, which is all that SQLite tells apart."""
    seen: set[str] = set()
    found = []
    for name in names:
        base, number = name or "column", 1
        while name.casefold() in seen or not name:
            number += 1
            name = f"{base}_{number}"
        seen.add(name.casefold())
        found.append(name)
    return found
