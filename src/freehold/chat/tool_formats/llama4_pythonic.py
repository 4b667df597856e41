# SPDX-License-Identifier: Apache-2.0
"""Llama 4 (and small Llama 3.2): ``[f(a=1), g(b="x")]`` in place of an answer.

``<|python_start|>`` and ``<|python_end|>`` may stand round it. Llama 4 also writes the JSON of
Llama 3.1. Without a marker only names among the request's tools count.
"""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat
from freehold.chat.tool_formats.llama3_json import FORMAT as JSON_FORMAT

_START, _END = "<|python_start|>", "<|python_end|>"


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    assert JSON_FORMAT.read is not None
    yield from JSON_FORMAT.read(reader, calls, marker)
    yield from reader.skip_space()
    yield from reader.accept(_END)


def _detect(evidence: Evidence) -> int:
    if evidence.has("<|header_start|>"):
        return 25
    if _START in evidence.tokens:
        return 5
    # Llama 3.2 1B and 3B are told of both forms.
    return 0


FORMAT = ToolFormat(
    "llama4_pythonic",
    _detect,
    _read,
    starts=(_START, "<|python_tag|>"),
    ends=(_END,),
    bare=("{", "["),
)
