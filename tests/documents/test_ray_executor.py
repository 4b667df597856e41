# SPDX-License-Identifier: Apache-2.0
"""Jobs on a Ray cluster of this machine: two workers with a model each, one of them killed; tasks
that fail; documents that take their worker with them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from freehold import LLM
from freehold.documents.asking import Answer, Asker
from freehold.documents.document import Document
from freehold.documents.jobs import Identity, Item, Journal, run_job
from freehold.documents.llm_asker import LLMAsker
from freehold.documents.tasks.classify import Classify
from freehold.errors import JobError

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'freehold[ray]'")

LABELS = ("invoice", "letter", "report")
ENGINE = {"threads": 1, "context_length": 512}
NOTES = [f"Note {i}: {i * 7} boxes of paper for {i * 13} EUR, due in May." for i in range(120)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One for all tests here: it takes seconds to start."""
    from freehold import config

    config.turn_off_ray_reports()
    # Workers cannot import this file: what they get of it travels with it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def executor(**given: Any) -> Any:
    from freehold.documents.executors.ray import RayExecutor

    return RayExecutor("seedling", ENGINE, **given)


def items(texts: Sequence[str]) -> list[Item]:
    return [Item.of(Document(text, f"{i}.txt", "txt", 1)) for i, text in enumerate(texts)]


def answers(path: Path) -> list[Any]:
    with Journal.existing(path) as journal:
        return [row.value if row.error is None else row.error.message for row in journal.rows()]


def children() -> list[int]:
    """Processes of workers of this test's cluster that hold a model: others may have one too."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and b"ray::_Worker" in _command(entry) and _is_ours(entry)
    ]


def _is_ours(entry: Path) -> bool:
    """Whether this process is its parent, or its parent's."""
    try:
        while entry.name not in ("0", "1"):
            if entry.name == str(os.getpid()):
                return True
            entry = entry.with_name((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it is over
        pass
    return False


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


class KillOne:
    """Passes results on, and kills a worker after the first few."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.killed = inner, 0

    def run(self, task: Any, blocks: Any) -> Iterator[Sequence[Any]]:
        for number, results in enumerate(self.inner.run(task, blocks)):
            yield results
            if number == 2:
                workers = children()
                assert len(workers) == 2
                os.kill(workers[0], signal.SIGKILL)
                self.killed += 1


def test_a_killed_worker_loses_nothing(cluster: None, tmp_path: Path) -> None:
    task = Classify(LABELS)
    with LLM("seedling", **ENGINE) as llm:  # type: ignore[arg-type]
        near = LLMAsker(llm)
        digest = near.model_digest
        expected = [task.answer(near, [Document(text, "", "", 0)])[0].value for text in NOTES]
    killing = KillOne(executor(model_digest=digest))
    with Journal.open(tmp_path / "a.sqlite", Identity.of(task, digest)) as journal:
        summary = run_job(task, items(NOTES), killing, journal)
    assert (summary.tally.ok, summary.tally.computed, killing.killed) == (120, 120, 1)
    assert killing.inner.deaths >= 1
    assert json.dumps(answers(tmp_path / "a.sqlite")) == json.dumps(expected)


def test_a_worker_with_another_model_ends_the_job(cluster: None, tmp_path: Path) -> None:
    task = Classify(LABELS)
    wrong = executor(model_digest="0" * 64, workers=1)
    with (
        Journal.open(tmp_path / "a.sqlite", Identity.of(task, "x")) as journal,
        pytest.raises(JobError, match="another model"),
    ):
        run_job(task, items(NOTES[:3]), wrong, journal)


class Deadly:
    """A task under which some documents kill whoever reads them."""

    name, VERSION = "deadly", 1

    def spec(self) -> dict[str, Any]:
        return {}

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        if any("deadly" in document.text for document in documents):
            os.kill(os.getpid(), signal.SIGKILL)
        return [Answer(document.text) for document in documents]


@pytest.mark.slow
def test_a_document_that_kills_is_given_up_and_the_others_are_not(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freehold.documents.executors import ray as module

    class Worker:
        def __init__(self, *_: Any) -> None:
            pass

        def ready(self) -> None:
            pass

        def answer(self, name: str, spec: dict[str, Any], block: Sequence[Item]) -> Any:
            from freehold.documents.answering import Answering

            return Answering(None).answer(Deadly(), block)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_Worker", Worker)
    texts = [f"note {i}" for i in range(12)]
    texts[5] = "deadly"
    task: Any = Deadly()
    with Journal.open(tmp_path / "a.sqlite", Identity.of(task, "x")) as journal:
        summary = run_job(task, items(texts), executor(workers=1), journal)
    assert (summary.tally.ok, summary.tally.errors) == (11, 1)
    assert "workers died over this document" in answers(tmp_path / "a.sqlite")[5]


@pytest.mark.slow
def test_workers_that_never_answer_end_the_job(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from freehold.documents.executors import ray as module

    class Worker:
        def __init__(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def ready(self) -> None:
            pass

        def answer(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(module, "_Worker", Worker)
    with (
        Journal.open(tmp_path / "a.sqlite", Identity.of(Classify(LABELS), "x")) as journal,
        pytest.raises(JobError, match="died one after another"),
    ):
        run_job(Classify(LABELS), items(NOTES[:2]), executor(workers=1), journal)
