# SPDX-License-Identifier: Apache-2.0
"""Jobs over real tasks and the built-in model: several blocks share its steps, and the answers are
those of asking one after another; or others answer, and what they said is taken back."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold import LLM, SamplingParams
from freehold.documents import prompts
from freehold.documents.asking import Answer
from freehold.documents.document import Document
from freehold.documents.executors.local import BLOCKS_IN_FLIGHT, LocalExecutor
from freehold.documents.jobs import Identity, Item, JobSummary, Journal, run_job
from freehold.documents.jobs.handover import Handover, take_results
from freehold.documents.llm_asker import LLMAsker
from freehold.documents.shared_asker import SharedAsker, Turns
from freehold.documents.tasks.classify import Classify
from freehold.documents.tasks.summarize import Summarize
from freehold.errors import AnswerError, EngineError, JobError, TemplateError

NOTES = [
    f"Invoice {i} of Acme Ltd to Smith & Sons: {i * 7} boxes of paper, total {i * 13} EUR, due in "
    "May."
    for i in range(40)
]


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("seedling", threads=1, context_length=512) as model:
        yield model


def items(texts: list[str]) -> list[Item]:
    return [Item.of(Document(text, f"{i}.txt", "txt", 1)) for i, text in enumerate(texts)]


def answers(journal: Path) -> list[Any]:
    with Journal.existing(journal) as opened:
        return [row.value if row.error is None else row.error.type for row in opened.rows()]


def run(path: Path, task: Any, texts: list[str], asker: Any, executor: Any = None) -> JobSummary:
    identity = Identity.of(task, asker.model_digest)
    with Journal.open(path, identity) as journal:
        if isinstance(executor, Handover):
            executor.journal = journal
            executor = executor.executor(task, asker)
        return run_job(task, items(texts), executor or LocalExecutor.sharing(asker), journal)


@pytest.mark.parametrize(
    "task", [Summarize(), Classify(("invoice", "letter", "report"))], ids=lambda task: task.name
)
def test_answers_are_those_of_asking_one_by_one(llm: LLM, task: Any, tmp_path: Path) -> None:
    asker = LLMAsker(llm)
    texts = [*NOTES[:24], "word " * 3000, ""]  # one that needs cutting or does not fit
    summary = run(tmp_path / "a.sqlite", task, texts, asker)
    alone = [
        task.answer(asker, [each.document])[0] for each in items(texts) if each.document is not None
    ]
    expected = [each.value if each.error is None else type(each.error).__name__ for each in alone]
    assert json.dumps(answers(tmp_path / "a.sqlite")) == json.dumps(expected)
    assert summary.tally.done == len(texts)
    assert summary.tally.prompt_tokens > 1000


def test_the_next_block_is_under_way_before_one_is_over(
    llm: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine knows of more conversations than a block has."""
    running: list[int] = []
    step = llm._running.step

    def watched() -> None:
        running.append(len(llm._running.requests))
        step()

    monkeypatch.setattr(llm._running, "step", watched)
    run(tmp_path / "a.sqlite", Summarize(), NOTES, LLMAsker(llm))
    assert max(running) > 16  # blocks begin with 8
    assert not llm._running.requests


def test_a_lock_is_handed_over_not_won() -> None:
    """Ten threads that want it ten times each have had it equally often at every moment."""
    turns, order = Turns(), []

    def work(name: int) -> None:
        for _ in range(10):
            with turns:
                order.append(name)
                time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(5)]
    with turns:
        for thread in threads:
            thread.start()
        while len(turns._waiting) < 5:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert [sorted(order[i : i + 5]) for i in range(0, 40, 5)] == [[0, 1, 2, 3, 4]] * 8


def test_stopping_ends_what_is_in_flight(llm: LLM, tmp_path: Path) -> None:
    """Whatever ends a run early does not wait for answers that nobody wants any more."""

    def endless() -> Iterator[Item]:
        yield from items(NOTES)
        raise KeyboardInterrupt

    asker = LLMAsker(llm)
    task = Summarize()
    with (
        Journal.open(tmp_path / "a.sqlite", Identity.of(task, "m")) as journal,
        pytest.raises(KeyboardInterrupt),
    ):
        run_job(task, endless(), LocalExecutor.sharing(asker), journal)
    assert not llm._running.requests
    assert task.answer(asker, [Document(NOTES[0], "a", "txt", 1)])[0].error is None


def test_a_stopped_asker_answers_nothing(llm: LLM) -> None:
    asker = SharedAsker(LLMAsker(llm))
    asker.stop()
    (reply,) = asker.chat([prompts.summarize(NOTES[0])], max_tokens=8)
    assert isinstance(reply.error, JobError)
    assert not llm._running.requests


class Breaking:
    """A task that breaks on some documents in a way that tasks should not."""

    name = "breaking"
    VERSION = 1

    def __init__(self, error: Exception, on: str = "3") -> None:
        self._error, self._on = error, on

    def spec(self) -> dict[str, Any]:
        return {}

    def answer(self, asker: Any, documents: Any) -> list[Answer[Any]]:
        if any(self._on in document.text for document in documents):
            raise self._error
        return [Answer(len(document.text)) for document in documents]


class Nobody:
    model_digest = "0" * 64
    context_length = 10


def test_one_document_spoils_no_other(tmp_path: Path) -> None:
    task = Breaking(AnswerError("broke"))
    run(tmp_path / "a.sqlite", task, [str(i) for i in range(20)], Nobody())
    found = answers(tmp_path / "a.sqlite")
    assert [i for i, each in enumerate(found) if each == "AnswerError"] == [3, 13]
    assert found[12] == 2


