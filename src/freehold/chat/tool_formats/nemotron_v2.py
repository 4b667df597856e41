# SPDX-License-Identifier: Apache-2.0
"""Nemotron Nano v2: ``<TOOLCALL>[{"name": …, "arguments": …}, …]</TOOLCALL>``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, json_between, json_syntax


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("<TOOLCALL>") else 0


FORMAT = json_between(
    "nemotron_v2",
    "<TOOLCALL>",
    "</TOOLCALL>",
    _detect,
    drops=("<SPECIAL_12>",),
    syntax=json_syntax("<TOOLCALL>", opens="<TOOLCALL>[", closes="]</TOOLCALL>"),
)
