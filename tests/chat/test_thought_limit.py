# SPDX-License-Identifier: Apache-2.0
"""Thoughts end where their budget does, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import tiny_chat
from freehold.chat.answer_format import AnswerFormat
from freehold.chat.reasoning import ReasoningStyle
from freehold.chat.thought_limit import ThoughtLimit
from freehold.chat.tokenizer import Tokenizer, load_tokenizer
from freehold.chat.tool_formats import tool_format
from freehold.errors import InvalidParameterError
from freehold.formats.checkpoint import open_checkpoint

THINK = ReasoningStyle("think", "<think>", "</think>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Iterator[Tokenizer]:
    with open_checkpoint(tiny_chat.write(tmp_path_factory.mktemp("m") / "m.gguf")) as checkpoint:
        yield load_tokenizer(checkpoint)


def run(limit: ThoughtLimit, tokenizer: Tokenizer, wanted: str, steps: int = 200) -> str:
    """What comes out where a model wants to write `wanted`, token by token."""
    plan = tokenizer.encode(wanted, add_special=False)
    ids: list[int] = []
    at = 0
    for _ in range(steps):
        if at == len(plan):
            break
        logits = np.zeros(tokenizer.vocab_size, np.float32)
        logits[plan[at]] = 5.0
        ids.append(int(limit(ids, logits).argmax()))
        at += ids[-1] == plan[at]
    return tokenizer.decode(ids)


@pytest.mark.parametrize("budget", [0, 1, 5, 9])
@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_is_ended_when_its_budget_is_spent(tokenizer, budget, opened):
    limit = ThoughtLimit(AnswerFormat(None, THINK), tokenizer, "<think>" if opened else "", budget)
    start = "" if opened else " <think>"
    text = run(limit, tokenizer, start + "x" * 30)
    assert text == start + "x" * budget + "</think>" + "x" * (30 - budget)


def test_a_thought_that_ends_in_time_and_the_text_after_are_left_alone(tokenizer):
    limit = ThoughtLimit(AnswerFormat(None, THINK), tokenizer, "<think>\n", 12)
    wanted = "ab</think>" + "and <think> is a word" * 3
    assert run(limit, tokenizer, wanted) == wanted


def test_an_answer_without_a_thought_is_left_alone(tokenizer):
    limit = ThoughtLimit(AnswerFormat(None, THINK), tokenizer, "", 2)
    wanted = "No <think> at the beginning, so there is none."
    assert run(limit, tokenizer, wanted) == wanted


def test_marks_that_count_anywhere_have_a_budget_each(tokenizer):
    style = ReasoningStyle("m", "[T]", "[/T]", anywhere=True)
    limit = ThoughtLimit(AnswerFormat(None, style), tokenizer, "", 3)
    assert run(limit, tokenizer, "a[T]xx[/T]b[T]yyyyy") == "a[T]xx[/T]b[T]yyy[/T]yy"


def test_ends_that_are_control_tokens_are_written_as_such(tokenizer):
    style = ReasoningStyle("m", "<|im_start|>", "<|im_end|>", anywhere=True)
    limit = ThoughtLimit(AnswerFormat(None, style), tokenizer, "<|im_start|>", 2)
    ids = tokenizer.encode("ab", add_special=False)
    forced = limit(ids, np.zeros(tokenizer.vocab_size, np.float32))
    assert np.flatnonzero(np.isfinite(forced)).tolist() == [tokenizer.token_id("<|im_end|>")]


def test_guesses_that_are_taken_back_are_forgotten(tokenizer):
    limit = ThoughtLimit(AnswerFormat(None, THINK), tokenizer, "<think>", 3)
    logits = np.zeros(tokenizer.vocab_size, np.float32)
    ids = tokenizer.encode("xyz", add_special=False)
    assert not np.isfinite(limit(ids, logits)).all()
    assert np.isfinite(limit(ids[:2], logits)).all()
    assert not np.isfinite(limit(ids, logits)).all()


def test_channels_have_a_budget_too_and_models_without_thoughts_none(tokenizer):
    harmony = AnswerFormat(tool_format("harmony"), None)
    limit = ThoughtLimit(harmony, tokenizer, "", 2)
    text = run(limit, tokenizer, "<|channel|>analysis<|message|>xxxx")
    assert text.startswith("<|channel|>analysis<|message|>xx<|end|>")
    with pytest.raises(InvalidParameterError, match="no thoughts"):
        ThoughtLimit(AnswerFormat(None, None), tokenizer, "", 2)
