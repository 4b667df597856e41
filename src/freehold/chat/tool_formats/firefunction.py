# SPDX-License-Identifier: Apache-2.0
"""FireFunction v2: `` functools[{"name": …, "arguments": …}, …]``."""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, json_calls


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from json_calls(reader, calls)


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("functools[") or evidence.has(" functools") else 0


# The bracket belongs to the list: a Python answer may well speak of functools.
FORMAT = ToolFormat("firefunction", _detect, _read, starts=(" functools", "functools"))
