# SPDX-License-Identifier: Apache-2.0
"""From files to documents: one file here per file ending, found by listing the folder.

A reader is a module named like the ending, with ``VERSION`` (raised when its text changes) and
``read(data, limits) -> Iterator[Part]``; modules with a leading underscore help them. A reader is a
function of bytes, raises nothing but DocumentError, and takes time and memory in proportion to
`Limits`: `read` is the one door, and another process may stand behind it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from freehold.documents.document import Document, Limits, Part
from freehold.errors import DocumentError, DocumentTooLargeError, UnsupportedDocumentError

__all__ = ["names", "parse", "read"]

_DEFAULT = Limits()


@functools.cache
def names() -> tuple[str, ...]:
    """File endings that can be read, without the dot, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def read(path: str | Path, limits: Limits = _DEFAULT) -> Iterator[Document]:
    """The documents in a file, one by one: a table gives one per row, the others exactly one.

    Raises DocumentError, possibly after some documents were given.
    """
    path = Path(path)
    reader = path.suffix.lower().removeprefix(".")
    if reader not in names():
        raise UnsupportedDocumentError(
            f"{path!s:.300}: there is no reader for "
            + (f"files ending in .{reader:.20}" if reader else "files without an ending"),
            hint=f"readable: {', '.join(f'.{name}' for name in names())}",
        )
    data = _bytes(path, limits)
    given = 0
    try:
        for part in parse(data, reader, limits):
            given += 1
            yield Document(
                part.text, str(path), reader, _module(reader).VERSION,
                part.row, part.columns, part.notes,
            )  # fmt: skip
    except DocumentError as error:
        raise type(error)(f"{path!s:.300}: {error.message}", hint=error.hint) from None
    if not given:
        raise DocumentError(f"{path!s:.300}: there is no text in it")


def parse(data: bytes, reader: str, limits: Limits = _DEFAULT) -> Iterator[Part]:
    """What `reader` finds in `data`; parts without any text are left out."""
    for part in _module(reader).read(data, limits):
        if len(part.text) > limits.max_characters:
            raise DocumentTooLargeError(
                f"a text of {len(part.text):,} characters is more than {limits.max_characters:,}"
            )
        if part.text.strip():
            yield part


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _bytes(path: Path, limits: Limits) -> bytes:
    try:
        # Looked at before it is opened: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnsupportedDocumentError(f"{path!s:.300}: not a regular file")
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise DocumentError(f"{path!s:.300}: cannot be read: {reason or error}") from None
    if len(data) > limits.max_bytes:
        raise DocumentTooLargeError(
            f"{path!s:.300}: more than the limit of {limits.max_bytes:,} bytes"
        )
    return data
