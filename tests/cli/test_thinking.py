# SPDX-License-Identifier: Apache-2.0
"""Thoughts at the terminal: beside the answer, never in it and never in the conversation."""

from __future__ import annotations

import io
import sys

import pytest

from freehold.chat.answer_format import AnswerFormat
from freehold.chat.output_parser import OutputParser
from freehold.chat.reasoning import detect_reasoning
from freehold.chat.tool_format import Evidence
from freehold.cli import chat, options
from freehold.cli._answers import AnswerPrinter
from freehold.types import Completion, SamplingParams, StreamEvent, ToolCall


def completion(text: str) -> Completion:
    return Completion(
        text=text, token_ids=(1,), finish_reason="stop", prompt_token_ids=(1, 2),
        prefill_seconds=0.1, decode_seconds=0.1,
    )  # fmt: skip


EVENTS = (
    StreamEvent("", reasoning="Let me "),
    StreamEvent("", reasoning="see."),
    StreamEvent("It is "),
    StreamEvent("four.", completion=completion("It is four.")),
)


class Scripted:
    """An `LLM` that answers the same to everything and remembers what it was told."""

    path = "scripted.gguf"
    context_length = 100
    answer_format = AnswerFormat(None, detect_reasoning(Evidence("<think> </think>", frozenset())))

    def __init__(self, events=EVENTS) -> None:
        self.events = events
        self.seen: list[list[dict[str, str]]] = []
        self.parsed: list[bool] = []

    def chat(self, messages, params, *, parse, stream):
        self.seen.append(list(messages))
        self.parsed.append(parse)
        return (event for event in self.events)

    def context_is_full(self, completion) -> bool:
        return False


def talk(thinking: bool, monkeypatch, said: str = "two and two?\nsure?\n") -> Scripted:
    llm = Scripted()
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    chat.Session(llm, SamplingParams(), None, False, thinking).run()  # type: ignore[arg-type]
    return llm


@pytest.mark.parametrize("thinking", [True, False])
def test_the_answer_alone_is_data_and_history(thinking, monkeypatch, capsys):
    llm = talk(thinking, monkeypatch)
    out, err = capsys.readouterr()
    assert out == "It is four.\nIt is four.\n"
    assert err == ("Let me see.\n" * 2 if thinking else "")
    assert llm.seen[1][1] == {"role": "assistant", "content": "It is four."}
    assert llm.parsed == [True, True]


def test_an_answer_that_is_all_thought_ends_its_line(capsys):
    printer = AnswerPrinter(thinking=True)
    printer.show(StreamEvent("", reasoning="hm"))
    printer.show(StreamEvent("", completion=completion("")))
    printer.end()
    out, err = capsys.readouterr()
    assert (out, err) == ("\n", "hm\n")


def test_a_call_nobody_offered_is_shown(capsys):
    printer = AnswerPrinter(thinking=True)
    printer.show(StreamEvent("", tool_calls=(ToolCall(0, "add", '{"a": 2}'),)))
    printer.end()
    assert capsys.readouterr().out == 'add({"a": 2})\n'


def test_shown_on_a_terminal_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert options.shows_thinking(None)
    assert not options.shows_thinking(False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert not options.shows_thinking(None)
    assert options.shows_thinking(True)


def test_a_plain_model_is_not_parsed():
    assert AnswerFormat(None, None).plain
    assert not Scripted.answer_format.plain
    assert isinstance(Scripted.answer_format.parser(), OutputParser)
