# SPDX-License-Identifier: Apache-2.0
"""From files to documents: one file here per file ending, found by listing the folder.

A reader is a module named like the ending, with ``VERSION`` (raised when its text changes) and
``read(file, limits) -> Iterator[Part | Unread]``; `Unread` stands for one row of many. A module of
archives has ``members(file, limits) -> Iterator[Member | Unread]`` instead. ``LARGE = True`` says
that it reads piece by piece and never holds the file. Modules with a leading underscore help them.

A reader is a function of a binary file that can seek, raises nothing but DocumentError, and takes
time and memory in proportion to `Limits`. Everything here happens in this process; `reading` puts
another one, with caps that hold when a reader is wrong, in front of it.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import pkgutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from freehold.documents.document import Document, Limits, Part, Unread
from freehold.errors import (
    DocumentError,
    DocumentTooLargeError,
    EmptyDocumentError,
    UnsupportedDocumentError,
)

__all__ = ["Member", "named", "names", "parse", "read", "scan", "scan_bytes"]

_DEFAULT = Limits()
# Endings that are other names of the same thing.
_ALIASES = {
    "docm": "docx", "htm": "html", "log": "txt", "markdown": "md", "ndjson": "jsonl",
    "pptm": "pptx", "text": "txt", "tsv": "csv", "xlsm": "xlsx",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. `open` gives its bytes, and may raise DocumentError."""

    name: str
    size: int  # as the archive declares it, which bounds what `open` gives
    open: Callable[[], BinaryIO]


@functools.cache
def names() -> tuple[str, ...]:
    """File endings that have a reader, without the dot, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def read(path: str | Path, limits: Limits = _DEFAULT) -> Iterator[Document]:
    """The documents in a file, one by one: tables give one per row, archives those inside.

    Raises DocumentError at the first that cannot be read, possibly after some were given.
    """
    for found in scan(path, limits):
        if isinstance(found, Unread):
            raise found.error
        yield found


def scan(
    path: str | Path,
    limits: Limits = _DEFAULT,
    *,
    source: str | None = None,
    skip: int = 0,
    entering: Callable[[int, str], None] | None = None,
) -> Iterator[Document | Unread]:
    """As `read`, but what cannot be read is given as `Unread`, and the rest follows.

    `source` is what documents call the file, `path` by default. Of an archive the first `skip`
    members are passed over; before each other one `entering` is told its index and name, so that
    a caller can go on behind one that ended the process.
    """
    path = Path(path)
    source = named(path) if source is None else source
    try:
        reader = _reader_for(source)
        file = _open(path, _module(reader), limits)
    except DocumentError as error:
        yield _unread(error, source)
        return
    with file:
        yield from _Scan(limits, skip, entering).file(file, source, reader)


def scan_bytes(data: bytes, name: str, limits: Limits = _DEFAULT) -> Iterator[Document | Unread]:
    """As `scan`, of a file that is in memory; the ending of `name` says what it is."""
    try:
        reader = _reader_for(name)
    except DocumentError as error:
        yield _unread(error, name)
        return
    yield from _Scan(limits, 0, None).file(io.BytesIO(data), name, reader)


def parse(data: bytes, reader: str, limits: Limits = _DEFAULT) -> Iterator[Part]:
    """What `reader`, not one of archives, finds in `data`; parts without any text are left out.

    Raises DocumentError at the first part that cannot be read.
    """
    for part in _parts(io.BytesIO(data), reader, limits):
        if isinstance(part, Unread):
            raise part.error
        yield part


def named(path: str | Path) -> str:
    """`path` as text that any encoding of Unicode takes; file names may hold other bytes."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Scan:
    """One file, with the archives it may hold."""

    def __init__(
        self, limits: Limits, skip: int, entering: Callable[[int, str], None] | None
    ) -> None:
        self.limits = limits
        self.skip = skip
        self.entering = entering
        self.members = 0  # so far, at all depths
        self.unpacked = 0  # bytes so far, at all depths

    def file(
        self, file: BinaryIO, source: str, reader: str, depth: int = 0
    ) -> Iterator[Document | Unread]:
        given = 0
        try:
            if hasattr(_module(reader), "members"):
                found = self._archive(file, source, reader, depth)
            else:
                found = _documents(file, source, reader, self.limits)
            for item in found:
                given += 1
                yield item
        except DocumentError as error:
            yield _unread(error, source)
        else:
            if not given and not (depth == 0 and self.skip):
                yield _unread(EmptyDocumentError("there is no text in it"), source)

    def _archive(
        self, file: BinaryIO, source: str, reader: str, depth: int
    ) -> Iterator[Document | Unread]:
        if depth == self.limits.max_depth:
            raise DocumentTooLargeError(f"archives are nested more than {depth} deep")
        for index, member in enumerate(_module(reader).members(file, self.limits)):
            if depth == 0 and index < self.skip:
                continue
            if isinstance(member, Unread):
                yield _unread(member.error, _inside(source, member.source))
                continue
            if depth == 0 and self.entering is not None:
                self.entering(index, _inside(source, member.name))
            yield from self._member(member, _inside(source, member.name), depth)

    def _member(self, member: Member, source: str, depth: int) -> Iterator[Document | Unread]:
        self.members += 1
        self.unpacked += member.size
        limits = self.limits
        if self.members > limits.max_members:
            raise DocumentTooLargeError(f"more than {limits.max_members:,} files are packed in it")
        if self.unpacked > limits.max_unpacked_bytes:
            raise DocumentTooLargeError(f"unpacks to more than {limits.max_unpacked_bytes:,} bytes")
        try:
            reader = _reader_for(source)
            if member.size > limits.max_bytes and not getattr(_module(reader), "LARGE", False):
                raise DocumentTooLargeError(f"more than the limit of {limits.max_bytes:,} bytes")
            opened = member.open()
        except DocumentError as error:
            yield _unread(error, source)
            return
        with opened:
            yield from self.file(opened, source, reader, depth + 1)


