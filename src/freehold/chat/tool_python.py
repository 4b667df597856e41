# SPDX-License-Identifier: Apache-2.0
"""Lists of calls written as Python, ``[f(a=1), g()]``, for the syntaxes that use them."""

from __future__ import annotations

from freehold.chat.parse_python import keyword_arguments, python_name
from freehold.chat.parse_reader import Malformed, Reader, Steps
from freehold.chat.tool_format import Calls, checked_name, json_call


def read_list(reader: Reader, calls: Calls, *, marked: bool = False) -> Steps[None]:
    """Read a list. Without a marker before it, what does not begin like a call is none."""
    yield from reader.need("[")
    yield from reader.skip_space()
    if marked and (yield from reader.accept("]")) is not None:
        return
    while True:
        if marked and (yield from reader.peek()) == "{":
            yield from json_call(reader, calls)  # what some answers hold instead
        else:
            yield from _call(reader, calls, marked)
        marked = True
        yield from reader.skip_space()
        if (yield from reader.need(",", "]")) == "]":
            return
        yield from reader.skip_space()


def _call(reader: Reader, calls: Calls, marked: bool) -> Steps[None]:
    try:
        name = yield from python_name(reader)
        yield from reader.need("(")
    except Malformed:
        if marked:
            raise
        raise Malformed(None) from None
    if not marked and (not name or (calls.tools and name not in calls.tools)):
        raise Malformed(None)
    calls.begin(checked_name(name))
    yield from keyword_arguments(reader, calls.arguments)
    calls.end()
