# SPDX-License-Identifier: Apache-2.0
r"""DeepSeek V2.5, V3 and R1.

``<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{…}\n```
<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>``. Distilled models misspell the first marker.
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
STARTS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool_calls_begin｜>",
    "<｜tool calls begin｜>",
    "<｜tool\\_calls\\_begin｜>",
    "<｜tool▁calls｜>",
)


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from reader.skip_space()
    yield from reader.accept(_CALL)
    while True:
        yield from reader.skip_space()
        yield from reader.need("function")
        yield from reader.need("<｜tool▁sep｜>")
        name, _ = yield from reader.collect("\n", "```json", limit=MAX_NAME_LENGTH)
        name = checked_name(name)
        yield from reader.skip_space()
        yield from reader.accept("```json")
        calls.begin(name)
        yield from json_arguments(reader, calls.arguments)
        calls.end()
        yield from reader.skip_space()
        yield from reader.accept("```")
        yield from closing(reader, _CALL_END)
        yield from reader.skip_space()
        if (yield from reader.accept(_CALL)) is None:
            break
    yield from closing(reader, _END)


def _detect(evidence: Evidence) -> int:
    if evidence.has("tool▁sep", "```json"):
        return 30
    return 4 if "<｜tool▁sep｜>" in evidence.tokens else 0


FORMAT = ToolFormat(
    "deepseek_v3",
    _detect,
    _read,
    starts=STARTS,
    ends=(_END,),
    visible=(_CALL, _CALL_END, "<｜tool▁sep｜>"),
    syntax=CallSyntax(
        _CALL + "function<｜tool▁sep｜>",
        "\n```json\n",
        "\n```" + _CALL_END,
        marker=STARTS[0],
        opens=STARTS[0],
        closes=_END,
        separator="\n",
    ),
)