@pytest.mark.parametrize(
    ("error", "texts"),
    [
        (TemplateError("no template"), 3),  # the same for every document
        (AnswerError("broke"), 20),  # on every document of many
        (ZeroDivisionError("a bug"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_for_all_ends_the_job(error: Exception, texts: int, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        run(tmp_path / "a.sqlite", Breaking(error, ""), [str(i) for i in range(texts)], Nobody())
    assert set(answers(tmp_path / "a.sqlite")) == {None}


def test_an_engine_that_is_broken_ends_the_job(tmp_path: Path) -> None:
    class Broken(Breaking):
        def answer(self, asker: Any, documents: Any) -> list[Answer[Any]]:
            return [Answer(None, error=EngineError("not finite")) for _ in documents]

    with pytest.raises(EngineError, match="64 documents in a row"):
        run(tmp_path / "a.sqlite", Broken(AnswerError("")), [str(i) for i in range(500)], Nobody())
    with Journal.existing(tmp_path / "a.sqlite") as journal:
        assert journal.counts().errors < 64


def run_batch(llm: LLM, todo: Path, results: Path) -> int:
    """What vLLM's run-batch does with such files, by the model at hand."""
    with todo.open() as source, results.open("w") as target:
        lines = [json.loads(raw) for raw in source]
        for line in lines:
            body = line["body"]
            params = SamplingParams(temperature=body["temperature"], max_tokens=body["max_tokens"])
            done = llm.chat(body["messages"], params)
            answer = {
                "choices": [
                    {"message": {"content": done.text}, "finish_reason": done.finish_reason}
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": len(done.token_ids)},
            }
            response = {"status_code": 200, "request_id": "x", "body": answer}
            shown = {"custom_id": line["custom_id"], "response": response, "error": None}
            target.write(json.dumps(shown) + "\n")
    return len(lines)


def test_a_task_is_handed_over_step_by_step(llm: LLM, tmp_path: Path) -> None:
    """Summaries of pieces are asked first, the summary of summaries once those are back; in the end
    the answers are those of this machine."""
    asker, task = LLMAsker(llm), Summarize()
    texts = [NOTES[0], " ".join(NOTES), NOTES[1], NOTES[0]]
    run(tmp_path / "here.sqlite", task, texts, asker)
    path, rounds = tmp_path / "away.sqlite", []
    for number in range(5):
        todo, results = tmp_path / f"todo{number}", tmp_path / f"results{number}"
        with todo.open("w") as file:
            away = Handover("org/model", write=file.write)
            summary = run(path, task, texts, asker, away)
        if summary.state == "done":
            break
        assert summary.state == "waiting"
        rounds.append(run_batch(llm, todo, results))
        assert rounds[-1] == len(away.wanted)
        with Journal.existing(path, write=True) as journal:
            assert take_results(results, journal).replies == rounds[-1]
            assert take_results(results, journal).replies == rounds[-1]  # twice does no harm
    assert len(rounds) >= 2
    assert rounds[0] > 3 > rounds[-1]
    assert answers(path) == answers(tmp_path / "here.sqlite")


def test_labels_cannot_be_handed_over(llm: LLM, tmp_path: Path) -> None:
    away = Handover("m", write=lambda text: None)
    with pytest.raises(JobError, match="labels are scored"):
        run(tmp_path / "a.sqlite", Classify(("a", "b")), NOTES[:2], LLMAsker(llm), away)


def test_without_a_model_here_documents_cannot_be_handed_over() -> None:
    with pytest.raises(JobError, match="cannot be handed over"):
        Handover("m").executor(Summarize(), None)


def test_requests_of_a_form_are_spelled_as_vllm_spells_them(tmp_path: Path) -> None:
    from freehold.documents.jobs.handover import AwayAsker
    from freehold.types import Constraint

    lines: list[str] = []
    with Journal.open(tmp_path / "a.sqlite", Identity.of(Summarize(), "m")) as journal:
        away = Handover("m", write=lines.append, journal=journal)
        asker = AwayAsker(away, Nobody())
        forms = [
            None, Constraint("json"), Constraint("json_schema", {"type": "object"}),
            Constraint("regex", "a+"), Constraint("choice", ("a", "b")), Constraint("lark", "x"),
            Constraint("grounded", {"schema": {"type": "string", "x-in-text": True}, "text": "b"}),
        ]  # fmt: skip
        message = [{"role": "user", "content": "hi"}]
        replies = asker.chat([message] * 7, max_tokens=[1, 2, 3, 4, 5, 6, 7], constraint=forms)
    assert asker.missing == 7
    assert all(reply.error is not None for reply in replies)
    bodies = [json.loads(line)["body"] for line in lines]
    assert [body["max_tokens"] for body in bodies] == [1, 2, 3, 4, 5, 6, 7]
    assert "response_format" not in bodies[0]
    assert bodies[1]["response_format"] == {"type": "json_object"}
    assert bodies[2]["response_format"]["json_schema"]["schema"] == {"type": "object"}
    # Words are held to a text by freehold alone; who reads the answer looks for them.
    assert bodies[6]["response_format"]["json_schema"]["schema"] == {"type": "string"}
    assert [body["structured_outputs"] for body in bodies[3:6]] == [
        {"regex": "a+"}, {"choice": ["a", "b"]}, {"grammar": "x"},
    ]  # fmt: skip
    assert len({json.loads(line)["custom_id"] for line in lines}) == 7
    assert BLOCKS_IN_FLIGHT * 8 >= 64
    assert len(hashlib.sha256().hexdigest()) == len(json.loads(lines[0])["custom_id"])
