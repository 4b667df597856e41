# SPDX-License-Identifier: Apache-2.0
"""Jobs answered by servers: the answers are those of a model in this process, and a server that is
busy, gone, broken or hostile costs time or its own documents, never others'."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import Answer, completion, fake_endpoint, obliging

from freehold import LLM
from freehold.documents.document import Document
from freehold.documents.endpoint_asker import EndpointAsker, EndpointLostError
from freehold.documents.executors.endpoint import EndpointExecutor
from freehold.documents.form_fields import form_fields
from freehold.documents.jobs import Identity, Item, JobSummary, Journal, run_job
from freehold.documents.llm_asker import LLMAsker
from freehold.documents.tasks.classify import Classify
from freehold.documents.tasks.extract import Extract
from freehold.documents.tasks.summarize import Summarize
from freehold.errors import InvalidParameterError, JobError
from freehold.server.settings import ServerSettings
from freehold.types import Constraint
from server.live_server import LiveServer, live_server

NOTES = [
    f"Invoice {i} of Acme Ltd to Smith & Sons: {i * 7} boxes of paper, total {i * 13} EUR, due in "
    "May."
    for i in range(20)
]
ENGINE = {"threads": 1, "context_length": 512}


@pytest.fixture(scope="module")
def served() -> Iterator[LiveServer]:
    with live_server(ServerSettings(models=("seedling",), engine=dict(ENGINE))) as running:
        yield running


@pytest.fixture
def asking() -> Iterator[Any]:
    """Makes askers that are closed in the end."""
    with ExitStack() as stack:

        def make(url: str, model: str = "m", **options: Any) -> EndpointAsker:
            asker = EndpointAsker(url, model, **{"patience": 2.0, **options})
            stack.callback(asker.close)
            return asker

        yield make


def items(texts: list[str]) -> list[Item]:
    return [Item.of(Document(text, f"{i}.txt", "txt", 1)) for i, text in enumerate(texts)]


def run(path: Path, task: Any, texts: list[str], executor: Any, digest: str = "d") -> JobSummary:
    with Journal.open(path, Identity.of(task, digest)) as journal:
        return run_job(task, items(texts), executor, journal)


def answers(path: Path) -> list[Any]:
    with Journal.existing(path) as journal:
        return [row.value if row.error is None else row.error.type for row in journal.rows()]


@pytest.mark.parametrize(
    "task",
    [
        Summarize(), Classify(("invoice", "letter", "report"), tolerance=0.0),
        Classify(("paid", "urgent"), multi_label=True, tolerance=0.0),
        Extract.of_fields(("total", "customer")),
    ],
    ids=["summarize", "classify", "multi-label", "extract"],
)  # fmt: skip
def test_a_served_model_answers_as_one_in_this_process(
    served: LiveServer, asking: Any, task: Any, tmp_path: Path
) -> None:
    asker = asking(f"{served.url}/v1", "seedling")
    texts = [*NOTES, "word " * 3000]  # one that is cut, or does not fit
    run(tmp_path / "far.sqlite", task, texts, EndpointExecutor([asker]), asker.model_digest)
    with LLM("seedling", **ENGINE) as llm:  # type: ignore[arg-type]
        near = LLMAsker(llm)
        found = [task.answer(near, [Document(text, "", "", 0)])[0] for text in texts]
        assert asker.model_digest == near.model_digest  # so it is the same job
    expected = [each.value if each.error is None else type(each.error).__name__ for each in found]
    assert json.dumps(answers(tmp_path / "far.sqlite")) == json.dumps(expected)


def test_a_fleet_shares_the_work_and_does_without_those_it_loses(
    asking: Any, tmp_path: Path
) -> None:
    asked = threading.Event()

    def dying(path: str, body: Any) -> Answer:
        if path == "/v1/chat/completions" and asked.is_set():
            return 503, {}, {"error": {"message": "going down"}}
        if path == "/v1/chat/completions":
            asked.set()
        return obliging(path, body)

    with fake_endpoint() as one, fake_endpoint() as two, fake_endpoint(dying) as three:
        askers = [asking(each.url, patience=0.4) for each in (one, two, three)]
        executor = EndpointExecutor(askers)
        texts = [f"note {i}" for i in range(200)]
        summary = run(tmp_path / "a.sqlite", Summarize(), texts, executor)
        assert (summary.tally.ok, summary.tally.errors) == (200, 0)
        assert len(executor.lost) == 1
        assert "going down" in executor.lost[0]
        for each in (one, two):
            assert len(each.asked("/v1/chat/completions")) >= 40
    assert [value["summary"] for value in answers(tmp_path / "a.sqlite")] == ["A line."] * 200


def test_when_all_are_lost_the_job_stops_and_goes_on_later(asking: Any, tmp_path: Path) -> None:
    count = 0

    def failing(path: str, body: Any) -> Answer:
        nonlocal count
        count += path == "/v1/chat/completions"
        return obliging(path, body) if count <= 30 else (500, {}, {"error": {"message": "full"}})

    texts = [f"note {i}" for i in range(100)]
    with fake_endpoint(failing) as gone:
        executor = EndpointExecutor([asking(gone.url, patience=0.3, concurrency=2)])
        with pytest.raises(JobError, match=r"no endpoint is left.*full") as caught:
            run(tmp_path / "a.sqlite", Summarize(), texts, executor)
        assert "is kept" in str(caught.value)
    kept = len([value for value in answers(tmp_path / "a.sqlite") if isinstance(value, dict)])
    assert kept > 0
    with fake_endpoint() as back:
        summary = run(
            tmp_path / "a.sqlite", Summarize(), texts, EndpointExecutor([asking(back.url)])
        )
        assert summary.tally.ok == 100
        assert len(back.asked("/v1/chat/completions")) == 100 - kept


def test_a_busy_server_is_asked_again_when_it_said(asking: Any) -> None:
    states = iter([(429, {"Retry-After": "0.2"}), (503, {}), (200, {})])

    def busy(path: str, body: Any) -> Answer:
        status, headers = next(states)
        return completion("Done.") if status == 200 else (status, headers, {"error": "later"})

    with fake_endpoint(busy) as endpoint:
        asker = asking(endpoint.url, patience=20.0)
        (reply,) = asker.chat([[{"role": "user", "content": "hi"}]], max_tokens=5)
        assert reply.text == "Done."
        assert (reply.usage.prompt_tokens, reply.usage.answer_tokens) == (7, 2)
        assert len(endpoint.seen) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((400, {}, {"error": {"message": "the context is too long"}}), "ContextLengthError"),
        ((422, {}, {"detail": "no"}), "AnswerError"),
        ((200, {}, b"<html>"), "AnswerError"),
        ((200, {}, b"[" * 100_000), "AnswerError"),
        ((200, {}, {"choices": []}), "AnswerError"),
        ((200, {}, {"choices": [{"message": {"content": 5}}]}), "AnswerError"),
        (completion(5), "AnswerError"),
        (completion("half", "length"), "AnswerError"),
        (completion("", "content_filter"), "AnswerError"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_with_one_answer_is_its_own(
    asking: Any, tmp_path: Path, answer: Answer, error: str
) -> None:
    def mean(path: str, body: Any) -> Answer:
        if path == "/v1/chat/completions" and "bad" in body["messages"][0]["content"]:
            return answer
        return obliging(path, body)

    with fake_endpoint(mean) as endpoint:
        executor = EndpointExecutor([asking(endpoint.url)])
        summary = run(tmp_path / "a.sqlite", Summarize(), ["good", "bad", "fine"], executor)
    assert (summary.tally.ok, summary.tally.errors) == (2, 1)
    assert answers(tmp_path / "a.sqlite")[1] == error


@pytest.mark.parametrize(
    "answer",
    [
        (401, {}, {"error": {"message": "no key"}}),
        (404, {}, {"error": {"message": "no such model"}}),
        (307, {"Location": "http://127.0.0.1:9/v1"}, {}),
    ],
    ids=["401", "404", "redirect"],
)
def test_what_is_wrong_for_all_ends_the_job_in_a_sentence(
    asking: Any, tmp_path: Path, answer: Answer
) -> None:
    with fake_endpoint(lambda *_: answer) as endpoint:
        executor = EndpointExecutor([asking(endpoint.url, api_key="secret")])
        with pytest.raises(JobError) as caught:
            run(tmp_path / "a.sqlite", Summarize(), ["a", "b"], executor)
        assert caught.value.hint is not None
        assert {head["Authorization"] for _, head, _ in endpoint.seen} == {"Bearer secret"}
    assert b"secret" not in (tmp_path / "a.sqlite").read_bytes()


def test_an_endless_answer_is_not_read_to_its_end(
    asking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("freehold.documents.endpoint_asker._MAX_REPLY", 1000)
    with fake_endpoint(lambda *_: completion("x" * 5000)) as endpoint:
        (reply,) = asking(endpoint.url).chat([[{"role": "user", "content": "hi"}]], max_tokens=5)
    assert "1,000 bytes" in str(reply.error)


def test_words_that_another_server_made_up_are_told_as_such(asking: Any, tmp_path: Path) -> None:
    """Others than freehold cannot hold words to the text; then what they say is looked for."""

    def inventing(path: str, body: Any) -> Answer:
        if path == "/v1/models/m":
            return 200, {}, {"id": "m", "owned_by": "somebody"}
        if path == "/v1/chat/completions":
            assert "x-in-text" not in json.dumps(body)
            assert body["response_format"]["type"] == "json_schema"
            return completion(json.dumps({"customer": "Smith", "city": "Atlantis"}))
        return obliging(path, body)

    text = "Invoice to Smith in London"
    with fake_endpoint(inventing) as endpoint:
        executor = EndpointExecutor([asking(endpoint.url)])
        run(tmp_path / "a.sqlite", Extract.of_fields(("customer", "city")), [text], executor)
    (value,) = answers(tmp_path / "a.sqlite")
    assert value["values"] == {"customer": "Smith", "city": None}
    span = value["evidence"]["/customer"]
    assert text[span["start"] : span["end"]] == "Smith"
    assert "does not stand in the text" in value["problems"]["/city"]


def test_nobody_there(asking: Any) -> None:
    with fake_endpoint() as endpoint:
        url = endpoint.url
    with pytest.raises(EndpointLostError):
        asking(url, patience=0.3).count_text("hi")


def test_forms_in_the_fields_of_a_request() -> None:
    assert form_fields(None) == {}
    assert form_fields(Constraint("json")) == {"response_format": {"type": "json_object"}}
    schema = form_fields(Constraint("json_schema", {"type": "object"}))
    assert schema["response_format"]["json_schema"]["schema"] == {"type": "object"}
    for kind, name in (("regex", "regex"), ("choice", "choice"), ("lark", "grammar")):
        assert form_fields(Constraint(kind, ["x"])) == {"structured_outputs": {name: ["x"]}}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8080", "ftp://a/v1", "http://", "http://a:x/v1", "http://u:p@a/v1",
     "http://a/v1?key=1", "http://a/v1#x"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidParameterError):
        EndpointAsker(url, "m")
