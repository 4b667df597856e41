# SPDX-License-Identifier: Apache-2.0
r"""Command R and R+.

``Action:\n```json\n[{"tool_name": …, "parameters": …}, …]\n``` ``.
"""

from __future__ import annotations

from freehold.chat.parse_reader import Reader, Steps
from freehold.chat.tool_format import Calls, Evidence, Keys, ToolFormat, closing, json_calls

_KEYS = Keys(name=("tool_name", "name"), arguments=("parameters", "arguments"))


def _read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
    yield from json_calls(reader, calls, _KEYS)
    yield from closing(reader, "```")


def _detect(evidence: Evidence) -> int:
    return 30 if evidence.has("Action:", "```json", "tool_name") else 0


FORMAT = ToolFormat(
    "command_r_plus",
    _detect,
    _read,
    starts=("Action:\n```json\n", "Action: ```json\n"),
    ends=("```",),
    drops=("<|CHATBOT_TOKEN|>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
)
