# SPDX-License-Identifier: Apache-2.0
r"""Functionary v3.2: ``all\nTEXT`` and ``NAME\n{…}``, each part after ``>>>``.

The prompt ends with the first ``>>>``, so an answer begins with a recipient's name.
"""

from __future__ import annotations

import re

from freehold.chat.parse_reader import MAX_NAME_LENGTH, Malformed, Reader, Steps, markers
from freehold.chat.tool_code import CODE_TOOLS, read_code
from freehold.chat.tool_format import Calls, Channels, Evidence, ToolFormat, json_arguments

_NEXT = ">>>"
_NAME_CHARS = re.compile(r"[\w.\-]+")


def _drive(out: Channels, prompt: str) -> Steps[None]:
    found: str | None = ""
    if prompt and not prompt.endswith(_NEXT):
        found = yield from out.reader.until(markers(_NEXT), out.content)
    while found is not None:
        yield from out.guarded(_part, found)
        found = yield from out.reader.until(markers(_NEXT), out.content)


def _part(reader: Reader, calls: Calls) -> Steps[None]:
    """A recipient and, if it is a tool, what it gets. Text for people is left for the caller."""
    parts: list[str] = []
    yield from reader.run(_NAME_CHARS, parts.append)
    name = "".join(parts)
    if (yield from reader.peek()) != "\n" or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise Malformed(None)
    if name == "all":
        yield from reader.take()
        return
    if calls.tools and name not in calls.tools:
        raise Malformed(None)
    yield from reader.take()
    yield from reader.skip_space()
    if name in CODE_TOOLS and (yield from reader.peek()) != "{":
        yield from read_code(reader, calls)
        return
    calls.begin(name)
    yield from json_arguments(reader, calls.arguments)
    calls.end()
    yield from reader.skip_space()


def _detect(evidence: Evidence) -> int:
    return 40 if evidence.has(">>>all") or evidence.has(">>>", "recipient") else 0


FORMAT = ToolFormat("functionary_v32", _detect, drive=_drive)
