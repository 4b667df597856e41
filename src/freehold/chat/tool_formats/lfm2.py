# SPDX-License-Identifier: Apache-2.0
"""LFM2 and LFM2.5: ``<|tool_call_start|>[f(a=1), g()]<|tool_call_end|>``."""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, closing
from freehold.chat.tool_python import read_list

_START, _END = "<|tool_call_start|>", "<|tool_call_end|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from reader.skip_space()
    yield from read_list(reader, calls, marked=True)
    yield from closing(reader, _END)


def _detect(evidence: Evidence) -> int:
    if _START in evidence.template or evidence.has("<|tool_list_start|>"):
        return 40
    if evidence.has("List of tools: ["):  # the template prints calls as the message holds them
        return 20
    return 8 if _START in evidence.tokens else 0


FORMAT = ToolFormat("lfm2", _detect, _read, starts=(_START,), ends=(_END,))
