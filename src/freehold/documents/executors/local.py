# SPDX-License-Identifier: Apache-2.0
"""The executor of this process: a task's answers by a model that lies in this memory.

Several blocks are in flight, each on a thread, so that the engine has the next block's documents
before the last one of a block is answered. Knows tasks and askers, neither journal nor model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any

from freehold.documents.asking import Answer, Asker
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult
from freehold.documents.tasks import Task
from freehold.errors import (
    EngineError,
    FreeholdError,
    InvalidParameterError,
    JobError,
    TemplateError,
)

# What is wrong with the question is wrong for every document; a job that is stopped is over.
_JOB_WIDE = (TemplateError, InvalidParameterError, JobError)
_HOPELESS = 8  # documents that broke the task one after another: it is not the documents
_BROKEN = 64  # documents that the engine failed on one after another
# Times the least block (`Pace.FIRST`): as many conversations as an engine works on at once.
BLOCKS_IN_FLIGHT = 8


class LocalExecutor:
    """Answers with `asker`, which must bear `blocks_in_flight` threads at once."""

    def __init__(self, asker: Asker, *, blocks_in_flight: int = 1) -> None:
        self._asker = asker
        self._count = blocks_in_flight
        self._broken = 0  # documents in a row that broke the task
        self._failed = 0  # and that broke the engine
        self._over = threading.Event()

    @classmethod
    def sharing(cls, asker: Asker) -> LocalExecutor:
        """With a model of this process shared by several blocks; any other asker has one block at
        a time."""
        from freehold.documents.llm_asker import LLMAsker
        from freehold.documents.shared_asker import SharedAsker

        if isinstance(asker, LLMAsker):
            return cls(SharedAsker(asker), blocks_in_flight=BLOCKS_IN_FLIGHT)
        return cls(asker)

    def run(self, task: Task, blocks: Iterable[Sequence[Item]]) -> Iterator[Sequence[ItemResult]]:
        """Results block by block, as they become ready."""
        source = iter(blocks)
        running: set[Future[list[ItemResult]]] = set()
        threads = ThreadPoolExecutor(self._count, thread_name_prefix="freehold-job")
        try:
            while True:
                while len(running) < self._count and (block := next(source, None)) is not None:
                    running.add(threads.submit(self._answer, task, block))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield self._sane(future.result())
        finally:
            self._stop(bool(running))
            threads.shutdown(wait=True, cancel_futures=True)

    def _sane(self, results: list[ItemResult]) -> list[ItemResult]:
        """Raise where it is the engine that fails, not the documents: none of those is answered."""
        for result in results:
            broke = result.error is not None and result.error.type == "EngineError"
            self._failed = self._failed + 1 if broke else 0
            if broke and self._failed >= _BROKEN:
                assert result.error is not None
                raise EngineError(
                    f"{_BROKEN} documents in a row broke the engine: {result.error.message}",
                    hint="what is answered is kept; run the same command again with --retry-errors",
                )
        return results

    def _stop(self, early: bool) -> None:
        """Nobody waits for what is in flight any more."""
        if early:
            self._over.set()
            stop = getattr(self._asker, "stop", None)
            if stop is not None:
                stop()

    def _answer(self, task: Task, block: Sequence[Item]) -> list[ItemResult]:
        """One block; where the task breaks on it, item by item, so that one spoils no other."""
        if self._over.is_set():
            raise JobError("the job was stopped")
        started = time.monotonic()
        documents = [item.document for item in block if item.document is not None]
        answers: list[Answer[Any]]
        try:
            answers = task.answer(self._asker, documents)
            self._broken = 0
        except _JOB_WIDE:
            raise
        except Exception as error:
            if len(block) > 1:
                return [result for item in block for result in self._answer(task, [item])]
            self._broken += 1
            if self._broken >= _HOPELESS or not isinstance(error, FreeholdError):
                raise
            answers = [Answer(None, error=error)]
        share = (time.monotonic() - started) / len(block)
        return [result_of(item, each, share) for item, each in zip(block, answers, strict=True)]


def result_of(item: Item, answer: Answer[Any], seconds: float) -> ItemResult:
    """An answer as the journal takes it."""
    usage, content = asdict(answer.usage), str(item.content_sha256)
    if answer.error is not None:
        error = ErrorInfo.of(answer.error)
        return ItemResult(item.id, content, "error", None, error, usage, seconds)
    return ItemResult(item.id, content, "ok", answer.value, None, usage, seconds)
