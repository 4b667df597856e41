# SPDX-License-Identifier: Apache-2.0
"""What comes out of a model's answer once it is taken apart: text, reasoning, tool calls, notes.

Plain values only. How they are found is `output_parser.py`, `reasoning.py` and `tool_formats/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from freehold.types import NoteKind, ParseNote, ToolCall

__all__ = [
    "Event",
    "MalformedCall",
    "NoteKind",
    "ParseNote",
    "ParsedOutput",
    "ReasoningDelta",
    "TextDelta",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "merge_events",
]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the visible answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins (only with `stream_arguments`). A later `ToolCallEnd` may bring the id."""

    index: int
    name: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the arguments' JSON text (only with `stream_arguments`)."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The call is whole (only with `stream_arguments`)."""

    index: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class MalformedCall:
    """What looked like a call was none; its text follows as `TextDelta`.

    `index` names a call that was started and is void now; None where none was started.
    """

    note: ParseNote
    index: int | None = None


Event: TypeAlias = (
    TextDelta | ReasoningDelta | ToolCall | ToolCallStart | ToolCallDelta | ToolCallEnd
    | MalformedCall
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """An answer, or as much of it as is known."""

    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    notes: tuple[ParseNote, ...] = ()


def merge_events(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring pieces joined: independent of how the text came in."""
    merged: list[Event] = []
    run: list[str] = []

    def close() -> None:
        if run:
            last = merged[-1]
            text = "".join(run)
            if isinstance(last, TextDelta):
                merged[-1] = TextDelta(text)
            elif isinstance(last, ReasoningDelta):
                merged[-1] = ReasoningDelta(text)
            elif isinstance(last, ToolCallDelta):
                merged[-1] = ToolCallDelta(last.index, text)
            run.clear()

    for event in events:
        piece = _piece(event)
        same = merged and type(merged[-1]) is type(event) and piece is not None
        if same and getattr(merged[-1], "index", None) == getattr(event, "index", None):
            run.append(piece or "")
            continue
        close()
        merged.append(event)
        if piece is not None:
            run.append(piece)
    close()
    return merged


def _piece(event: Event) -> str | None:
    if isinstance(event, (TextDelta, ReasoningDelta)):
        return event.text
    return event.arguments if isinstance(event, ToolCallDelta) else None
