# SPDX-License-Identifier: Apache-2.0
"""Mistral v2 to v7: ``[TOOL_CALLS][{"name": …, "arguments": …, "id": …}, …]``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, json_between, json_syntax


def _detect(evidence: Evidence) -> int:
    if "[TOOL_CALLS]" in evidence.template:
        return 20
    return 5 if "[TOOL_CALLS]" in evidence.tokens else 0


_SYNTAX = json_syntax("[TOOL_CALLS]", opens="[TOOL_CALLS][", closes="]")
FORMAT = json_between("mistral_list", "[TOOL_CALLS]", "", _detect, syntax=_SYNTAX)
