# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V3.2 and V4.

``<｜DSML｜function_calls><｜DSML｜invoke name="…">`` with
``<｜DSML｜parameter name="…" string="true|false">`` inside;
V4 says ``tool_calls``. A value is text or JSON as its tag says.
"""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.chat.tool_markup import by_string_flag, read_invokes

_WRAPPERS = ("function_calls", "tool_calls")


def _detect(evidence: Evidence) -> int:
    if "｜DSML｜" in evidence.template:
        return 40
    return 8 if "｜DSML｜" in evidence.tokens else 0


FORMAT = ToolFormat(
    "deepseek_dsml",
    _detect,
    read_invokes("｜DSML｜", _WRAPPERS, by_string_flag),
    starts=tuple(f"<｜DSML｜{w}>" for w in _WRAPPERS),
    ends=tuple(f"</｜DSML｜{w}>" for w in _WRAPPERS),
    visible=("｜DSML｜",),
)
