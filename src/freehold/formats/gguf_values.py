# SPDX-License-Identifier: Apache-2.0
"""GGUF metadata: a bounds-checked cursor over the header and the values it yields.

Scalars become bool, int, float and str; arrays of numbers become NumPy arrays; arrays of strings
become `StringArray`, checked at once but decoded on first use (a vocabulary and its merges are
400,000 strings, which `show` never looks at); arrays of arrays become lists.
What a key means is not known here.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from freehold.errors import MalformedFileError
from freehold.formats.gguf_types import VALUE_CODES, ValueType

Buffer: TypeAlias = bytes | mmap.mmap
MetadataValue: TypeAlias = "bool | int | float | str | npt.NDArray[Any] | StringArray | list[Any]"

# Limits on the header as a whole. The largest real ones hold some 30 MB and 600,000 strings.
MAX_HEADER_BYTES = 512 * 1024 * 1024
MAX_STRINGS = 8_000_000  # 0.15 µs each to check
MAX_ARRAYS = 100_000
MAX_ARRAY_DEPTH = 4
MAX_KEY_BYTES = 65_535

SCALARS = {
    (order, kind): struct.Struct(order + code)
    for order in "<>"
    for kind, code in {
        ValueType.UINT8: "B",
        ValueType.INT8: "b",
        ValueType.UINT16: "H",
        ValueType.INT16: "h",
        ValueType.UINT32: "I",
        ValueType.INT32: "i",
        ValueType.FLOAT32: "f",
        ValueType.BOOL: "B",
        ValueType.UINT64: "Q",
        ValueType.INT64: "q",
        ValueType.FLOAT64: "d",
    }.items()
}


class StringArray(Sequence[str]):
    """An array of strings, decoded from UTF-8 when an element is first asked for.

    Independent of the file once made. Decoding raises MalformedFileError.
    """

    def __init__(self, data: bytes, count: int, order: str, where: str) -> None:
        """``data``: ``count`` strings, each a u64 length in byte order ``order`` and its bytes,
        already checked to fill ``data`` exactly; ``where`` begins error messages."""
        self._data: bytes | None = data
        self._count = count
        self._length = struct.Struct(order + "Q")
        self._where = where
        self._items: list[str] = []

    def tolist(self) -> list[str]:
        """All strings. The list is shared: do not change it."""
        data = self._data  # read once: another thread may be at the same place
        if data is not None:
            self._items = self._decode(data)
            self._data = None
        return self._items

    def _decode(self, data: bytes) -> list[str]:
        unpack, pos, items = self._length.unpack_from, 0, []
        try:
            for _ in range(self._count):
                start = pos + 8
                pos = start + unpack(data, pos)[0]
                items.append(data[start:pos].decode())
        except UnicodeDecodeError:
            raise MalformedFileError(f"{self._where}: string {len(items)} is not UTF-8") from None
        return items

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self.tolist()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (StringArray, list, tuple)):
            return len(self) == len(other) and self.tolist() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<StringArray of {self._count}>"


class Cursor:
    """Reads forward through a header; every read is checked against the end of the file."""

    def __init__(self, buffer: Buffer, end: int, order: str, where: str) -> None:
        """``order``: "<" or ">"; ``where`` (the file's path) begins every message."""
        self.buffer = buffer
        self.pos = 0
        self.end = min(end, MAX_HEADER_BYTES)
        self.cut = end > MAX_HEADER_BYTES
        self.order = order
        self.where = where
        self._strings_left = MAX_STRINGS
        self._arrays_left = MAX_ARRAYS
        self._u32 = SCALARS[order, ValueType.UINT32].unpack_from
        self._u64 = SCALARS[order, ValueType.UINT64].unpack_from

    def need(self, count: int, item_bytes: int, what: str) -> None:
        """MalformedFileError unless ``count`` items of at least ``item_bytes`` can follow."""
        if count * item_bytes > self.end - self.pos:
            raise self.error(
                f"the header is larger than {MAX_HEADER_BYTES >> 20} MiB at {what}"
                if self.cut
                else f"{what} needs {count * item_bytes:,} bytes, {self.end - self.pos:,} are left"
            )

    def error(self, text: str) -> MalformedFileError:
        return MalformedFileError(f"{self.where}: {text}")

    def u32(self, what: str) -> int:
        self.need(1, 4, what)
        value: int = self._u32(self.buffer, self.pos)[0]
        self.pos += 4
        return value

    def u64(self, what: str) -> int:
        self.need(1, 8, what)
        value: int = self._u64(self.buffer, self.pos)[0]
        self.pos += 8
        return value

    def string(self, what: str, max_bytes: int = MAX_HEADER_BYTES) -> str:
        """A length-prefixed UTF-8 string."""
        length = self.u64(f"the length of {what}")
        self.need(length, 1, what)
        if length > max_bytes:
            raise self.error(f"{what} is {length:,} bytes long, at most {max_bytes:,} are allowed")
        raw = self.buffer[self.pos : self.pos + length]
        self.pos += length
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self.error(f"{what} is not UTF-8") from None

    def name(self, what: str, max_bytes: int) -> str:
        """A non-empty string without control characters: a key or a tensor's name."""
        text = self.string(what, max_bytes)
        if not text or not text.isprintable():
            raise self.error(f"{what} is {text[:100]!r}: it must be non-empty printable text")
        return text

    def value_type(self, what: str) -> ValueType:
        number = self.u32(f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise self.error(f"{what} has unknown value type {number}") from None

    def value(self, kind: ValueType, what: str, depth: int = 0) -> MetadataValue:
        """One value of type ``kind``; ``what`` names it in messages."""
        if kind is ValueType.STRING:
            return self.string(what)
        if kind is ValueType.ARRAY:
            return self._array(what, depth + 1)
        scalar = SCALARS[self.order, kind]
        self.need(1, scalar.size, what)
        result: int | float = scalar.unpack_from(self.buffer, self.pos)[0]
        self.pos += scalar.size
        if kind is ValueType.BOOL:
            if result > 1:
                raise self.error(f"{what} is a bool stored as {result}, not 0 or 1")
            return bool(result)
        return result

    def _array(self, what: str, depth: int) -> MetadataValue:
        self._arrays_left -= 1
        if self._arrays_left < 0:
            raise self.error(f"more than {MAX_ARRAYS:,} arrays, the last one in {what}")
        kind = self.value_type(f"the elements of {what}")
        count = self.u64(f"the length of {what}")
        if kind is ValueType.STRING:
            return self._strings(count, what)
        if kind is ValueType.ARRAY:
            if depth >= MAX_ARRAY_DEPTH:
                raise self.error(f"{what} nests arrays more than {MAX_ARRAY_DEPTH} deep")
            self.need(count, 12, what)  # element type and length of each
            return [self._array(what, depth + 1) for _ in range(count)]
        dtype = np.dtype(self.order + VALUE_CODES[kind])
        self.need(count, dtype.itemsize, what)
        numbers = np.frombuffer(self.buffer, dtype, count, self.pos).astype(dtype.newbyteorder("="))
        self.pos += numbers.nbytes
        if kind is ValueType.BOOL:
            if count and numbers.max() > 1:
                raise self.error(f"{what} holds a bool that is neither 0 nor 1")
            return numbers.view(np.bool_)
        return numbers

    def _strings(self, count: int, what: str) -> StringArray:
        self.need(count, 8, what)
        self._strings_left -= count
        if self._strings_left < 0:
            raise self.error(
                f"more than {MAX_STRINGS:,} strings in arrays, the last ones in {what}"
            )
        unpack, buffer = self._u64, self.buffer
        start = pos = self.pos
        last = self.end - 8
        for _ in range(count):
            if pos > last:
                raise self.error(f"the strings of {what} run past the end of the header")
            pos += 8 + unpack(buffer, pos)[0]
        if pos > self.end:
            raise self.error(f"the strings of {what} run past the end of the header")
        self.pos = pos
        return StringArray(buffer[start:pos], count, self.order, f"{self.where}: {what}")
