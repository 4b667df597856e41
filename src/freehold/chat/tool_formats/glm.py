# SPDX-License-Identifier: Apache-2.0
"""GLM 4.5 and later.

``<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>…</tool_call>``.
"""

from __future__ import annotations

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Reader, Steps
from freehold.chat.tool_format import (
    Calls,
    Evidence,
    ToolFormat,
    begin_parameters,
    checked_name,
    value_by_schema,
)

_KEY, _END = "<arg_key>", "</tool_call>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    name, found = yield from reader.collect(_KEY, _END, limit=MAX_NAME_LENGTH + 16)
    name = checked_name(name)
    add = begin_parameters(calls, name)
    while found == _KEY:
        key, _ = yield from reader.collect("</arg_key>", limit=MAX_NAME_LENGTH)
        key = checked_name(key)
        yield from reader.skip_space()
        yield from reader.need("<arg_value>")
        value, _ = yield from reader.collect("</arg_value>")
        add(key, value_by_schema(calls, name, key, value))
        yield from reader.skip_space()
        found = yield from reader.need(_KEY, _END)
    add("", "")


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("<arg_key>") else 0


FORMAT = ToolFormat("glm", _detect, _read, starts=("<tool_call>",), ends=(_END,))
