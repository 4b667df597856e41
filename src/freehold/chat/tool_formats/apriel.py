# SPDX-License-Identifier: Apache-2.0
"""Apriel and Hunyuan: ``<tool_calls>[{"name": …, "arguments": …}, …]</tool_calls>``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, json_between, json_syntax


def _detect(evidence: Evidence) -> int:
    return 35 if evidence.has("<tool_calls>") else 0


_SYNTAX = json_syntax("<tool_calls>", opens="<tool_calls>[", closes="]</tool_calls>")
FORMAT = json_between("apriel", "<tool_calls>", "</tool_calls>", _detect, syntax=_SYNTAX)
