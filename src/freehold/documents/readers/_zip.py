# SPDX-License-Identifier: Apache-2.0
"""ZIP archives that strangers wrote, opened without believing them.

Knows the container and its traps: directories of millions of entries, entries that overlap so that
one piece of data counts many times, sizes that are not true, encryption. Knows nothing of what is
packed. The standard library reads at most the declared size of a member, so declared sizes, added
up before anything is unpacked, bound the work.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import BinaryIO, cast

from freehold.documents.document import Limits
from freehold.errors import (
    DocumentTooLargeError,
    EncryptedDocumentError,
    MalformedDocumentError,
    UnsupportedDocumentError,
)

_MAX_DIRECTORY = 64_000_000  # bytes of the list of members, which the library holds at once
_LOCAL_HEADER = 30  # bytes before the name of a member, where its data begins
_ENCRYPTED = 0x1  # flag of a member
_METHODS = {
    zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA,
}  # fmt: skip
# What the library lets out when bytes contradict the format.
BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError,
    UnicodeError, RuntimeError, IndexError, OverflowError, AttributeError,
)  # fmt: skip


def opened(file: BinaryIO, limits: Limits) -> zipfile.ZipFile:
    """The archive, its directory checked. Raises DocumentError."""
    try:
        archive = zipfile.ZipFile(cast(BinaryIO, _Sparing(file)))
        entries = archive.infolist()
    except BROKEN as error:
        raise MalformedDocumentError(f"a damaged archive ({_words(error)})") from None
    if len(entries) > limits.max_members:
        raise DocumentTooLargeError(f"more than {limits.max_members:,} files are packed in it")
    if sum(entry.file_size for entry in entries) > limits.max_unpacked_bytes:
        raise DocumentTooLargeError(f"unpacks to more than {limits.max_unpacked_bytes:,} bytes")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise MalformedDocumentError("files packed in it overlap, which only bombs do")
        # At least: the local header may hold more than the directory says.
        end = entry.header_offset + _LOCAL_HEADER + entry.compress_size
    if entries and end > archive.start_dir:
        raise MalformedDocumentError("files packed in it overlap its directory")
    return archive


def member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BinaryIO:
    """A member's bytes as they are unpacked. Its errors are those of `BROKEN`.

    Raises DocumentError where it cannot be opened.
    """
    if entry.flag_bits & _ENCRYPTED:
        raise EncryptedDocumentError("it is encrypted", hint="unpack it with its password first")
    if entry.compress_type not in _METHODS:
        raise UnsupportedDocumentError(
            f"it is packed by method {entry.compress_type}, which is not known",
            hint="pack it again with the usual one (deflate)",
        )
    try:
        return cast(BinaryIO, archive.open(entry))
    except BROKEN as error:
        raise MalformedDocumentError(f"a damaged archive ({_words(error)})") from None


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """All bytes of a member; the caller has looked at its size. Raises DocumentError."""
    with member(archive, entry) as file:
        try:
            return file.read()
        except BROKEN as error:
            raise MalformedDocumentError(f"a damaged archive ({_words(error)})") from None


class Checked(io.RawIOBase):
    """A member that is read as it is unpacked; damage is a MalformedDocumentError."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        try:
            data = self._file.read(len(view))
        except BROKEN as error:
            raise MalformedDocumentError(f"a damaged archive ({_words(error)})") from None
        view[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._file.seek(offset, whence)
        except BROKEN as error:
            raise MalformedDocumentError(f"a damaged archive ({_words(error)})") from None

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


class _Sparing:
    """A file from which nothing larger than a directory is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.close = file.close

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise DocumentTooLargeError(f"its directory has more than {_MAX_DIRECTORY:,} bytes")
        return self._file.read(size)


def _words(error: Exception) -> str:
    return " ".join(f"{error or type(error).__name__}".split())[:100]
