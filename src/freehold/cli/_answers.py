# SPDX-License-Identifier: Apache-2.0
"""A running answer on the terminal: the text as data, the thought before it as a remark.

Thoughts go to stderr, so a pipe or a file gets the answer alone. Knows events, no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from freehold.cli import console

if TYPE_CHECKING:
    from freehold.types import Completion, StreamEvent


class AnswerPrinter:
    """Prints the events of one answer. `thinking` shows the thought, `text` the answer."""

    def __init__(self, *, thinking: bool, text: bool = True) -> None:
        self._thinking = thinking
        self._text = text
        self._in_thought = False
        self._pieces: list[str] = []

    @property
    def shown(self) -> str:
        """The answer so far, without the thought."""
        return "".join(self._pieces)

    def show(self, event: StreamEvent) -> Completion | None:
        """Print one event; the completion when it was the last."""
        if event.reasoning and self._thinking:
            console.aside(event.reasoning)
            self._in_thought = True
        # Nothing was offered to call here: a call is shown as the model meant it.
        calls = "".join(f"{call.name}({call.arguments})\n" for call in event.tool_calls)
        text = event.text + calls
        if text or event.completion is not None:
            self.end_thought()
        if text:
            self._pieces.append(text)
            if self._text:
                console.data(text, end="")
        return event.completion

    def end(self) -> None:
        """Close the last line."""
        self.end_thought()
        if self._text and not self.shown.endswith("\n"):
            console.data("")

    def end_thought(self) -> None:
        """Leave the thought's line, if one is open."""
        if self._in_thought:
            console.note("")
            self._in_thought = False
