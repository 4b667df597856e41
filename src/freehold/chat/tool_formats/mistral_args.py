# SPDX-License-Identifier: Apache-2.0
"""Mistral v11 and later: ``[TOOL_CALLS]NAME[ARGS]{…}``, repeated; v11 adds ``[CALL_ID]ID``."""

from __future__ import annotations

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Reader, Steps
from freehold.chat.tool_format import (
    Calls,
    CallSyntax,
    Evidence,
    ToolFormat,
    checked_name,
    json_arguments,
)


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    name, found = yield from reader.collect("[ARGS]", "[CALL_ID]", limit=MAX_NAME_LENGTH)
    call_id = ""
    if found == "[CALL_ID]":
        call_id, _ = yield from reader.collect("[ARGS]", limit=MAX_NAME_LENGTH)
    call_id = call_id.strip()
    calls.begin(checked_name(name), call_id)
    yield from json_arguments(reader, calls.arguments)
    calls.end(call_id)


def _detect(evidence: Evidence) -> int:
    if evidence.has("[TOOL_CALLS]", "[ARGS]"):
        return 30
    return 6 if {"[TOOL_CALLS]", "[ARGS]"} <= evidence.tokens else 0


FORMAT = ToolFormat(
    "mistral_args",
    _detect,
    _read,
    starts=("[TOOL_CALLS]",),
    visible=("[ARGS]", "[CALL_ID]"),
    syntax=CallSyntax("[TOOL_CALLS]", "[ARGS]", "", marker="[TOOL_CALLS]"),
)
