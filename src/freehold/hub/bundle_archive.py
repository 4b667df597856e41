# SPDX-License-Identifier: Apache-2.0
"""The file that a bundle is: a plain tar archive of a strict kind, written and read in one pass.

The first member says what follows: every blob, once, in that order. Whoever reads accepts exactly
that and nothing else, so there are no links, no folders, no odd names, no extensions whose headers
grow, nothing compressed that could grow, and nothing after the end. `tar tf` lists such a file.
Knows members and digests, not models.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from freehold.errors import MalformedFileError
from freehold.hub.disk import CHUNK

CONTENTS = "freehold-bundle.json"
MAX_CONTENTS = 16 << 20
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of the bundle."""

    sha256: str
    size: int

    @property
    def member(self) -> str:
        """What it is called in the archive."""
        return f"blobs/{self.sha256}"


def archive_bytes(contents: bytes, blobs: Sequence[Blob]) -> int:
    """How large the archive will be."""
    sizes = [len(contents), *(blob.size for blob in blobs)]
    return sum(_BLOCK + _padded(size) for size in sizes) + 2 * _BLOCK


# -- writing ----------------------------------------------------------------------------------


def header(name: str, size: int) -> bytes:
    """The block before a member; the same for the same member, whoever writes it when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """What follows a member of that size."""
    return bytes(_padded(size) - size)


def end() -> bytes:
    """What ends an archive."""
    return bytes(2 * _BLOCK)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


# -- reading ----------------------------------------------------------------------------------


class ArchiveReader:
    """Goes through an archive once. Everything raises MalformedFileError that is not exactly as
    `header` and its companions write it."""

    def __init__(self, file: BinaryIO, where: Path) -> None:
        self._file = file
        self._where = where

    def contents(self) -> bytes:
        """The first member."""
        size = self._header(CONTENTS, "is no bundle of models")
        if size > MAX_CONTENTS:
            raise self._error(f"its contents are larger than {MAX_CONTENTS >> 20} MiB")
        data = b"".join(self._pieces(size))
        self._padding(size)
        return data

    def blob(self, blob: Blob) -> Iterator[bytes]:
        """The bytes of the next member, which must be this one; to be used up."""
        size = self._header(blob.member, f"{blob.member} should follow, and does not")
        if size != blob.size:
            raise self._error(f"{blob.member} has {size:,} bytes, not {blob.size:,}")
        yield from self._pieces(size)
        self._padding(size)

    def end(self) -> None:
        """Nothing but zeros may follow."""
        ended = 0
        while part := self._file.read(CHUNK):
            if part.count(0) != len(part):
                raise self._error("something follows its last file")
            ended += len(part)
        if ended < 2 * _BLOCK:
            raise self._error("it is cut off")

    def _header(self, name: str, otherwise: str) -> int:
        block = self._file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise self._error("it is cut off" if block or name != CONTENTS else otherwise)
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeError, ValueError):
            raise self._error(otherwise) from None
        if info.type != tarfile.REGTYPE or info.name != name or info.size < 0:
            raise self._error(f"{otherwise} ({info.name!r:.100} of type {info.type!r})")
        return info.size

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            part = self._file.read(min(size, CHUNK))
            if not part:
                raise self._error("it is cut off")
            size -= len(part)
            yield part

    def _padding(self, size: int) -> None:
        count = _padded(size) - size
        part = self._file.read(count)
        if len(part) < count or part.count(0) != count:
            raise self._error("the room between two files is not empty")

    def _error(self, what: str) -> MalformedFileError:
        return MalformedFileError(
            f"{self._where}: {what}", hint="`freehold bundle export` makes bundles"
        )
