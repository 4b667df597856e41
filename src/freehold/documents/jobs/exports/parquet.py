# SPDX-License-Identifier: Apache-2.0
"""Parquet, written by DuckDB (the extra `parquet`): the lighter of the two libraries that can.

The rows go through a file of JSON Lines with declared types, so that nothing is guessed and memory
does not grow with the job.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from freehold.documents.jobs.exports import Rows
from freehold.documents.jobs.exports._table import table
from freehold.documents.jobs.exports.sqlite import distinct
from freehold.documents.jobs.items import dumps
from freehold.errors import CapacityError, InvalidParameterError

ENDINGS = ("parquet",)
# What it needs is in its package; it must never look for more on the network.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_TYPES = {"text": "VARCHAR", "integer": "BIGINT", "real": "DOUBLE", "boolean": "BOOLEAN"}


def check() -> None:
    """Raise InvalidParameterError where the library is not installed."""
    if importlib.util.find_spec("duckdb") is None:
        raise InvalidParameterError(
            "writing Parquet needs DuckDB, which is not installed",
            hint="pip install 'freehold[parquet]'",
        )


def write(rows: Rows, path: Path) -> None:
    """Write it. Raises CapacityError and InvalidParameterError."""
    import duckdb

    shape = table(rows)
    # DuckDB tells names apart by more than case only; columns of a file have numbers till the end.
    numbered = {f"c{i}": _TYPES[kind] for i, kind in enumerate(shape.columns.values())}
    between = path.with_name(path.name + ".rows")
    try:
        with between.open("w", encoding="utf-8") as file:
            for cells in shape.cells(rows):
                file.write(dumps(dict(zip(numbered, cells, strict=True))) + "\n")
        with duckdb.connect(config=_CONFIG) as database:
            declared = ", ".join(f"{name}: '{kind}'" for name, kind in numbered.items())
            named = ", ".join(
                f"{number} AS {_quoted(name)}"
                for number, name in zip(numbered, distinct(list(shape.columns)), strict=True)
            )
            source = (
                f"read_json({_text(between)}, format='newline_delimited', columns={{{declared}}})"
            )
            database.execute(
                f"COPY (SELECT {named} FROM {source}) TO {_text(path)} "
                "(FORMAT parquet, COMPRESSION zstd)"
            )
    except duckdb.Error as error:
        if "No space left" in str(error):
            raise CapacityError(f"{path}: the disk is full", hint="make room") from None
        raise InvalidParameterError(f"{path}: cannot be written: {error}") from None
    finally:
        between.unlink(missing_ok=True)


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
