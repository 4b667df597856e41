# SPDX-License-Identifier: Apache-2.0
"""Functionary v3.1: ``<function=NAME>{…}</function>``; ``<|python_tag|>`` before code."""

from __future__ import annotations

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Reader, Steps
from freehold.chat.tool_code import read_code
from freehold.chat.tool_format import (
    Calls,
    CallSyntax,
    Evidence,
    ToolFormat,
    checked_name,
    closing,
    json_arguments,
)

_TAG = "<|python_tag|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    if marker == _TAG:
        yield from read_code(reader, calls)
        return
    name, _ = yield from reader.collect(">", limit=MAX_NAME_LENGTH)
    calls.begin(checked_name(name))
    yield from json_arguments(reader, calls.arguments)
    calls.end()
    yield from closing(reader, "</function>")


def _detect(evidence: Evidence) -> int:
    if evidence.has("<function=", "</function>") and not evidence.has("<parameter="):
        return 30
    return 0


FORMAT = ToolFormat(
    "functionary_v31",
    _detect,
    _read,
    starts=("<function=", _TAG),
    ends=("</function>",),
    syntax=CallSyntax("<function=", ">", "</function>", marker="<function="),
)