def _documents(
    file: BinaryIO, source: str, reader: str, limits: Limits
) -> Iterator[Document | Unread]:
    version = _module(reader).VERSION
    for part in _parts(file, reader, limits):
        if isinstance(part, Unread):
            yield _unread(part.error, source, part.row)
        else:
            yield Document(
                part.text, source, reader, version, part.row, part.columns, part.notes,
                part.pages, part.pages_total,
            )  # fmt: skip


def _parts(file: BinaryIO, reader: str, limits: Limits) -> Iterator[Part | Unread]:
    for part in _module(reader).read(file, limits):
        if isinstance(part, Unread):
            yield part
            continue
        if len(part.text) > limits.max_characters:
            raise DocumentTooLargeError(
                f"a text of {len(part.text):,} characters is more than {limits.max_characters:,}"
            )
        if part.text.strip():
            yield part


def _unread(error: DocumentError, source: str, row: int | None = None) -> Unread:
    where = source if row is None else f"{source}, row {row}"
    return Unread(type(error)(f"{where:.300}: {error.message}", hint=error.hint), source, row)


def _inside(archive: str, name: str) -> str:
    """The path of a member: never out of its archive, whatever its name says."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join([archive, *parts])


def _reader_for(source: str) -> str:
    ending = PurePosixPath(source).suffix.lower().removeprefix(".")
    reader = _ALIASES.get(ending, ending)
    if reader not in names():
        raise UnsupportedDocumentError(
            "there is no reader for "
            + (f"files ending in .{ending:.20}" if ending else "files without an ending"),
            hint=f"readable: {', '.join(f'.{name}' for name in names())}",
        )
    return reader


@functools.cache
def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")


def _open(path: Path, reader: Any, limits: Limits) -> BinaryIO:
    try:
        # Looked at before it is opened: opening a pipe would wait for its writer.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UnsupportedDocumentError("not a regular file")
        large = getattr(reader, "LARGE", False)
        limit = limits.max_large_bytes if large else limits.max_bytes
        if found.st_size > limit:
            raise DocumentTooLargeError(f"more than the limit of {limit:,} bytes")
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise DocumentError(f"cannot be read: {reason or error}") from None
