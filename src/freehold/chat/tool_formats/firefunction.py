# SPDX-License-Identifier: Apache-2.0
"""FireFunction v2: `` functools[{"name": …, "arguments": …}, …]``."""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, ToolFormat, json_list, json_syntax


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from json_list(reader, calls)


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("functools") else 0


FORMAT = ToolFormat(
    "firefunction",
    _detect,
    _read,
    starts=(" functools[", "functools["),
    syntax=json_syntax("functools[", opens="functools[", closes="]"),
)
