# SPDX-License-Identifier: Apache-2.0
"""A job's answers as files, one module here per format, found by listing the folder.

A format is a module with ``ENDINGS`` (of file names it is known by) and either ``lines(rows)``,
which gives text piece by piece, or ``write(rows, path)``. Rows are a function, so that a format may
look at them twice. Nobody sees a file before it is whole. Knows no journal but its rows.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import secrets
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from freehold.documents.jobs.rows import Row
from freehold.errors import InvalidParameterError
from freehold.formats.atomic_files import atomic_files

Rows: TypeAlias = Callable[[], Iterator[Row]]


@cache
def formats() -> tuple[str, ...]:
    """Names of all formats, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def format_of(path: Path) -> str:
    """The format that a file's name asks for. Raises InvalidParameterError."""
    ending = path.suffix.lower().removeprefix(".")
    for name in formats():
        if ending in _module(name).ENDINGS:
            check(name)
            return name
    known = ", ".join(f".{ending}" for name in formats() for ending in _module(name).ENDINGS)
    raise InvalidParameterError(
        f"{path}: no format of answers ends in {path.suffix!r:.40}", hint=f"known: {known}"
    )


def check(name: str) -> None:
    """Raise InvalidParameterError for a format that is not there, or lacks its library."""
    if name not in formats():
        raise InvalidParameterError(
            f"there is no format {name!r:.40}", hint=f"known: {', '.join(formats())}"
        )
    if hasattr(module := _module(name), "check"):
        module.check()


def text(name: str, rows: Rows) -> Iterator[str]:
    """The pieces of a format that is text. Raises InvalidParameterError for one that is not."""
    check(name)
    if not hasattr(_module(name), "lines"):
        raise InvalidParameterError(f"{name} is no text", hint="write it into a file with --out")
    pieces: Iterator[str] = _module(name).lines(rows)
    return pieces


def write(name: str, rows: Rows, path: Path) -> None:
    """Write a file, whole or not at all.

    Raises CapacityError when the disk is full, InvalidParameterError where it cannot be written.
    """
    check(name)
    module = _module(name)
    if hasattr(module, "lines"):
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: nothing to replace
            with path.open("w", encoding="utf-8", newline="") as file:
                file.writelines(module.lines(rows))
            return
        with atomic_files() as open_file:
            binary = open_file(path)
            for piece in module.lines(rows):
                binary.write(piece.encode())
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        module.write(rows, partial)
        with partial.open("rb") as done:
            os.fsync(done.fileno())
        partial.replace(path)
    except OSError as error:
        raise InvalidParameterError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
