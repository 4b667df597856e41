# SPDX-License-Identifier: Apache-2.0
"""What a tool-call syntax is, and the pieces its readers are made of.

A syntax is one file in `tool_formats/` with a `FORMAT`. Its `read` is called where one of its
`starts` was found and reads on from there, telling `Calls` what it finds and raising `Malformed`
when it is none. What happens to the text then, and to text around calls, is `output_parser.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from freehold.chat.parse_json import json_members, json_text, json_value
from freehold.chat.parse_reader import MAX_NAME_LENGTH, Malformed, Reader, Sink, Steps
from freehold.chat.tool_schema import ToolSchemas, typed_value


@dataclass(frozen=True)
class Evidence:
    """What is known about a model: its chat template's source, its vocabulary's special texts."""

    template: str = ""
    tokens: frozenset[str] = frozenset()

    def has(self, *texts: str) -> bool:
        """Whether all of them are written in the template."""
        return all(text in self.template for text in texts)


class Calls(Protocol):
    """Where readers put what they find."""

    tools: ToolSchemas

    def begin(self, name: str, call_id: str = "") -> None:
        """A call of this name starts."""

    def arguments(self, fragment: str) -> None:
        """More JSON text of its arguments."""

    def end(self, call_id: str = "") -> None:
        """The call is whole; nothing after it can undo it."""


class Channels(Protocol):
    """What a format that structures the whole answer works on."""

    reader: Reader
    calls: Calls
    inline: bool  # leave reasoning in the content, markers and all

    def content(self, text: str) -> None:
        """Visible text."""

    def reasoning(self, text: str) -> None:
        """Reasoning."""

    def guarded(
        self, read: Callable[[Reader, Calls], Steps[None]], so_far: str = ""
    ) -> Steps[bool]:
        """Run a reader; what it read comes back as content if it is malformed (False)."""


Read = Callable[[Reader, Calls, str], Steps[None]]
NUMBER = "\0"  # in a `CallSyntax`: the digits of a call's number


@dataclass(frozen=True)
class CallSyntax:
    """How calls with JSON arguments are written, for a grammar that makes them be.

    ``opens before NAME between {…} after separator before NAME … closes``. A name that is in
    quotes is escaped as JSON.

    Attributes:
        marker: literal that the first call begins with; no text for people holds it. "" = none.
        several: whether one answer may hold more than one call.
    """

    before: str
    between: str
    after: str
    marker: str = ""
    opens: str = ""
    closes: str = ""
    separator: str = ""
    several: bool = True


def json_syntax(
    marker: str = "", *, opens: str = "", closes: str = "", head: str = '{"name": "',
    arguments: str = "arguments", foot: str = "}", separator: str = ", ", several: bool = True,
) -> CallSyntax:  # fmt: skip
    """Calls that are JSON objects of a name and arguments."""
    return CallSyntax(
        head, f'", "{arguments}": ', foot, marker=marker, opens=opens, closes=closes,
        separator=separator, several=several,
    )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """How a format that structures the whole answer writes a thought and what it answers."""

    thought: tuple[str, str]  # literals round a thought
    answer: str  # literal before the visible answer


@dataclass(frozen=True)
class ToolFormat:
    """One syntax.

    Attributes:
        detect: how sure the evidence makes one of this syntax; 0 = not at all, higher wins.
        starts: literals that begin calls, each handed to `read` when found.
        ends: literals that close a call; text of a malformed call is taken to reach so far.
        bare: literals that may begin a call without a marker, at the beginning of the answer only.
        drops: literals that carry no meaning where text is expected and are left out.
        ends_reasoning: a start inside reasoning is a call, not a thought about one.
        drive: reads the whole answer in place of the generic loop.
        visible: control tokens to be shown to the parser, beyond those named above.
        syntax: how calls are written, where a grammar can say so.
        frame: with `drive`, what a grammar has to know of the rest.
    """

    name: str
    detect: Callable[[Evidence], int]
    read: Read | None = None
    starts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    ends_reasoning: bool = False
    drive: Callable[[Channels, str], Steps[None]] | None = None
    visible: tuple[str, ...] = ()
    syntax: CallSyntax | None = None
    frame: Frame | None = None

    def markers(self) -> frozenset[str]:
        """Every literal that has to reach the parser although it may be a control token."""
        return frozenset((*self.starts, *self.ends, *self.drops, *self.visible))


def checked_name(name: str) -> str:
    """The name of a tool, or Malformed."""
    name = name.strip()
    if not name or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise Malformed("bad_name", f"a call names no tool: {name!r:.60}")
    return name


# -- calls written as JSON objects -------------------------------------------------------------


@dataclass(frozen=True)
class Keys:
    """Under which keys the parts of a call stand."""

    name: tuple[str, ...] = ("name",)
    arguments: tuple[str, ...] = ("arguments", "parameters")
    id: tuple[str, ...] = ("id",)


@dataclass
class _Found:
    name: str = ""
    id: str = ""
    held: str | None = None  # arguments, if they came before the name
    complete: bool = False  # the arguments are known


def json_call(reader: Reader, calls: Calls, keys: Keys = Keys()) -> Steps[None]:
    """One object with name and arguments; does not `end` the call's wrapper, only the call."""
    found = _Found()
    yield from _members(reader, calls, keys, found)
    if not found.name:
        raise Malformed("bad_name", "a call names no tool")
    if not found.complete:
        calls.arguments("{}")
    calls.end(found.id)


