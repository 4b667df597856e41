# SPDX-License-Identifier: Apache-2.0
"""Apertus: ``<|tools_prefix|>[{"NAME": {…}}, …]<|tools_suffix|>``."""

from __future__ import annotations

from freehold.chat.parse_json import json_members
from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import (
    Calls,
    CallSyntax,
    Evidence,
    ToolFormat,
    checked_name,
    closing,
    json_arguments,
)

_START, _END = "<|tools_prefix|>", "<|tools_suffix|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    def member(key: str) -> Steps[None]:
        calls.begin(checked_name(key))
        yield from json_arguments(reader, calls.arguments)
        calls.end()

    yield from reader.skip_space()
    yield from reader.need("[")
    while True:
        yield from json_members(reader, member)
        yield from reader.skip_space()
        if (yield from reader.need(",", "]")) == "]":
            break
    yield from closing(reader, _END)


def _detect(evidence: Evidence) -> int:
    if _START in evidence.template:
        return 40
    return 8 if _START in evidence.tokens else 0


FORMAT = ToolFormat(
    "apertus",
    _detect,
    _read,
    starts=(_START,),
    ends=(_END,),
    syntax=CallSyntax(
        '{"', '": ', "}", marker=_START, opens=_START + "[", closes="]" + _END, separator=", "
    ),
)
