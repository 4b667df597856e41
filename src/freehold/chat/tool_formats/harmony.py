# SPDX-License-Identifier: Apache-2.0
"""gpt-oss ("harmony"): the answer is a row of messages with a channel and a recipient.

``<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…``, and calls
as ``<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}``. The analysis channel
is the reasoning; commentary without a recipient is meant for the reader.
"""

from __future__ import annotations

import re

from freehold.chat.parse_reader import Malformed, Reader, Steps, markers
from freehold.chat.tool_format import (
    Calls,
    CallSyntax,
    Channels,
    Evidence,
    Frame,
    ToolFormat,
    checked_name,
    json_arguments,
)

_START, _CHANNEL, _MESSAGE, _END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
_ENDS = (_END, "<|return|>", "<|call|>")
_HEADER_LIMIT = 1000  # characters; real ones have 60
_CHANNEL_NAME = re.compile(re.escape(_CHANNEL) + r"\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


def _drive(out: Channels, prompt: str) -> Steps[None]:
    found: str | None = ""
    if prompt.endswith(_MESSAGE):
        found = yield from _body(out, _channel(prompt[prompt.rfind(_START) :]), "")
    while found is not None:
        if found not in (_START, _CHANNEL):
            space = yield from out.reader.skip_space()
            if (yield from out.reader.at_end()):
                return
            found = yield from out.reader.accept(_START, _CHANNEL, "to=")
            if found is None:
                # No header: a continued answer, or a model that forgot its format.
                out.content(space)
                found = yield from _body(out, "final", "")
                continue
        header = _Header(found)
        if not (yield from out.guarded(header.read, found)):
            found = yield from _body(out, "final", "")
        elif header.tool is None:
            found = yield from _body(out, header.channel, header.text)
        else:
            tool = header.tool
            yield from out.guarded(lambda r, c, t=tool: _call(r, c, t), header.text)  # type: ignore[misc]
            found = yield from _body(out, "final", "")


def _body(out: Channels, channel: str, header: str) -> Steps[str | None]:
    """A message's text up to its end; what ended it."""
    thinks = channel == "analysis"
    sink = out.reasoning if thinks else out.content
    if thinks and out.inline:
        sink(header)
    found = yield from out.reader.until(markers(*_ENDS, _START, _CHANNEL), sink)
    if thinks and out.inline and found in _ENDS:
        sink(found or "")
    return found


def _channel(header: str) -> str:
    names = _CHANNEL_NAME.findall(header)
    return str(names[-1]) if names else "final"


class _Header:
    """Everything before ``<|message|>``."""

    def __init__(self, start: str) -> None:
        self._start = start
        self.text = ""
        self.channel = ""
        self.tool: str | None = None

    def read(self, reader: Reader, calls: Calls) -> Steps[None]:
        text, _ = yield from reader.collect(_MESSAGE, limit=_HEADER_LIMIT)
        self.text = self._start + text + _MESSAGE
        self.channel = _channel(self.text)
        # The last channel counts, and a recipient named before it was a false start.
        last = self.text.rfind(_CHANNEL)
        found = _RECIPIENT.findall(self.text[max(last, 0) :]) or _RECIPIENT.findall(self.text)
        name = found[-1] if found else ""
        if name not in ("", "assistant", "user", "all", "final") and self.channel != "final":
            self.tool = checked_name(name.removeprefix("functions."))


def _call(reader: Reader, calls: Calls, tool: str) -> Steps[None]:
    calls.begin(tool)
    yield from json_arguments(reader, calls.arguments)
    calls.end()
    yield from reader.skip_space()
    if (yield from reader.at(markers(*_ENDS, _START))) is None and not (yield from reader.at_end()):
        raise Malformed("stray_text", "text behind the arguments of a call")


def _detect(evidence: Evidence) -> int:
    if evidence.has(_CHANNEL, _MESSAGE):
        return 40
    return 8 if {_CHANNEL, _MESSAGE} <= evidence.tokens else 0


FORMAT = ToolFormat(
    "harmony",
    _detect,
    drive=_drive,
    syntax=CallSyntax(
        _CHANNEL + "commentary to=functions.", " <|constrain|>json" + _MESSAGE, "", several=False
    ),
    frame=Frame(
        (_CHANNEL + "analysis" + _MESSAGE, _END + _START + "assistant"),
        _CHANNEL + "final" + _MESSAGE,
    ),
    visible=(_START, _CHANNEL, _MESSAGE, *_ENDS, "<|constrain|>"),
)
