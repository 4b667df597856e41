# SPDX-License-Identifier: Apache-2.0
"""One block of a job, answered by any asker: what fails for one document stays its own.

Every executor does its blocks with this. Knows tasks and askers; how many blocks are in flight, and
where, is the executors'.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
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


class Answering:
    """Answers blocks with `asker`, on as many threads as it bears."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._broken = 0  # documents in a row that broke the task
        self._over = threading.Event()

    def stop(self) -> None:
        """Nobody waits for what is in flight any more."""
        self._over.set()
        stop = getattr(self._asker, "stop", None)
        if stop is not None:
            stop()

    def answer(self, task: Task, block: Sequence[Item]) -> list[ItemResult]:
        """One block; where the task breaks on it, item by item, so that one spoils no other."""
        if self._over.is_set():
            raise JobError("the job was stopped")
        started = time.monotonic()
        documents = [item.document for item in block if item.document is not None]
        answers: list[Answer[Any]]
        try:
            answers = task.answer(self._asker, documents)
            for answer in answers:  # a task may have taken it for the document's
                if isinstance(answer.error, JobError):
                    raise answer.error
            self._broken = 0
        except _JOB_WIDE:
            raise
        except Exception as error:
            if len(block) > 1:
                return [result for item in block for result in self.answer(task, [item])]
            self._broken += 1
            if self._broken >= _HOPELESS or not isinstance(error, FreeholdError):
                raise
            answers = [Answer(None, error=error)]
        share = (time.monotonic() - started) / len(block)
        return [result_of(item, each, share) for item, each in zip(block, answers, strict=True)]


class EngineWatch:
    """Ends a job whose engine fails on everything: none of those documents is answered."""

    def __init__(self) -> None:
        self._failed = 0  # in a row

    def seen(self, results: Sequence[ItemResult]) -> None:
        """Look at what came back. Raises EngineError."""
        for result in results:
            broke = result.error is not None and result.error.type == "EngineError"
            self._failed = self._failed + 1 if broke else 0
            if broke and self._failed >= _BROKEN:
                assert result.error is not None
                raise EngineError(
                    f"{_BROKEN} documents in a row broke the engine: {result.error.message}",
                    hint="what is answered is kept; run the same command again with --retry-errors",
                )


def result_of(item: Item, answer: Answer[Any], seconds: float) -> ItemResult:
    """An answer as the journal takes it."""
    usage, content = asdict(answer.usage), str(item.content_sha256)
    if answer.error is not None:
        error = ErrorInfo.of(answer.error)
        return ItemResult(item.id, content, "error", None, error, usage, seconds)
    return ItemResult(item.id, content, "ok", answer.value, None, usage, seconds)
