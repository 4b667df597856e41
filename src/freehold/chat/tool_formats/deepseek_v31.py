# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V3.1.

``<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>…
<｜tool▁calls▁end｜>``.
"""

from __future__ import annotations

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Reader, Steps
from freehold.chat.tool_format import (
    Calls,
    CallSyntax,
    Evidence,
    ToolFormat,
    checked_name,
    closing,
    json_arguments,
)

_CALL, _CALL_END, _END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    if marker != _CALL:
        yield from reader.skip_space()
        yield from reader.accept(_CALL)
    while True:
        name, _ = yield from reader.collect("<｜tool▁sep｜>", limit=MAX_NAME_LENGTH)
        calls.begin(checked_name(name))
        yield from json_arguments(reader, calls.arguments)
        calls.end()
        yield from closing(reader, _CALL_END)
        yield from reader.skip_space()
        if (yield from reader.accept(_CALL)) is None:
            break
    if marker == _CALL:
        yield from reader.accept(_END)
    else:
        yield from closing(reader, _END)


def _detect(evidence: Evidence) -> int:
    return 20 if evidence.has("tool▁sep") else 0


FORMAT = ToolFormat(
    "deepseek_v31",
    _detect,
    _read,
    starts=("<｜tool▁calls▁begin｜>", _CALL),
    ends=(_END,),
    visible=(_CALL_END, "<｜tool▁sep｜>"),
    syntax=CallSyntax(
        _CALL,
        "<｜tool▁sep｜>",
        _CALL_END,
        marker="<｜tool▁calls▁begin｜>",
        opens="<｜tool▁calls▁begin｜>",
        closes=_END,
    ),
)
