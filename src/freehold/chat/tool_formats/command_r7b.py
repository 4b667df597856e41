# SPDX-License-Identifier: Apache-2.0
"""Command R7B and Command A.

``<|START_ACTION|>[{"tool_call_id": "0", "tool_name": …, "parameters": …}, …]<|END_ACTION|>``.
"""

from __future__ import annotations

from freehold.chat.tool_format import NUMBER, CallSyntax, Evidence, Keys, json_between

_START = "<|START_ACTION|>"


def _detect(evidence: Evidence) -> int:
    if _START in evidence.template:
        return 40
    return 8 if _START in evidence.tokens else 0


FORMAT = json_between(
    "command_r7b",
    _START,
    "<|END_ACTION|>",
    _detect,
    keys=Keys(("tool_name", "name"), ("parameters", "arguments"), ("tool_call_id", "id")),
    syntax=CallSyntax(
        '{"tool_call_id": "' + NUMBER + '", "tool_name": "',
        '", "parameters": ',
        "}",
        marker=_START,
        opens=_START + "[\n    ",
        closes="\n]<|END_ACTION|>",
        separator=",\n    ",
    ),
    drops=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"),
)
