# SPDX-License-Identifier: Apache-2.0
"""Uploads: one file and a few short fields, straight to where the file is to lie.

Every part is bounded before it is kept: number, length of headers, length of values, the whole.
Knows neither files' stores nor dialects.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from freehold.server.failures import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 16
MAX_HEADERS = 8  # of a part
MAX_HEADER_BYTES = 2048
MAX_VALUE_BYTES = 4096
OVERHEAD_BYTES = 128 << 10  # of a body beyond its file: more than all parts' bounds together


@dataclass(slots=True)
class Form:
    """What came beside the bytes of the file."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None  # None: there was no file


async def read_form(
    content_type: str, chunks: AsyncIterator[bytes], write: Callable[[bytes], object], *,
    file_field: str, max_bytes: int,
) -> Form:  # fmt: skip
    """Read a body; bytes of the file are handed to `write` as they come.

    Raises RequestError, and what `write` raises.
    """
    kind, options = parse_options_header(content_type[:1024])
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise RequestError("the body must be multipart/form-data with a boundary")
    reader = _Reader(write, file_field)
    try:
        parser = MultipartParser(
            boundary, reader.callbacks(), max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )  # fmt: skip
        seen = 0
        async for chunk in chunks:
            seen += len(chunk)
            if seen > max_bytes + OVERHEAD_BYTES:
                raise RequestError(
                    f"a file may have {max_bytes:,} bytes", kind="too_large", param=file_field
                )
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(f"the form cannot be read: {error}"[:200]) from None
    if not reader.ended:
        raise RequestError("the form ends in the middle")
    return reader.form


class _Reader:
    """Takes the parser's callbacks."""

    def __init__(self, write: Callable[[bytes], object], file_field: str) -> None:
        self.form = Form()
        self.ended = False
        self._write, self._file_field = write, file_field
        self._parts = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._is_file = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda d, a, b: self._header[0].extend(d[a:b]),
            "on_header_value": lambda d, a, b: self._header[1].extend(d[a:b]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RequestError(f"a form may have {MAX_PARTS} parts")
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._value.clear()

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = (bytearray(), bytearray())

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if not self._name:
            raise RequestError("a part of the form has no name")
        self._is_file = self._name == self._file_field
        if self._name in self.form.fields or (self._is_file and self.form.filename is not None):
            raise RequestError(f"{self._name!r:.80} is given twice", param=self._name[:80])
        if self._is_file:
            self.form.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._write(data[start:end])
            return
        if len(self._value) + end - start > MAX_VALUE_BYTES:
            raise RequestError(
                f"{self._name!r:.80} may have {MAX_VALUE_BYTES} bytes", param=self._name[:80]
            )
        self._value += data[start:end]

    def _part_end(self) -> None:
        if not self._is_file:
            try:
                self.form.fields[self._name] = self._value.decode()
            except UnicodeDecodeError:
                raise RequestError(
                    f"{self._name!r:.80} is not UTF-8", param=self._name[:80]
                ) from None

    def _end(self) -> None:
        self.ended = True
