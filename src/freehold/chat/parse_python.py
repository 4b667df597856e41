# SPDX-License-Identifier: Apache-2.0
"""Calls written as Python, ``f(a=1, b=["x"])``: read piece by piece, arguments written as JSON.

Literals only, nothing is evaluated. Knows nothing about the brackets formats put round calls.
"""

from __future__ import annotations

import json
import math
import re

from freehold.chat.parse_json import MAX_DEPTH, json_constant, json_number, quoted
from freehold.chat.parse_reader import MAX_NAME_LENGTH, Malformed, Reader, Sink, Steps

NAME_CHARS = re.compile(r"[\w.\-]+")
_NAME = re.compile(r"[^\W\d][\w.\-]*")
_PLAIN = {'"': re.compile(r'[^"\\\x00-\x1f]+'), "'": re.compile(r"[^'\"\\\x00-\x1f]+")}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v",
            "0": "\0", "\\": "\\", "'": "'", '"': '"', "/": "/", "\n": ""}  # fmt: skip
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_FLOAT_CHARS = re.compile(r"[-+0-9.eE_]+")


def python_name(reader: Reader) -> Steps[str]:
    """A dotted identifier; "" if none stands here."""
    too_long = Malformed("bad_name", f"a name of more than {MAX_NAME_LENGTH} characters")
    name = yield from reader.text_of(NAME_CHARS, MAX_NAME_LENGTH, too_long)
    return name if _NAME.fullmatch(name) else ""


def keyword_arguments(reader: Reader, emit: Sink) -> Steps[None]:
    """``a=1, b="x")``, the closing bracket included; written as a JSON object."""
    separator = "{"
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept(")")) is not None:
            break
        name = yield from python_name(reader)
        if not name:
            yield from _unexpected(reader, "an argument's name")
        yield from reader.skip_space()
        yield from reader.need("=", ":")
        emit(f"{separator}{quoted(name)}: ")
        separator = ", "
        yield from python_value(reader, emit)
        yield from reader.skip_space()
        if (yield from reader.need(",", ")")) == ")":
            break
    emit("{}" if separator == "{" else "}")


def python_value(reader: Reader, emit: Sink, depth: int = 0) -> Steps[None]:
    """One literal, written as JSON."""
    if depth > MAX_DEPTH:
        raise Malformed("too_deep", f"arguments nest deeper than {MAX_DEPTH}")
    yield from reader.skip_space()
    first = yield from reader.peek()
    if first in ("[", "("):
        yield from _sequence(reader, emit, "]" if first == "[" else ")", depth)
    elif first == "{":
        yield from _dictionary(reader, emit, depth)
    elif first in ('"', "'"):
        yield from _string(reader, emit)
    elif first and first in "-+.0123456789":
        emit((yield from _number(reader)))
    else:
        emit((yield from json_constant(reader)))


def _sequence(reader: Reader, emit: Sink, close: str, depth: int) -> Steps[None]:
    yield from reader.take()
    emit("[")
    empty = True
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept(close)) is not None:
            break
        if not empty:
            emit(", ")
        empty = False
        yield from python_value(reader, emit, depth + 1)
        yield from reader.skip_space()
        if (yield from reader.need(",", close)) == close:
            break
    emit("]")


def _dictionary(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    yield from reader.take()
    separator = "{"
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept("}")) is not None:
            break
        emit(separator)
        separator = ", "
        if (yield from reader.peek()) not in ('"', "'"):
            yield from _unexpected(reader, "a quoted key")
        yield from _string(reader, emit)
        yield from reader.skip_space()
        yield from reader.need(":")
        emit(": ")
        yield from python_value(reader, emit, depth + 1)
        yield from reader.skip_space()
        if (yield from reader.need(",", "}")) == "}":
            break
    emit("{}" if separator == "{" else "}")


def _unexpected(reader: Reader, wanted: str) -> Steps[None]:
    rest = yield from reader.peek()
    if not rest:
        raise Malformed("truncated", "the answer ends inside a call")
    raise Malformed("bad_syntax", f"a call has {rest!r} where {wanted} belongs")


def _string(reader: Reader, emit: Sink) -> Steps[None]:
    quote = yield from reader.take()
    ahead = yield from reader.peek(2)
    triple = ahead == 2 * quote
    if triple:
        yield from reader.take(2)
    elif ahead[:1] == quote:
        yield from reader.take()
        emit('""')
        return
    emit('"')
    while True:
        yield from reader.run(_PLAIN[quote], emit)
        char = yield from reader.take()
        if char == quote:
            if not triple:
                break
            if (yield from reader.peek(2)) == 2 * quote:
                yield from reader.take(2)
                break
        elif char == "\\":
            char = yield from _escape(reader)
        emit(quoted(char)[1:-1])
    emit('"')


def _escape(reader: Reader) -> Steps[str]:
    char = yield from reader.take()
    digits = _HEX_DIGITS.get(char)
    if digits is None:
        return _ESCAPES.get(char, "\\" + char)
    code = yield from reader.take(digits)
    try:
        value = int(code, 16) if code.isalnum() else -1
    except ValueError:
        value = -1
    if not 0 <= value < 0x110000:
        raise Malformed("bad_syntax", f"a string in a call has the escape \\{char}{code!r:.12}")
    if char == "u" and 0xD800 <= value < 0xDC00:
        after = yield from reader.peek(6)
        if re.fullmatch(r"\\u[dD][c-fC-F][0-9a-fA-F]{2}", after):
            yield from reader.take(6)
            return str(json.loads(f'"\\u{code}{after}"'))
    return "\ufffd" if 0xD800 <= value < 0xE000 else chr(value)


def _number(reader: Reader) -> Steps[str]:
    first = yield from reader.peek()
    if first in ("+", "."):
        parts: list[str] = []
        yield from reader.run(_FLOAT_CHARS, parts.append)
        return _spelled("".join(parts))
    return (yield from json_number(reader))


def _spelled(text: str) -> str:
    """A number of Python's that JSON spells another way."""
    try:
        value = float(text) if len(text) < 40 else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise Malformed("bad_syntax", f"a call has {text!r:.40} where a value belongs")
    return str(int(text)) if text.lstrip("+").isdigit() else repr(value)
