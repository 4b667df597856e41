# SPDX-License-Identifier: Apache-2.0
"""A model's answer, taken apart while it comes: reasoning, visible text, tool calls.

`OutputParser` puts a reasoning style and a tool format together. It takes text in pieces of any
size and gives events; how the text was cut changes nothing but how the pieces of a text are cut.
Text is held back only while it may still turn out to be a marker, white space at a border, or a
call. Whatever is no call after all comes back as text. Time is linear in the length of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from freehold.chat.parse_events import (
    Event,
    MalformedCall,
    ParsedOutput,
    ParseNote,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from freehold.chat.parse_reader import Malformed, Markers, Reader, Steps, markers
from freehold.chat.reasoning import ReasoningStyle
from freehold.chat.tool_format import Calls, ToolFormat, tool_definitions

MAX_NOTES = 100  # what is malformed a thousand times over is described often enough

ReasoningMode = Literal["split", "inline"]
_FENCES = ("```json", "```")


class _Trimmed:
    """A text without white space at its borders, known before it is over."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._held: list[str] = []
        self.started = False  # white space at the beginning is part of the text from now on

    def write(self, text: str) -> None:
        body = text.rstrip()
        if body:
            if self.started:
                self._emit("".join(self._held) + body)
            else:
                self._emit(body.lstrip())
            self.started = True
            self._held.clear()
        if len(body) < len(text):
            self._held.append(text[len(body) :])

    def drop_held(self) -> None:
        self._held.clear()

    def flush(self) -> None:
        if self._held and self.started:
            self._emit("".join(self._held))
        self._held.clear()


