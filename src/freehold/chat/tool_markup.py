# SPDX-License-Identifier: Apache-2.0
"""Readers of calls written as tags: ``<function=f><parameter=k>v…`` and ``<invoke name="f">…``.

Shared by several syntaxes that differ in the names of the tags. A value ends at the first closing
tag; there is no escaping in any of these syntaxes.
"""

from __future__ import annotations

from collections.abc import Callable

from freehold.chat.parse_json import quoted
from freehold.chat.parse_reader import MAX_NAME_LENGTH, Malformed, Reader, Steps
from freehold.chat.tool_format import (
    Calls,
    Read,
    attribute,
    begin_parameters,
    checked_name,
    closing,
    value_by_schema,
)
from freehold.chat.tool_schema import json_of


def without_frame(value: str) -> str:
    """A value without the one newline that layout puts before and behind it."""
    value = value.removeprefix("\n")
    return value.removesuffix("\n")


def read_functions(start: str, end: str) -> Read:
    """Reader of ``<function=NAME>`` with ``<parameter=KEY>`` inside `start` and `end`."""

    def read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
        if marker == start:
            yield from reader.skip_space()
            yield from reader.need("<function=")
        while True:
            yield from _function(reader, calls)
            yield from reader.skip_space()
            if (yield from reader.accept("<function=")) is None:
                break
        if marker == start:
            yield from closing(reader, end)
        else:
            yield from reader.accept(end)

    return read


def _function(reader: Reader, calls: Calls) -> Steps[None]:
    name, _ = yield from reader.collect(">", limit=MAX_NAME_LENGTH)
    name = checked_name(name)
    add = begin_parameters(calls, name)
    while True:
        yield from reader.skip_space()
        if (yield from reader.need("<parameter=", "</function>")) == "</function>":
            break
        key, _ = yield from reader.collect(">", limit=MAX_NAME_LENGTH)
        # A missing closing tag is a slip these models are known for.
        value, found = yield from reader.collect("</parameter>", "</function>", "<parameter=")
        if found != "</parameter>":
            raise Malformed("bad_syntax", f"the parameter {key!r:.60} of a call is not closed")
        add(checked_name(key), value_by_schema(calls, name, key.strip(), without_frame(value)))
    add("", "")


def read_invokes(
    prefix: str, wrapper: tuple[str, ...], value_of: Callable[[Calls, str, str, str, str], str]
) -> Read:
    """Reader of ``<PREFIXinvoke name="…"><PREFIXparameter name="…">`` up to ``</PREFIXwrapper>``.

    `value_of(calls, tool, key, header, text)` gives the JSON text of a value.
    """
    invoke, invoke_end = f"<{prefix}invoke", f"</{prefix}invoke>"
    parameter, parameter_end = f"<{prefix}parameter", f"</{prefix}parameter>"
    ends = tuple(f"</{prefix}{w}>" for w in wrapper)

    def read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.need(invoke)
        while True:
            header, _ = yield from reader.collect(">", limit=4 * MAX_NAME_LENGTH)
            name = checked_name(attribute(header, "name"))
            add = begin_parameters(calls, name)
            while True:
                yield from reader.skip_space()
                if (yield from reader.need(parameter, invoke_end)) == invoke_end:
                    break
                header, _ = yield from reader.collect(">", limit=4 * MAX_NAME_LENGTH)
                key = checked_name(attribute(header, "name"))
                text, _ = yield from reader.collect(parameter_end)
                add(key, value_of(calls, name, key, header, text))
            add("", "")
            yield from reader.skip_space()
            if (yield from reader.accept(invoke)) is None:
                break
        yield from closing(reader, *ends)

    return read


def by_schema(calls: Calls, tool: str, key: str, header: str, text: str) -> str:
    """A value whose type is in the tool's schema."""
    del header
    return value_by_schema(calls, tool, key, text)


def by_string_flag(calls: Calls, tool: str, key: str, header: str, text: str) -> str:
    """A value whose tag says ``string="true"`` or ``"false"``."""
    if 'string="' not in header:
        return value_by_schema(calls, tool, key, text)
    if attribute(header, "string") == "true":
        return quoted(text)
    value = json_of(text.strip())
    if value is None:
        raise Malformed("bad_arguments", f"the parameter {key!r:.60} of a call is no JSON")
    return value
