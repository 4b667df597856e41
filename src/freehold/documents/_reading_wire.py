# SPDX-License-Identifier: Apache-2.0
"""What a process that reads documents tells the one that asked: frames of JSON on a pipe.

Not pickles: a file may have taken the reader's process over, and then what comes from it is as
hostile as the file. Everything is checked for its type and for its length.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from freehold import errors
from freehold.documents.document import Document, Limits, Page, Unread
from freehold.errors import DocumentError

_HEAD = struct.Struct(">I")
_SLACK = 4_000_000  # bytes of a frame for all that is not text
# UTF-8 takes up to 4 bytes for a character, JSON 6 for one it escapes; columns are the text again.
_BYTES_PER_CHARACTER = 12


class BadFrameError(Exception):
    """The other side does not speak as a reader does."""


def frame(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
    return _HEAD.pack(len(body)) + body


class Frames:
    """Takes bytes as they come, gives the records that are complete. Raises BadFrameError."""

    def __init__(self, limits: Limits) -> None:
        self._longest = _BYTES_PER_CHARACTER * limits.max_characters + _SLACK
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], int]]:
        """Records, each with its size in bytes."""
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEAD.size:
                (length,) = _HEAD.unpack_from(self._buffer, at)
                if length > self._longest:
                    raise BadFrameError("a frame that is too long")
                end = at + _HEAD.size + length
                if end > len(self._buffer):
                    break
                body, at = bytes(self._buffer[at + _HEAD.size : end]), end
                yield _record(body), length
        finally:
            del self._buffer[:at]


def to_record(found: Document | Unread) -> dict[str, Any]:
    """A document or an error, as JSON."""
    if isinstance(found, Unread):
        error = found.error
        return {
            "error": type(error).__name__, "message": error.message, "hint": error.hint,
            "source": found.source, "row": found.row,
        }  # fmt: skip
    return {
        "text": found.text, "source": found.source, "reader": found.reader,
        "version": found.reader_version, "row": found.row, "columns": dict(found.columns),
        "notes": found.notes, "total": found.pages_total,
        "pages": [[page.number, page.start, page.end, page.name] for page in found.pages],
    }  # fmt: skip


def from_record(record: dict[str, Any]) -> Document | Unread:
    """The other way. Raises BadFrameError."""
    source, row = _text(record.get("source")), _number(record.get("row"))
    if "error" in record:
        kind = getattr(errors, _text(record["error"]), None)
        if not (isinstance(kind, type) and issubclass(kind, DocumentError)):
            raise BadFrameError("an error of no known kind")
        hint = record.get("hint")
        message = _text(record.get("message"))
        return Unread(kind(message, hint=None if hint is None else _text(hint)), source, row)
    text = _text(record.get("text"))
    version = _number(record.get("version"))
    if version is None:
        raise BadFrameError("a reader without a version")
    return Document(
        text, source, _text(record.get("reader")), version, row,
        {_text(name): _text(cell) for name, cell in _dict(record.get("columns")).items()},
        tuple(_text(note) for note in _list(record.get("notes"))),
        tuple(_page(page, len(text)) for page in _list(record.get("pages"))),
        _number(record.get("total")),
    )  # fmt: skip


def member(record: dict[str, Any]) -> tuple[int, str]:
    """How many members of an archive are behind when this one is, and its name."""
    index = _number(record.get("index"))
    if index is None:
        raise BadFrameError("a member without a number")
    return index + 1, _text(record.get("name"))


def _page(value: Any, length: int) -> Page:
    match value:
        case [int(number), int(start), int(end), name] if 0 <= start <= end <= length:
            return Page(number, start, end, None if name is None else _text(name))
    raise BadFrameError("a page outside its document")


def _record(body: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(body))
    except (ValueError, RecursionError):
        raise BadFrameError("a frame that is no JSON") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or (not value.isascii() and _halved(value)):
        raise BadFrameError("no text where text belongs")
    return value


def _halved(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _number(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    raise BadFrameError("no number where a number belongs")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadFrameError("no list where a list belongs")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadFrameError("no object where an object belongs")
    return value
