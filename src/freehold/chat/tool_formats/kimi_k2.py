# SPDX-License-Identifier: Apache-2.0
"""Kimi K2.

``<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}
<|tool_call_end|>…<|tool_calls_section_end|>``. The whole ``functions.NAME:0`` is the call's id.
The thinking model calls tools without closing its reasoning.
"""

from __future__ import annotations

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Reader, Steps
from freehold.chat.tool_format import (
    NUMBER,
    Calls,
    CallSyntax,
    Evidence,
    ToolFormat,
    checked_name,
    closing,
    json_arguments,
)

_SECTION, _SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _CALL_END = "<|tool_call_begin|>", "<|tool_call_end|>"
_ARGUMENTS = "<|tool_call_argument_begin|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    if marker == _SECTION:
        yield from reader.skip_space()
        yield from reader.need(_CALL)
    while True:
        header, _ = yield from reader.collect(_ARGUMENTS, limit=2 * MAX_NAME_LENGTH)
        call_id = header.strip()
        name, colon, number = call_id.rpartition(":")
        if not (colon and number.isdigit()):
            name = call_id
        calls.begin(checked_name(name.removeprefix("functions.")), call_id)
        yield from json_arguments(reader, calls.arguments)
        calls.end(call_id)
        yield from closing(reader, _CALL_END)
        yield from reader.skip_space()
        if (yield from reader.accept(_CALL)) is None:
            break
    if marker == _SECTION:
        yield from closing(reader, _SECTION_END)
    else:
        yield from reader.accept(_SECTION_END)


def _detect(evidence: Evidence) -> int:
    if _CALL in evidence.template:
        return 40
    return 8 if _CALL in evidence.tokens else 0


FORMAT = ToolFormat(
    "kimi_k2",
    _detect,
    _read,
    starts=(_SECTION, _CALL),
    ends=(_SECTION_END,),
    ends_reasoning=True,
    visible=(_CALL_END, _ARGUMENTS),
    syntax=CallSyntax(
        _CALL + "functions.",
        ":" + NUMBER + _ARGUMENTS,
        _CALL_END,
        marker=_SECTION,
        opens=_SECTION,
        closes=_SECTION_END,
    ),
)
