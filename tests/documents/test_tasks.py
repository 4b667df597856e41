# SPDX-License-Identifier: Apache-2.0
"""Tasks: what is asked, how answers become values, and that one failure is one document's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted import Scripted, always

import tiny_chat
from freehold import LLM
from freehold.documents import (
    Classify,
    Code,
    Extract,
    LLMAsker,
    Summarize,
    classify,
    complete_functions,
    extract,
    prompts,
    summarize,
    tasks,
)
from freehold.documents.asking import Usage
from freehold.documents.tasks.code import unfinished_function
from freehold.errors import (
    AnswerError,
    ContextLengthError,
    InvalidParameterError,
    TemplateError,
)
from freehold.types import Constraint


def error_of(answer: Any) -> str:
    assert answer.value is None
    assert isinstance(answer.error, AnswerError)
    return answer.error.message


# -- specs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        Classify(("a", "b"), abstain_below=0.4),
        Classify(("a",), multi_label=True, threshold=0.3),
        Extract.of_fields(["name", "total"]),
        Summarize(words=80, overlap=2),
        Code(),
    ],
    ids=lambda task: task.name,
)
def test_a_task_is_made_again_from_its_spec(task):
    spec = json.loads(json.dumps(task.spec()))
    again = tasks.from_spec(task.name, spec)
    assert again == task
    assert again.spec() == spec
    with pytest.raises(InvalidParameterError, match="prompts"):
        tasks.from_spec(task.name, {**spec, "prompts": -1})


@pytest.mark.parametrize(("name", "spec"), [("dance", {}), ("classify", {}), ("_x", {})])
def test_what_no_task_has_given_is_refused(name, spec):
    with pytest.raises(InvalidParameterError):
        tasks.from_spec(name, spec)


# -- asking --------------------------------------------------------------------------------------


def test_answers_keep_their_order_and_failures_their_place():
    texts = [f"text {i}" for i in range(100)]
    asker = Scripted(lambda prompt: "" if "text 7" in prompt else prompt[-7:])
    steps: list[tuple[int, int]] = []
    answers = summarize(asker, texts, lambda done, total: steps.append((done, total)))
    assert [a.value["summary"] for a in answers[:7]] == [text[-7:] for text in texts[:7]]
    assert answers[99].value["summary"] == "text 99"
    assert error_of(answers[7]) == "the answer is empty"
    assert len(asker.batches) > 1
    assert steps[-1] == (100, 100)
    assert answers[0].usage == Usage(len(prompts.summarize("text 0")[0]["content"]), 3, 7)


def test_an_answer_that_does_not_end_is_no_answer():
    (answer,) = summarize(always("a " * 500), ["text"])
    assert "did not end" in error_of(answer)


def test_nothing_to_ask_is_no_work():
    asker = always("x")
    assert summarize(asker, []) == []
    assert asker.batches == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tiny_chat.write(tmp_path_factory.mktemp("chat") / "m.gguf", context=512)
    with LLM(path, backend="reference") as llm:
        yield LLMAsker(llm)


def test_a_model_without_a_template_is_refused(tmp_path):
    path = tiny_chat.write(tmp_path / "m.gguf", template=None)
    with LLM(path, backend="reference") as llm, pytest.raises(TemplateError):
        summarize(llm, ["text"])


def test_a_model_sees_the_canonical_words_and_fails_one_by_one(tiny):
    short, long = tiny.chat(
        [prompts.summarize("text"), prompts.summarize("text " * 200)], max_tokens=3
    )
    asked = tiny.llm.tokenizer.encode(
        f"<|im_start|>user\n{prompts.summarize('text')[0]['content']}<|im_end|>\n"
        "<|im_start|>assistant\n",
        parse_special=True,
    )
    assert short.usage.prompt_tokens == len(asked) == tiny.count(prompts.summarize("text"))
    assert short.usage.answer_tokens == 3
    assert isinstance(long.error, ContextLengthError)


def test_a_form_that_cannot_be_kept_fails_its_own_conversation(tiny):
    forms = [Constraint("regex", "ab"), Constraint("lark", "start: ???"), None]
    good, bad, free = tiny.chat(
        [prompts.summarize("text")] * 3, max_tokens=[8, 8, 2], constraint=forms
    )
    assert good.text == "ab"
    assert good.usage.forced_tokens > 0
    assert isinstance(bad.error, InvalidParameterError)
    assert free.usage.answer_tokens == 2
    assert free.usage.forced_tokens == 0


def test_a_digest_tells_models_apart_and_not_where_they_lie(tiny, tmp_path):
    same = tiny_chat.write(tmp_path / "same.gguf", context=512)
    other = tiny_chat.write(tmp_path / "other.gguf", context=511)
    with LLM(same, backend="reference") as llm:
        assert LLMAsker(llm).model_digest == tiny.model_digest
    with LLM(other, backend="reference") as llm:
        assert LLMAsker(llm).model_digest != tiny.model_digest


# -- code ------------------------------------------------------------------------------------------

BEGINNING = 'def double(x):\n    """Return twice x."""\n'


@pytest.mark.parametrize("text", [
    "    return 2 * x", "return 2 * x\n", "\n    return 2 * x\n\n",
    "```python\n    return 2 * x\n```",
])  # fmt: skip
def test_a_body_completes_a_function(text):
    (answer,) = complete_functions(always(text), [BEGINNING])
    code = answer.value["files"]["solution.py"]
    assert answer.value["passed"] is None  # nothing was run
    assert code == BEGINNING + "    return 2 * x\n"
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["double"](4) == 8


@pytest.mark.parametrize("text", ["", "   ", "    return (", "Sure! Here it is", "(" * 200])
def test_what_is_no_body_is_refused(text):
    (answer,) = complete_functions(always(text), [BEGINNING])
    error_of(answer)


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


# -- simple values -------------------------------------------------------------------------------


def test_summaries_are_one_line():
    (answer,) = summarize(always(" Two\n\n lines. \n"), ["text"])
    assert answer.value["summary"] == "Two lines."


def test_answers_are_plain_values():
    for answer in (
        *extract(always('{"a": "1"}'), ["a: 1"], ["a"]),
        *classify(Scripted(), ["text"], ["a", "b"]),
        *summarize(always("x"), ["text"]),
    ):
        assert json.loads(json.dumps(answer.value)) == answer.value


@pytest.mark.parametrize("fields", [[], ["a", "a"], [""]])
def test_fields_that_cannot_be_asked_for(fields):
    with pytest.raises(InvalidParameterError):
        extract(always("{}"), ["text"], fields)
