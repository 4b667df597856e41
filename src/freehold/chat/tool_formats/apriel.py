# SPDX-License-Identifier: Apache-2.0
"""Apriel and Hunyuan: ``<tool_calls>[{"name": …, "arguments": …}, …]</tool_calls>``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, json_between


def _detect(evidence: Evidence) -> int:
    return 35 if evidence.has("<tool_calls>") else 0


FORMAT = json_between("apriel", "<tool_calls>", "</tool_calls>", _detect)