class OutputParser:
    """Parser of one answer.

    Args:
        tool_format: how calls are written; None: there are none.
        reasoning: how reasoning is marked; None: there is none.
        tools: the request's tools. Some syntaxes leave the type of a value to their schemas.
        prompt: the rendered prompt, or its end: whether it opened the reasoning.
        mode: "inline" leaves reasoning where it is, as part of the content.
        content, reasoning_text: what of the answer the prompt holds already, when the last
            message is to be continued; `result` contains it, the events do not.
        json_answer: the answer was asked to be JSON; a code fence round it is left out.
        stream_arguments: tell of calls as they come, in pieces. Pieces cannot be taken back, so
            a call may be declared void (`MalformedCall.index`). Without, only whole calls are told.

    Not thread-safe. `feed` any number of times, then `finish` once.
    """

    def __init__(
        self,
        tool_format: ToolFormat | None,
        reasoning: ReasoningStyle | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        prompt: str = "",
        mode: ReasoningMode = "split",
        content: str = "",
        reasoning_text: str = "",
        json_answer: bool = False,
        stream_arguments: bool = False,
    ) -> None:
        self.tools = tool_definitions(tools)
        self.inline = mode == "inline"
        self.reader = Reader()
        self.calls: Calls = self
        self._format = tool_format
        self._style = reasoning
        self._prompt = prompt
        self._json_answer = json_answer
        self._stream_arguments = stream_arguments
        self._events: list[Event] = []
        self._content = [content]
        self._reasoning = [reasoning_text]
        self._done: list[ToolCall] = []
        self._notes: list[ParseNote] = []
        self._open: ToolCall | None = None
        self._fragments: list[str] = []
        self._text = _Trimmed(self._emit_text)
        self._text.started = bool(content)
        self._thought = _Trimmed(self._emit_reasoning)
        self._thought.started = bool(reasoning_text)
        self._after_something = False  # reasoning or a call came before what is read now
        self._continues_thought = bool(reasoning_text) and not content
        self._finished = False
        self._steps = self._run()
        next(self._steps)

    # -- for the caller ------------------------------------------------------------------------

    def feed(self, text: str) -> list[Event]:
        """Events that are certain after this piece."""
        self.reader.feed(text)
        if text:
            next(self._steps, None)
        return self._taken()

    def finish(self) -> list[Event]:
        """The rest: no more text will come."""
        if not self._finished:
            self._finished = True
            self.reader.end()
            for _ in self._steps:
                raise AssertionError("a parser at its end asked for more")
        return self._taken()

    def result(self) -> ParsedOutput:
        """Everything so far. A call that is not whole yet is there with what is known of it."""
        calls = list(self._done)
        if self._open is not None:
            name, index = self._open.name, self._open.index
            calls.append(ToolCall(index, name, "".join(self._fragments), self._open.id))
        return ParsedOutput(
            "".join(self._content), "".join(self._reasoning), tuple(calls), tuple(self._notes)
        )

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # -- what formats call ---------------------------------------------------------------------

    def content(self, text: str) -> None:
        """Visible text."""
        self._text.write(text)

    def reasoning(self, text: str) -> None:
        """Reasoning."""
        if self.inline:
            self._text.write(text)
        else:
            self._thought.write(text)

    def begin(self, name: str, call_id: str = "") -> None:
        """A call starts."""
        self._open = ToolCall(len(self._done), name, "", call_id)
        if self._stream_arguments:
            self._events.append(ToolCallStart(self._open.index, name, call_id))

    def arguments(self, fragment: str) -> None:
        """More of the call's arguments."""
        assert self._open is not None
        self._fragments.append(fragment)
        if self._stream_arguments:
            self._events.append(ToolCallDelta(self._open.index, fragment))

    def end(self, call_id: str = "") -> None:
        """The call is whole."""
        call = self._open
        assert call is not None
        whole = ToolCall(call.index, call.name, "".join(self._fragments), call_id or call.id)
        self._fragments.clear()
        self._open = None
        self._done.append(whole)
        self._after_something = True
        self._events.append(ToolCallEnd(whole.index, whole.id) if self._stream_arguments else whole)
        self.reader.record()  # what is malformed from here on does not take this call back

    def guarded(
        self, read: Callable[[Reader, Calls], Steps[None]], so_far: str = ""
    ) -> Steps[bool]:
        """Run a reader of calls; True if all of it was sound. See `Channels`."""
        self.reader.record(so_far)
        try:
            yield from read(self.reader, self)
        except Malformed as problem:
            raw = self.reader.recorded()
            self._void(problem)
            self._text.write(raw)
            return False
        self.reader.recorded()
        return True

    def _void(self, problem: Malformed) -> None:
        index = None if self._open is None or not self._stream_arguments else self._open.index
        self._open = None
        self._fragments.clear()
        if problem.kind is None:
            return
        note = ParseNote(problem.kind, problem.message)
        self._note(note)
        self._events.append(MalformedCall(note, index))

    def _note(self, note: ParseNote) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(note)

    def _emit_text(self, text: str) -> None:
        self._content.append(text)
        self._events.append(TextDelta(text))

    def _emit_reasoning(self, text: str) -> None:
        self._reasoning.append(text)
        self._events.append(ReasoningDelta(text))

    # -- the loop ------------------------------------------------------------------------------

    def _run(self) -> Steps[None]:
        yield  # the constructor is not over yet
        if self._format is not None and self._format.drive is not None:
            yield from self._format.drive(self, self._prompt)
        else:
            yield from self._generic()
        if self._done:
            self._text.drop_held()
        self._text.flush()

    def _generic(self) -> Steps[None]:
        style = self._style
        if style is not None and self._continues_thought:
            yield from self._think(style, "")
        elif style is not None and not self._text.started and style.opened_by(self._prompt):
            opening = ""
            if self.inline or style.opening_is_reasoning:
                opening = (style.opening or style.start) + "\n"
            yield from self._think(style, opening)
        stops = Markers((*self._starts(), *self._drops(), *self._anywhere()))
        fresh = not self._text.started  # an answer, or what follows a call, begins here
        while True:
            if fresh and (yield from self._fresh()):
                continue
            self._keep_space()
            marker = yield from self.reader.until(stops, self._text.write)
            if marker is None:
                return
            fresh = yield from self._at_marker(marker)

    def _fresh(self) -> Steps[bool]:
        """Look for what may stand only at a beginning; whether there was something."""
        space = yield from self.reader.skip_space()
        style = self._style
        if style is not None and not style.anywhere:
            found = yield from self.reader.accept(style.start, style.end)
            if found == style.start:
                yield from self._think(style, found if self.inline else "")
                return True
            if found is not None:
                return True  # reasoning that was closed without being opened is empty
        if self._format is not None and self._format.bare:
            read = self._format.read
            assert read is not None
            if (yield from self.reader.at(Markers(self._format.bare))) is not None:
                started = self._text.started
                self._keep_space()
                sound = yield from self.guarded(lambda r, c: read(r, c, ""), space)
                if sound:
                    self._text.started = started
                return sound
        if self._json_answer and (yield from self.reader.accept(*_FENCES)) is not None:
            yield from self.reader.skip_space()
            yield from self.reader.until(markers("```"), self._text.write)
            self._text.drop_held()
            return True
        self._keep_space()
        self._text.write(space)
        return False

    def _keep_space(self) -> None:
        """Without reasoning or calls before it, white space at the beginning is the model's."""
        if not self._after_something:
            self._text.started = True

    def _at_marker(self, marker: str) -> Steps[bool]:
        """Deal with a marker in the visible text; whether what follows is a new beginning."""
        style, tool_format = self._style, self._format
        if tool_format is not None and marker in tool_format.starts:
            yield from self._call(tool_format, marker)
            return True
        if style is not None and style.anywhere and marker == style.start:
            yield from self._think(style, marker if self.inline else "")
            return True
        return False

    def _call(self, tool_format: ToolFormat, marker: str) -> Steps[None]:
        read = tool_format.read
        assert read is not None
        if (yield from self.guarded(lambda r, c: read(r, c, marker), marker)):
            return
        # The rest of what was to be a call is text as well, up to where it, or another, ends.
        ends = Markers((*tool_format.ends, *tool_format.starts))
        if not tool_format.ends:
            return
        while True:
            found = yield from self.reader.until(ends, self._text.write)
            if found is None or found in tool_format.ends:
                self._text.write(found or "")
                return
            if (yield from self.guarded(lambda r, c, m=found: read(r, c, m), found)):  # type: ignore[misc]
                return

    def _think(self, style: ReasoningStyle, opening: str) -> Steps[None]:
        """Read reasoning up to its end."""
        self._after_something = True
        self._text.started |= self.inline
        self.reasoning(opening)
        tool_format = self._format
        calls: tuple[str, ...] = ()
        if tool_format is not None and tool_format.ends_reasoning:
            calls = tool_format.starts
        stops = Markers((style.end, *calls))
        while True:
            found = yield from self.reader.until(stops, self.reasoning)
            if found in calls and found is not None and tool_format is not None:
                yield from self._call(tool_format, found)
                continue
            break
        if self.inline:
            self._text.write(found or "")
        self._thought.drop_held()
        if found is None and not calls:
            self._note(ParseNote("unclosed_reasoning", "the answer ends inside its reasoning"))

    def _starts(self) -> tuple[str, ...]:
        return () if self._format is None else self._format.starts

    def _drops(self) -> tuple[str, ...]:
        of_style = () if self._style is None or self.inline else self._style.drops
        return (*of_style, *(() if self._format is None else self._format.drops))

    def _anywhere(self) -> tuple[str, ...]:
        style = self._style
        return (style.start,) if style is not None and style.anywhere else ()


def parse_output(
    text: str,
    tool_format: ToolFormat | None,
    reasoning: ReasoningStyle | None = None,
    **options: Any,
) -> ParsedOutput:
    """The parts of a whole answer; options as of `OutputParser`."""
    parser = OutputParser(tool_format, reasoning, **options)
    parser.feed(text)
    parser.finish()
    return parser.result()
