# SPDX-License-Identifier: Apache-2.0
"""MiniMax M2: ``<minimax:tool_call><invoke name="…"><parameter name="…">VALUE</parameter>…``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.chat.tool_markup import by_schema, read_invokes


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("<minimax:tool_call>") else 0


_READ = read_invokes("", ("minimax:tool_call",), by_schema)
FORMAT = ToolFormat(
    "minimax_m2",
    _detect,
    _READ,
    starts=("<minimax:tool_call>",),
    ends=("</minimax:tool_call>",),
)
