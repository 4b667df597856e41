# SPDX-License-Identifier: Apache-2.0
"""A call of the code interpreter written as bare code, as the Llama 3 family does.

The tool is the one the request brought for it; without such a tool the code is text.
"""

from __future__ import annotations

from freehold.chat.parse_json import quoted
from freehold.chat.parse_reader import Malformed, Reader, Steps, markers
from freehold.chat.tool_format import Calls

CODE_TOOLS = ("python", "ipython", "code_interpreter")


def read_code(reader: Reader, calls: Calls, start: str = "") -> Steps[None]:
    """Everything up to the end of the answer is code; `start` of it was read already."""
    tool = next((name for name in CODE_TOOLS if name in calls.tools), None)
    if tool is None:
        raise Malformed("bad_name", "code to be run, and no tool that runs code")
    calls.begin(tool)
    calls.arguments('{"code": "' + quoted(start)[1:-1])
    yield from reader.until(markers(), lambda text: calls.arguments(quoted(text)[1:-1]))
    calls.arguments('"}')
    calls.end()
