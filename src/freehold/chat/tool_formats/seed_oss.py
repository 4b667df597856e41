# SPDX-License-Identifier: Apache-2.0
r"""Seed-OSS: ``<seed:tool_call>\n<function=NAME>\n<parameter=KEY>VALUE</parameter>…``."""

from __future__ import annotations

from freehold.chat.tool_format import Evidence, ToolFormat
from freehold.chat.tool_markup import read_functions


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has("<seed:tool_call>") else 0


FORMAT = ToolFormat(
    "seed_oss",
    _detect,
    read_functions("<seed:tool_call>", "</seed:tool_call>"),
    starts=("<seed:tool_call>",),
    ends=("</seed:tool_call>",),
)
