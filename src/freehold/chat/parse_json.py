# SPDX-License-Identifier: Apache-2.0
"""JSON as models write it inside calls, read piece by piece and written out as sound JSON.

Sound means: whatever was accepted, `json.loads` takes it. Separators are ``", "`` and ``": "``;
numbers and strings stay as written, except that raw control characters get escaped (models print
newlines inside strings) and half surrogate pairs become U+FFFD. Python's spelling of the three
constants is taken too. Everything else that is no JSON is `Malformed`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from freehold.chat.parse_reader import Malformed, Reader, Sink, Steps

MAX_DEPTH = 64
MAX_NUMBER_LENGTH = 400  # Python refuses to read integers of more than 4300 digits

_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER_CHARS = re.compile(r"[-+0-9.eE]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD_CHARS = re.compile(r"[A-Za-z]+")
_HEX = re.compile(r"[0-9a-fA-F]{4}")
CONSTANTS = {"true": "true", "false": "false", "null": "null",
             "True": "true", "False": "false", "None": "null"}  # fmt: skip


def quoted(text: str) -> str:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False)


def json_value(reader: Reader, emit: Sink, depth: int = 0) -> Steps[None]:
    """Read one value and write it."""
    yield from reader.skip_space()
    first = yield from reader.peek()
    if first == "{":
        yield from _object(reader, emit, depth)
    elif first == "[":
        yield from _array(reader, emit, depth)
    elif first == '"':
        yield from json_string(reader, emit)
    elif first and first in "-0123456789":
        emit((yield from json_number(reader)))
    else:
        emit((yield from json_constant(reader)))


def json_text(reader: Reader) -> Steps[str]:
    """Read one value; its JSON text."""
    parts: list[str] = []
    yield from json_value(reader, parts.append)
    return "".join(parts)


def json_members(reader: Reader, member: Callable[[str], Steps[None]]) -> Steps[None]:
    """Read an object; `member(key)` reads the value of each, white space first."""
    yield from reader.skip_space()
    yield from reader.need("{")
    yield from reader.skip_space()
    if (yield from reader.accept("}")) is not None:
        return
    while True:
        yield from reader.skip_space()
        parts: list[str] = []
        yield from json_string(reader, parts.append)
        yield from reader.skip_space()
        yield from reader.need(":")
        yield from member(json.loads("".join(parts)))
        yield from reader.skip_space()
        if (yield from reader.need(",", "}")) == "}":
            return


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise Malformed("too_deep", f"arguments nest deeper than {MAX_DEPTH}")
    return depth + 1


def _object(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    depth = _deeper(depth)
    separator = "{"

    def member(key: str) -> Steps[None]:
        nonlocal separator
        emit(f"{separator}{quoted(key)}: ")
        separator = ", "
        yield from json_value(reader, emit, depth)

    yield from json_members(reader, member)
    emit("{}" if separator == "{" else "}")


def _array(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    depth = _deeper(depth)
    yield from reader.need("[")
    emit("[")
    yield from reader.skip_space()
    if (yield from reader.accept("]")) is None:
        while True:
            yield from json_value(reader, emit, depth)
            yield from reader.skip_space()
            if (yield from reader.need(",", "]")) == "]":
                break
            emit(", ")
    emit("]")


def json_string(reader: Reader, emit: Sink) -> Steps[None]:
    """Read a string and write it, quotes included."""
    yield from reader.need('"')
    emit('"')
    while True:
        yield from reader.run(_PLAIN, emit)
        char = yield from reader.take()
        if char == '"':
            emit('"')
            return
        if char != "\\":
            emit(quoted(char)[1:-1])  # a raw control character
            continue
        escape = yield from reader.take()
        if escape == "u":
            emit((yield from _unicode_escape(reader)))
        elif escape in '"\\/bfnrt':
            emit("\\" + escape)
        else:
            raise Malformed("bad_syntax", f"a string in a call has the escape \\{escape!r:.8}")


def _unicode_escape(reader: Reader) -> Steps[str]:
    """What stands after ``\\u``, half pairs replaced."""
    code = yield from reader.take(4)
    if _HEX.fullmatch(code) is None:
        raise Malformed("bad_syntax", f"a string in a call has the escape \\u{code!r:.12}")
    if not 0xD800 <= int(code, 16) < 0xE000:
        return "\\u" + code
    if int(code, 16) < 0xDC00:
        after = yield from reader.peek(6)
        low = after[2:]
        if after.startswith("\\u") and _HEX.fullmatch(low) and 0xDC00 <= int(low, 16) < 0xE000:
            yield from reader.take(6)
            return f"\\u{code}\\u{low}"
    return "\\ufffd"


def _bounded(reader: Reader, pattern: re.Pattern[str]) -> Steps[str]:
    too_long = Malformed("too_long", f"a number has more than {MAX_NUMBER_LENGTH} characters")
    return (yield from reader.text_of(pattern, MAX_NUMBER_LENGTH, too_long))


def json_number(reader: Reader) -> Steps[str]:
    """Read a number; its text."""
    text = yield from _bounded(reader, _NUMBER_CHARS)
    if _NUMBER.fullmatch(text) is None:
        raise Malformed("bad_syntax", f"a call has {text!r:.40} where a value belongs")
    return text


def json_constant(reader: Reader) -> Steps[str]:
    """Read true, false or null; its JSON text."""
    word = yield from _bounded(reader, _WORD_CHARS)
    if word in CONSTANTS:
        return CONSTANTS[word]
    rest = word or (yield from reader.peek())
    if not rest:
        raise Malformed("truncated", "the answer ends inside a call")
    raise Malformed("bad_syntax", f"a call has {rest!r:.40} where a value belongs")
