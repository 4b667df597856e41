# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 to 3.3: ``{"name": …, "parameters": …}`` in place of an answer.

``<|python_tag|>`` may stand before it, before ``TOOL.call(key="value")`` of a built-in tool, or
before code. Llama 3.2 writes ``[f(a=1)]`` as well. Without a marker only an object that begins with
a name counts, and only a name among the request's tools: an answer may be JSON, too.
"""

from __future__ import annotations

from freehold.chat.parse_json import json_string
from freehold.chat.parse_python import NAME_CHARS, keyword_arguments
from freehold.chat.parse_reader import Malformed, Reader, Steps
from freehold.chat.tool_code import read_code
from freehold.chat.tool_format import (
    Calls,
    Evidence,
    ToolFormat,
    checked_name,
    json_arguments,
    json_syntax,
)
from freehold.chat.tool_python import read_list

_TAG = "<|python_tag|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from reader.skip_space()
    first = yield from reader.peek()
    if first == "{":
        yield from _object(reader, calls)
        while (yield from _another(reader)):
            yield from _object(reader, calls)
    elif first == "[":
        yield from read_list(reader, calls)
    else:
        yield from _builtin_or_code(reader, calls)


def _another(reader: Reader) -> Steps[bool]:
    """Several calls are written one after the other with semicolons."""
    yield from reader.skip_space()
    if (yield from reader.accept(";")) is None:
        return False
    yield from reader.skip_space()
    return (yield from reader.peek()) == "{"


def _object(reader: Reader, calls: Calls) -> Steps[None]:
    yield from reader.need("{")
    name = ""
    key = ""
    while key not in ("name", "function"):
        yield from _token(reader, '"')
        key = yield from _short_string(reader)
        if key not in ("name", "function", "type"):
            raise Malformed(None)
        yield from _token(reader, ":")
        yield from _token(reader, '"')
        name = yield from _short_string(reader)
        if key == "type":
            if name != "function":
                raise Malformed(None)
            yield from _token(reader, ",")
            yield from reader.take()
    if calls.tools and name not in calls.tools:
        raise Malformed(None)
    yield from _token(reader, ",")
    yield from reader.take()
    yield from _token(reader, '"')
    if (yield from _short_string(reader)) not in ("parameters", "arguments"):
        raise Malformed(None)
    calls.begin(checked_name(name))
    yield from reader.skip_space()
    yield from reader.need(":")
    yield from json_arguments(reader, calls.arguments)
    yield from reader.skip_space()
    yield from reader.need("}")
    calls.end()


def _token(reader: Reader, char: str) -> Steps[None]:
    """Stand before `char`, or find that this is no call."""
    if char == ":":
        yield from reader.skip_space()
        if (yield from reader.accept(":")) is None:
            raise Malformed(None)
        return
    yield from reader.skip_space()
    if (yield from reader.peek()) != char:
        raise Malformed(None)


def _short_string(reader: Reader) -> Steps[str]:
    parts: list[str] = []
    size = 0

    def sink(text: str) -> None:
        nonlocal size
        size += len(text)
        if size > 300:
            raise Malformed(None)
        parts.append(text)

    yield from json_string(reader, sink)
    return "".join(parts)[1:-1]


def _builtin_or_code(reader: Reader, calls: Calls) -> Steps[None]:
    """``brave_search.call(query="…")``, or whatever else there is."""
    parts: list[str] = []
    yield from reader.run(NAME_CHARS, parts.append)
    start = "".join(parts)
    if start.endswith(".call") and (yield from reader.peek()) == "(":
        yield from reader.take()
        calls.begin(checked_name(start.removesuffix(".call")))
        yield from keyword_arguments(reader, calls.arguments)
        calls.end()
    else:
        yield from read_code(reader, calls, start)


def _detect(evidence: Evidence) -> int:
    if evidence.has("<|start_header_id|>") and (
        evidence.has("<|python_tag|>") or evidence.has('"parameters"')
    ):
        return 20
    return 4 if _TAG in evidence.tokens else 0


FORMAT = ToolFormat(
    "llama3_json",
    _detect,
    _read,
    starts=(_TAG,),
    bare=("{", "["),
    syntax=json_syntax(arguments="parameters", separator="; "),
)
