# SPDX-License-Identifier: Apache-2.0
"""Gemma 4: ``<|tool_call>call:NAME{key:value,…}<tool_call|>``.

Not JSON: keys are bare, strings stand between ``<|"|>``.
"""

from __future__ import annotations

from freehold.chat.parse_json import MAX_DEPTH, json_constant, json_number, quoted
from freehold.chat.parse_reader import MAX_NAME_LENGTH, Malformed, Reader, Sink, Steps, markers
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, checked_name, closing

_START, _END, _QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from reader.skip_space()
    yield from reader.need("call:")
    name, _ = yield from reader.collect("{", limit=MAX_NAME_LENGTH)
    calls.begin(checked_name(name))
    yield from _members(reader, calls.arguments, 0)
    calls.end()
    yield from closing(reader, _END)


def _members(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    """What follows an opening brace."""
    if depth > MAX_DEPTH:
        raise Malformed("too_deep", f"arguments nest deeper than {MAX_DEPTH}")
    separator = "{"
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept("}")) is not None:
            break
        emit(separator)
        separator = ", "
        if (yield from reader.accept(_QUOTE)) is not None:
            key, _ = yield from reader.collect(_QUOTE, limit=MAX_NAME_LENGTH)
            yield from reader.skip_space()
            yield from reader.need(":")
        else:
            key, _ = yield from reader.collect(":", limit=MAX_NAME_LENGTH)
            key = key.strip()
        emit(quoted(key) + ": ")
        yield from _value(reader, emit, depth)
        yield from reader.skip_space()
        if (yield from reader.need(",", "}")) == "}":
            break
    emit("{}" if separator == "{" else "}")


def _value(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    yield from reader.skip_space()
    if (yield from reader.accept(_QUOTE)) is not None:
        emit('"')
        found = yield from reader.until(markers(_QUOTE), lambda text: emit(quoted(text)[1:-1]))
        if found is None:
            raise Malformed("truncated", "the answer ends inside a call")
        emit('"')
    elif (yield from reader.accept("{")) is not None:
        yield from _members(reader, emit, depth + 1)
    elif (yield from reader.accept("[")) is not None:
        yield from _list(reader, emit, depth + 1)
    else:
        first = yield from reader.peek()
        number = first and first in "-0123456789"
        emit((yield from (json_number(reader) if number else json_constant(reader))))


def _list(reader: Reader, emit: Sink, depth: int) -> Steps[None]:
    if depth > MAX_DEPTH:
        raise Malformed("too_deep", f"arguments nest deeper than {MAX_DEPTH}")
    emit("[")
    empty = True
    while True:
        yield from reader.skip_space()
        if (yield from reader.accept("]")) is not None:
            break
        if not empty:
            emit(", ")
        empty = False
        yield from _value(reader, emit, depth)
        yield from reader.skip_space()
        if (yield from reader.need(",", "]")) == "]":
            break
    emit("]")


def _detect(evidence: Evidence) -> int:
    if _START in evidence.template:
        return 40
    return 8 if _START in evidence.tokens else 0


FORMAT = ToolFormat(
    "gemma4",
    _detect,
    _read,
    starts=(_START,),
    ends=(_END,),
    drops=("<|tool_response>",),  # printed behind a call by models that wait for its result
    visible=(_QUOTE,),
)
