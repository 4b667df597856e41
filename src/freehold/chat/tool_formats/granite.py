# SPDX-License-Identifier: Apache-2.0
"""Granite 3 and Phi-4 mini: ``<|tool_call|>[{"name": …, "arguments": …}, …]``."""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, json_calls, json_syntax

_START = "<|tool_call|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from json_calls(reader, calls)
    yield from reader.skip_space()
    yield from reader.accept("<|/tool_call|>", "</tool_call>")


def _detect(evidence: Evidence) -> int:
    if _START in evidence.template:
        return 30
    return 6 if _START in evidence.tokens else 0


FORMAT = ToolFormat(
    "granite",
    _detect,
    _read,
    starts=(_START,),
    visible=("<|/tool_call|>",),
    syntax=json_syntax(_START, opens=_START + "[", closes="]"),
)
