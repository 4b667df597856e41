# SPDX-License-Identifier: Apache-2.0
"""Tasks: what is asked, how answers become values, and that one failure is one document's."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import tiny_chat
from freehold import LLM
from freehold.documents import classify, complete_functions, extract, prompts, summarize
from freehold.documents.asking import ask
from freehold.documents.tasks.code import unfinished_function
from freehold.documents.tasks.extract import parse_fields
from freehold.errors import (
    AnswerError,
    ContextLengthError,
    InvalidParameterError,
    TemplateError,
)
from freehold.types import Completion, SamplingParams


class Scripted:
    """Stands where an `LLM` stands: one token per character, answers from a function."""

    path = "scripted"
    has_chat_template = True
    context_length = 1000

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.batches: list[int] = []
        self.seen: list[SamplingParams] = []
        self.tokenizer = SimpleNamespace(encode=lambda text, add_special: list(text))

    def chat_ids(self, messages: prompts.Messages) -> list[int]:
        return [ord(character) for character in messages[-1]["content"]]

    def chat(
        self, conversations: Sequence[prompts.Messages], params: SamplingParams
    ) -> list[Completion]:
        self.batches.append(len(conversations))
        self.seen.append(params)
        done = []
        for messages in conversations:
            prompt = messages[-1]["content"]
            text = self.answer(prompt)
            cut = text[: params.max_tokens]
            done.append(
                Completion(
                    cut, tuple(map(ord, cut)), "stop" if cut == text else "length",
                    tuple(map(ord, prompt)), cached_tokens=3,
                )
            )  # fmt: skip
        return done


def always(text: str) -> Any:
    return Scripted(lambda prompt: text)


def error_of(answer: Any) -> str:
    assert answer.value is None
    assert isinstance(answer.error, AnswerError)
    return answer.error.message


# -- asking --------------------------------------------------------------------------------------


def test_answers_keep_their_order_and_failures_their_place():
    texts = [f"text {i}" for i in range(70)]
    texts[40] = "x" * 2000
    llm: Any = Scripted(lambda prompt: "" if "text 7" in prompt else prompt[-7:])
    steps: list[tuple[int, int]] = []
    answers = summarize(llm, texts, lambda done, total: steps.append((done, total)))
    assert [a.value for a in answers[:7]] == [text[-7:] for text in texts[:7]]
    assert answers[69].value == "text 69"
    assert error_of(answers[7]) == "the answer is empty"
    assert isinstance(answers[40].error, ContextLengthError)
    assert "1,000" in answers[40].error.message
    assert answers[40].prompt_tokens == 0
    assert len(llm.batches) > 1
    assert sum(llm.batches) == 69
    assert steps[-1] == (70, 70)
    assert answers[0].cached_tokens == 3
    assert answers[0].answer_tokens == 7
    assert all(params.temperature == 0 for params in llm.seen)


def test_an_answer_that_does_not_end_is_no_answer():
    (answer,) = summarize(always("a " * 500), ["text"])
    assert "did not end" in error_of(answer)
    assert answer.text.startswith("a a")


def test_nothing_to_ask_is_no_work():
    llm = always("x")
    assert summarize(llm, []) == []
    assert llm.batches == []


def test_a_model_without_a_template_is_refused(tmp_path):
    path = tiny_chat.write(tmp_path / "m.gguf", template=None)
    with LLM(path, backend="reference") as llm, pytest.raises(TemplateError):
        summarize(llm, ["text"])


def test_a_model_sees_the_canonical_words(tmp_path):
    with LLM(tiny_chat.write(tmp_path / "m.gguf", context=256), backend="reference") as llm:
        short, long = ask(
            llm, [prompts.summarize("text"), prompts.summarize("text " * 80)],
            lambda index, text: text, max_tokens=3,
        )  # fmt: skip
        asked = llm.tokenizer.encode(
            f"<|im_start|>user\n{prompts.summarize('text')[0]['content']}<|im_end|>\n"
            "<|im_start|>assistant\n",
            parse_special=True,
        )
    assert short.prompt_tokens == len(asked)
    assert short.answer_tokens == 3
    assert isinstance(long.error, ContextLengthError)


# -- classify ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Billing", " billing\n", "BILLING", "billing."])
def test_a_label_is_found(text):
    (answer,) = classify(always(text), ["text"], ["Billing", "Late delivery"])
    assert answer.value == "Billing"


@pytest.mark.parametrize("text", ["", "refund", "bill", "billing, x"])
def test_what_is_no_label_is_shown(text):
    (answer,) = classify(always(text), ["text"], ["billing", "delivery"])
    assert repr(text) in error_of(answer)
    assert answer.text == text


def test_no_room_for_more_than_a_label():
    llm = always("x" * 100)
    (answer,) = classify(llm, ["text"], ["billing", "delivery"])
    assert len(answer.text) < len("delivery") + 10
    assert "did not end" in error_of(answer)


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "A"], ["a", ""]])
def test_labels_that_cannot_be_told_apart(labels):
    with pytest.raises(InvalidParameterError):
        classify(always("a"), ["text"], labels)


# -- extract -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "1", "b": null}', {"a": "1", "b": None}),
        ('{"b": "x", "a": "1"}', {"a": "1", "b": "x"}),
        ('```json\n{"a": 12.50, "b": true}\n```', {"a": "12.50", "b": "true"}),
        ('{"a": 1e400, "b": 12345678901234567890123}',
         {"a": "1e400", "b": "12345678901234567890123"}),
    ],
)  # fmt: skip
def test_fields_are_values_as_they_are_spelled(text, value):
    (answer,) = extract(always(text), ["text"], ["a", "b"])
    assert answer.value == value
    assert list(answer.value) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": "1", "b": ', "not JSON"), ("", "not JSON"), ("[1]", "no object"),
        ('Here: {"a": "1", "b": "2"}', "not JSON"), ('{"a": "1"}', "lacks b"),
        ('{"a": "1", "b": "2", "c": "3"}', "has c"), ('{"a": "1", "a": "2", "b": "3"}', "twice"),
        ('{"a": ["1"], "b": "2"}', "no plain value for a"), ('{"a": NaN, "b": "2"}', "NaN"),
        ('{"a": {"a": 1, "b": 2}, "b": "2"}', "no plain value"), ("[" * 100_000, "deep"),
        ('{"a": "\\ud800", "b": "2"}', "no plain value for a"),
    ],
)  # fmt: skip
def test_other_answers_are_refused_with_a_reason(text, reason):
    with pytest.raises(AnswerError, match=reason):
        parse_fields(text, ["a", "b"])


@pytest.mark.parametrize("fields", [[], ["a", "a"], [""]])
def test_fields_that_cannot_be_asked_for(fields):
    with pytest.raises(InvalidParameterError):
        extract(always("{}"), ["text"], fields)


def test_summaries_are_one_line():
    (answer,) = summarize(always(" Two\n\n lines. \n"), ["text"])
    assert answer.value == "Two lines."


# -- code ----------------------------------------------------------------------------------------

BEGINNING = 'def double(x):\n    """Return twice x."""\n'


@pytest.mark.parametrize("text", [
    "    return 2 * x", "return 2 * x\n", "\n    return 2 * x\n\n",
    "```python\n    return 2 * x\n```",
])  # fmt: skip
def test_a_body_completes_a_function(text):
    (answer,) = complete_functions(always(text), [BEGINNING])
    assert answer.value == BEGINNING + "    return 2 * x\n"
    scope: dict[str, Any] = {}
    exec(answer.value, scope)
    assert scope["double"](4) == 8


@pytest.mark.parametrize("text", ["", "   ", "    return (", "Sure! Here it is", "(" * 5000])
def test_what_is_no_body_is_refused(text):
    (answer,) = complete_functions(always(text), [BEGINNING])
    assert answer.value is None
    assert isinstance(answer.error, AnswerError)


def test_an_unfinished_function_is_found():
    head = "import math\n\n\n" + BEGINNING
    assert unfinished_function(f"# Note\n\n```python\n{head}```\n") == head.rstrip()
    for other in (
        "no code", "```python\nx = 1\n```", "```\n" + BEGINNING + "```",
        "```python\n" + BEGINNING, "```python\ndef f(x):\n    return x\n```",
        "```python\n" + BEGINNING + "    return 2 * x\n```", "```python\ndef f(:\n```",
        "```python\ndef f(): pass\n```", "```python\n" + "(" * 10_000 + "\n```",
        "```python\n```",
    ):  # fmt: skip
        assert unfinished_function(other) is None, other[:60]


def test_doubtful_escapes_in_a_document_warn_nobody(recwarn):
    text = '```python\ndef f(x):\n    "\\d"\n```'
    assert unfinished_function(text) is not None
    assert not recwarn.list


def test_answers_are_plain_values():
    (answer,) = extract(always('{"a": "1"}'), ["text"], ["a"])
    assert json.loads(json.dumps(answer.value)) == {"a": "1"}
