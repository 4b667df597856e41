# SPDX-License-Identifier: Apache-2.0
"""Bytes to canonical text: which encoding, which line ends, and whether it is text at all.

Knows encodings; knows no file format. Small files are decoded whole, large ones in two passes: one
that finds the encoding all of it has, one that gives its lines.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from freehold.documents.document import Limits
from freehold.errors import DocumentTooLargeError, MalformedDocumentError

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Character sets that mail and pages name. Python has codecs that are none (zlib, idna), and UTF-7
# gives halves of characters; a file does not get to choose those.
_CHARSETS = re.compile(
    r"(us-?)?ascii|utf[-_]?(8|16|32)([-_]?[bl]e)?|iso[-_]?(8859|2022)[-_\w]*|latin[-_]?\d+"
    r"|(windows|cp)[-_]?\d+|koi8[-_][rut]|big5([-_]?hkscs)?|gb(k|2312|18030)|euc[-_](jp|kr)"
    r"|shift[-_]?jis|hz|johab|mac[-_]?roman|tis[-_]?620",
    re.IGNORECASE,
)
_CONTROLS = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_MAX_CONTROL_SHARE = 0.01  # of characters; above, the bytes are no text
_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_NOT_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")  # bytes that mean nothing there
_PIECE = 1 << 16  # bytes decoded at once


def whole(file: BinaryIO, limits: Limits) -> bytes:
    """All of a file that is small enough. Raises DocumentTooLargeError."""
    data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise DocumentTooLargeError(f"more than the limit of {limits.max_bytes:,} bytes")
    return data


@dataclass(frozen=True, slots=True)
class Encoding:
    """How all of a file can be decoded."""

    name: str
    notes: tuple[str, ...] = ()


def encoding_of(file: BinaryIO) -> Encoding:
    """By the rules of `decode`, of a file of any size. Raises MalformedDocumentError."""
    file.seek(0)
    head = file.read(4)
    for mark, name in _MARKS:
        if head.startswith(mark):
            try:
                _check(file, name)
            except UnicodeDecodeError as error:
                raise _broken(name, error.start) from None
            return Encoding(name)
    try:
        _check(file, "utf-8")
    except UnicodeDecodeError as error:
        name = "cp1252" if _is_1252(file) else "latin-1"
        _check(file, name)
        return Encoding(name, (_guessed(error.start),))
    return Encoding("utf-8")


def lines(file: BinaryIO, encoding: Encoding, limit: int) -> Iterator[str | None]:
    """The lines of a file with their ends; None stands for one of more than `limit` characters."""
    waiting: list[str] = []
    length = 0  # of the line that has begun, also of what of it was let go
    for piece in _pieces(file, encoding.name):
        *ended, rest = piece.split("\n")
        for line in ended:
            length += len(line)
            yield "".join([*waiting, line, "\n"]) if length <= limit else None
            waiting, length = [], 0
        length += len(rest)
        waiting = [*waiting, rest] if length <= limit else []
    if length:
        yield "".join(waiting) if length <= limit else None


def spoken(text: str) -> str:
    """Text out of a format that can spell more than text: halves of characters, NUL."""
    return _UNSPEAKABLE.sub("\ufffd", text).replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Text with ``\\n`` line ends and notes on guesses. Raises MalformedDocumentError.

    A byte order mark decides, then the declared character set, then UTF-8. What is none of these
    is read as Windows-1252, the superset of Latin-1 that is met in practice, and a note says so.
    """
    notes: list[str] = []
    text = _marked(data)
    if text is None and declared is not None:
        text = _declared(data, declared, notes)
    if text is None:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            text = _western(data)
            notes.append(_guessed(error.start))
    return canonical(text), tuple(notes)


def canonical(text: str) -> str:
    """`text` with ``\\n`` line ends. Raises MalformedDocumentError when it is no text."""
    nul = text.find("\0")
    if nul >= 0:
        raise _has_nul(nul)
    _judge(sum(1 for _ in _CONTROLS.finditer(text)), len(text))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _marked(data: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise _broken(encoding, error.start) from None
    return None


def _declared(data: bytes, name: str, notes: list[str]) -> str | None:
    name = name.strip().strip("\"'")
    if _CHARSETS.fullmatch(name):
        try:
            return data.decode(name)
        except (LookupError, UnicodeError):
            pass
    notes.append(f"its text is not in the character set {name!r:.40} it names")
    return None


def _western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing there
        return data.decode("latin-1")


def _pieces(file: BinaryIO, encoding: str) -> Iterator[str]:
    """The file's text with ``\\n`` line ends; an UnicodeDecodeError counts from its beginning."""
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    at = 0
    while True:
        data = file.read(_PIECE)
        # A decoder with a mark behind it, or bytes of a character kept, begins before the piece.
        kept = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            error.start += at - kept
            raise
        yield newlines.decode(text, final=not data)
        if not data:
            return
        at += len(data)


def _check(file: BinaryIO, encoding: str) -> None:
    """Raises UnicodeDecodeError or MalformedDocumentError."""
    characters = controls = 0
    for text in _pieces(file, encoding):
        nul = text.find("\0")
        if nul >= 0:
            raise _has_nul(characters + nul)
        characters += len(text)
        controls += sum(1 for _ in _CONTROLS.finditer(text))
    _judge(controls, characters)


def _is_1252(file: BinaryIO) -> bool:
    file.seek(0)
    return not any(_NOT_1252.intersection(data) for data in iter(lambda: file.read(_PIECE), b""))


def _judge(controls: int, characters: int) -> None:
    if controls > _MAX_CONTROL_SHARE * characters:
        raise MalformedDocumentError(
            f"not a text: {controls:,} of {characters:,} characters are control characters"
        )


def _has_nul(at: int) -> MalformedDocumentError:
    return MalformedDocumentError(
        f"not a text: character {at:,} is NUL", hint="convert it to UTF-8 text first"
    )


def _broken(encoding: str, at: int) -> MalformedDocumentError:
    name = encoding.removesuffix("-sig").upper()
    return MalformedDocumentError(f"begins as {name} and breaks at byte {at:,}")


def _guessed(at: int) -> str:
    return (
        f"byte {at:,} is no UTF-8; read as Windows-1252 (Latin-1), so accented letters may be wrong"
    )
