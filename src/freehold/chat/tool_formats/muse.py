# SPDX-License-Identifier: Apache-2.0
"""Muse Glimmer: the answer is a row of messages with a recipient.

``assistant to=self<|message|>…<|eom|>`` is reasoning; ``assistant to=TOOL<|message|>`` holds
``<atem:function_calls><atem:invoke name="…"><atem:parameter name="…">VALUE</atem:parameter>…``;
a message without recipient is the visible answer. Messages are joined by ``<|start|>``.
"""

from __future__ import annotations

import re

from freehold.chat.parse_reader import Reader, Steps, markers
from freehold.chat.tool_format import Calls, Channels, Evidence, ToolFormat
from freehold.chat.tool_markup import by_schema, read_invokes

_START, _MESSAGE = "<|start|>", "<|message|>"
_ENDS = ("<|eom|>", "<|eot|>")
_CALLS, _CALLS_END = "<atem:function_calls>", "</atem:function_calls>"
_HEADER_LIMIT = 1000
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_READ = read_invokes("atem:", ("function_calls",), by_schema)


def _drive(out: Channels, prompt: str) -> Steps[None]:
    found: str | None = ""
    if prompt.endswith(_MESSAGE):
        found = yield from _body(out, prompt[prompt.rfind(_START) :])
    while found is not None:
        if found != _START:
            space = yield from out.reader.skip_space()
            if (yield from out.reader.at_end()):
                return
            found = yield from out.reader.accept(_START, "to=", _MESSAGE)
            if found is None or found == _MESSAGE:
                out.content(space if found is None else "")
                found = yield from _body(out, "")
                continue
        header = _Header(found)
        sound = yield from out.guarded(header.read, found)
        found = yield from _body(out, header.text if sound else "")


def _body(out: Channels, header: str) -> Steps[str | None]:
    """A message up to its end; calls in it are read, unless it is reasoning. What ended it."""
    recipients = _RECIPIENT.findall(header)
    thinks = bool(recipients) and recipients[-1] == "self"
    sink = out.reasoning if thinks else out.content
    if thinks and out.inline:
        sink(header)
    stops = markers(*_ENDS, _START) if thinks else markers(*_ENDS, _START, _CALLS)
    while (found := (yield from out.reader.until(stops, sink))) == _CALLS:
        yield from out.guarded(lambda r, c: _READ(r, c, _CALLS), _CALLS)
    if thinks and out.inline and found in _ENDS:
        sink(found or "")
    return found


class _Header:
    """Everything before ``<|message|>``."""

    def __init__(self, start: str) -> None:
        self.text = start

    def read(self, reader: Reader, calls: Calls) -> Steps[None]:
        text, found = yield from reader.collect(_MESSAGE, limit=_HEADER_LIMIT)
        self.text += text + found


def _detect(evidence: Evidence) -> int:
    if evidence.has("<atem:"):
        return 40
    return 0


FORMAT = ToolFormat(
    "muse", _detect, drive=_drive, visible=(_START, _MESSAGE, *_ENDS)
)  # fmt: skip
