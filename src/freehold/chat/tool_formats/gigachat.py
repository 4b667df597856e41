# SPDX-License-Identifier: Apache-2.0
r"""GigaChat 3: ``function call<|role_sep|>\n{…}``; 3.1: ``<|function_call|>{…}``."""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, json_calls

_STARTS = ("<|function_call|>", "function call<|role_sep|>\n")


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from json_calls(reader, calls)


def _detect(evidence: Evidence) -> int:
    if evidence.has("<|role_sep|>") and evidence.has("<|message_sep|>"):
        return 40
    return 40 if evidence.has("<|function_call|>") else 0


FORMAT = ToolFormat(
    "gigachat",
    _detect,
    _read,
    starts=_STARTS,
    drops=("<|message_sep|>\n\n", "<|message_sep|>"),
    visible=("<|role_sep|>",),
)
