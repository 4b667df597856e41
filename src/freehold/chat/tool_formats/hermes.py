# SPDX-License-Identifier: Apache-2.0
r"""Hermes 2/3, Qwen2.5, Qwen3, QwQ, MiMo, Granite 4, Reka Edge and many more.

``<tool_call>\n{"name": …, "arguments": …}\n</tool_call>``, repeated for several calls.
"""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, json_between, json_syntax


def _detect(evidence: Evidence) -> int:
    if "<tool_call>" in evidence.template:
        return 10
    return 5 if "<tool_call>" in evidence.tokens else 0


_SYNTAX = json_syntax(
    "<tool_call>", head='<tool_call>\n{"name": "', foot="}\n</tool_call>", separator="\n"
)
FORMAT = json_between("hermes", "<tool_call>", "</tool_call>", _detect, syntax=_SYNTAX)
