# SPDX-License-Identifier: Apache-2.0
"""Answers as a table: which columns there are, of what type, and the cells of a row.

The fields of answers that are objects become columns; what is nested deeper stays JSON. Knows no
format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.items import dumps
from freehold.documents.jobs.rows import Row

Type = Literal["text", "integer", "real", "boolean"]
MAX_FIELDS = 1000  # more are no table; they stay in one column of JSON
_BEFORE = ("id", "source", "row", "status")
_AFTER = ("error_type", "error", "prompt_tokens", "answer_tokens")
_INTEGERS = ("row", "prompt_tokens", "answer_tokens")
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Table:
    """Columns in order, with the type that all of a column's cells have."""

    columns: dict[str, Type]
    fields: tuple[str, ...]  # of the answers; empty: one column `value` holds them
    prefix: str  # of the fields' columns, where a name is taken

    def cells(self, rows: Rows) -> Iterator[list[Any]]:
        """Rows as text, numbers, booleans and None, in the order of the columns."""
        for row in rows():
            yield [
                _typed(cell, kind)
                for cell, kind in zip(self._cells(row), self.columns.values(), strict=True)
            ]

    def _cells(self, row: Row) -> list[Any]:
        value = row.value if row.status == "ok" else None
        if self.fields:
            inner = [value.get(name) if isinstance(value, dict) else None for name in self.fields]
        else:
            inner = [value]
        error = (None, None) if row.error is None else (row.error.type, row.error.message)
        origin = row.origin
        return [
            row.id, origin.get("source"), origin.get("row"), row.status, *inner, *error,
            row.usage.get("prompt_tokens"), row.usage.get("answer_tokens"),
        ]  # fmt: skip


def table(rows: Rows) -> Table:
    """Look at all rows and say what table they make."""
    seen: dict[str, Type | None] = {}
    whole: Type | None = None
    flat = True
    for row in rows():
        if row.value is None or row.status != "ok":
            continue
        whole = _wider(whole, row.value)
        if not isinstance(row.value, dict) or not row.value:
            flat = False
        elif flat:
            for name, value in row.value.items():
                seen[name] = _wider(seen.get(name), value)
            flat = len(seen) <= MAX_FIELDS
    fields = tuple(seen) if flat else ()
    taken = {name.casefold() for name in (*_BEFORE, *_AFTER)}
    prefix = "value." if any(name.casefold() in taken for name in fields) else ""
    columns: dict[str, Type] = {name: _own(name) for name in _BEFORE}
    if fields:
        columns |= {prefix + name: seen[name] or "text" for name in fields}
    else:
        columns["value"] = whole or "text"
    columns |= {name: _own(name) for name in _AFTER}
    return Table(columns, fields, prefix)


def _own(name: str) -> Type:
    return "integer" if name in _INTEGERS else "text"


def _wider(known: Type | None, value: Any) -> Type | None:
    """The type that holds what was seen so far and this too; None while nothing was seen."""
    if value is None:
        return known
    if isinstance(value, bool):
        kind: Type = "boolean"
    elif isinstance(value, int):
        kind = "integer" if -_INT64 <= value < _INT64 else "text"
    else:
        kind = "real" if isinstance(value, float) else "text"
    if known is None or known == kind:
        return kind
    return "real" if {known, kind} == {"integer", "real"} else "text"


def _typed(value: Any, kind: Type) -> Any:
    if value is None:
        return None
    if kind == "text":
        return value if isinstance(value, str) else dumps(value)
    return float(value) if kind == "real" else value
