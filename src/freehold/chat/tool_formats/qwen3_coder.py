# SPDX-License-Identifier: Apache-2.0
r"""Qwen3-Coder, Qwen3.5, Nemotron 3 Nano, StepFun 3.5.

``<tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>``.
"""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.chat.tool_markup import read_functions


def _detect(evidence: Evidence) -> int:
    return 30 if evidence.has("<tool_call>", "<function=", "<parameter=") else 0


FORMAT = ToolFormat(
    "qwen3_coder",
    _detect,
    read_functions("<tool_call>", "</tool_call>"),
    # Some answers leave the outer pair out.
    starts=("<tool_call>", "<function="),
    ends=("</tool_call>",),
)