def _members(reader: Reader, calls: Calls, keys: Keys, found: _Found) -> Steps[None]:
    def member(key: str) -> Steps[None]:
        yield from reader.skip_space()
        if key in keys.name or key == "function":
            if (yield from reader.peek()) == "{":
                if key != "function":
                    raise Malformed("bad_name", "a call's name is no text")
                yield from _members(reader, calls, keys, found)
                return
            value = json.loads((yield from json_text(reader)))
            if not isinstance(value, str) or found.name:
                raise Malformed("bad_name", "a call's name is no text, or there are two")
            found.name = checked_name(value)
            calls.begin(found.name, found.id)
            if found.held is not None:
                calls.arguments(found.held)
        elif key in keys.arguments:
            if found.complete:
                raise Malformed("bad_arguments", "a call has its arguments twice")
            found.complete = True
            if found.name:
                yield from json_arguments(reader, calls.arguments)
            else:
                held: list[str] = []
                yield from json_arguments(reader, held.append)
                found.held = "".join(held)
        elif key in keys.id:
            value = json.loads((yield from json_text(reader)))
            found.id = str(value) if isinstance(value, (str, int)) else ""
        else:
            yield from json_value(reader, lambda _: None)

    yield from json_members(reader, member)


def json_arguments(reader: Reader, emit: Sink) -> Steps[None]:
    """The arguments' object; also null, or an object written as a string."""
    yield from reader.skip_space()
    first = yield from reader.peek()
    if first == "{":
        yield from json_value(reader, emit)
        return
    text = yield from json_text(reader)
    value = json.loads(text)
    if value is None or value == "":
        emit("{}")
    elif isinstance(value, str):
        emit(object_text(value))
    else:
        raise Malformed("bad_arguments", f"a call's arguments are no object: {text!r:.60}")


def object_text(text: str) -> str:
    """JSON text of an object that is written in `text`, or Malformed."""
    inner = Reader()
    inner.feed(text)
    inner.end()
    parts: list[str] = []

    def read() -> Steps[None]:
        yield from json_value(inner, parts.append)
        yield from inner.skip_space()
        if (yield from inner.peek()) or not parts[0].startswith("{"):
            raise Malformed("bad_arguments", "a call's arguments are no object")

    for _ in read():
        raise AssertionError("a reader at its end asked for more")
    return "".join(parts)


def json_calls(reader: Reader, calls: Calls, keys: Keys = Keys()) -> Steps[None]:
    """One object, or a list of them."""
    yield from reader.skip_space()
    if (yield from reader.accept("[")) is None:
        yield from json_call(reader, calls, keys)
    else:
        yield from json_list(reader, calls, keys)


def json_list(reader: Reader, calls: Calls, keys: Keys = Keys()) -> Steps[None]:
    """The rest of a list of objects whose bracket was read."""
    yield from reader.skip_space()
    if (yield from reader.accept("]")) is not None:
        return
    while True:
        yield from json_call(reader, calls, keys)
        yield from reader.skip_space()
        if (yield from reader.need(",", "]")) == "]":
            return
        yield from reader.skip_space()


def closing(reader: Reader, *ends: str) -> Steps[None]:
    """The end marker of calls that are whole. May be missing where the answer ends."""
    yield from reader.skip_space()
    if (yield from reader.accept(*ends)) is None and not (yield from reader.at_end()):
        raise Malformed("stray_text", f"text between a call and its {ends[0]}")


def json_between(
    name: str,
    start: str,
    end: str,
    detect: Callable[[Evidence], int],
    *,
    keys: Keys = Keys(),
    more_starts: Sequence[str] = (),
    drops: tuple[str, ...] = (),
    syntax: CallSyntax | None = None,
) -> ToolFormat:
    """A format whose calls are JSON, one object or a list, between two markers."""

    def read(reader: Reader, calls: Calls, marker: str) -> Steps[None]:
        yield from json_calls(reader, calls, keys)
        if end:
            yield from closing(reader, end)

    return ToolFormat(
        name, detect, read, starts=(start, *more_starts), ends=(end,) if end else (), drops=drops,
        syntax=syntax,
    )  # fmt: skip


# -- calls written as marked-up parameters -----------------------------------------------------


def begin_parameters(calls: Calls, name: str, call_id: str = "") -> Callable[[str, str], None]:
    """Start a call whose parameters come one by one; returns what to tell them to.

    The returned function takes a key and the JSON text of its value; an empty key closes the
    object and ends the call.
    """
    name = checked_name(name)
    calls.begin(name, call_id)
    seen: set[str] = set()
    calls.arguments("{")

    def add(key: str, value: str) -> None:
        if not key:
            calls.arguments("}")
            calls.end()
            return
        if key in seen:
            raise Malformed("bad_arguments", f"a call has the parameter {key!r:.60} twice")
        calls.arguments(f"{', ' if seen else ''}{json.dumps(key, ensure_ascii=False)}: {value}")
        seen.add(key)

    return add


def value_by_schema(calls: Calls, tool: str, key: str, text: str) -> str:
    """JSON text of a parameter written as plain text, by what the tool's schema says it is."""
    return typed_value(text, calls.tools.parameter(tool, key))


def attribute(header: str, name: str) -> str:
    """The value of ``name=…`` in a tag's header; quotes of either kind, or none."""
    head, found, rest = header.partition(name + "=")
    if not found or (head and not head[-1].isspace()):
        raise Malformed("bad_syntax", f"a tag of a call has no {name}: {header!r:.60}")
    if rest[:1] in ("'", '"'):
        value, closed, _ = rest[1:].partition(rest[0])
        if not closed:
            raise Malformed("bad_syntax", f"a tag of a call has an open quote: {header!r:.60}")
        return value
    return rest.split(maxsplit=1)[0] if rest.strip() else ""


def tool_definitions(tools: Sequence[Mapping[str, Any]] | None) -> ToolSchemas:
    """The tools of a request, by name."""
    return ToolSchemas(tools or ())
