# SPDX-License-Identifier: Apache-2.0
"""The executor of this process: a task's answers by an engine that lies in this memory.

Several blocks are in flight, each on a thread, so that the engine has the next block's documents
before the last one of a block is answered. Knows tasks and askers, neither journal nor model.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, is_dataclass
from typing import Any

from freehold.documents.asking import Answer
from freehold.documents.jobs.items import ErrorInfo, Item, ItemResult
from freehold.errors import FreeholdError, InvalidParameterError, TemplateError

# What is wrong with the question is wrong for every document.
_JOB_WIDE = (TemplateError, InvalidParameterError)
_HOPELESS = 8  # items that broke the task one after another: it is not the documents


class LocalExecutor:
    """Answers with `asker`, which must bear `blocks_in_flight` threads at once."""

    def __init__(self, asker: Any, *, blocks_in_flight: int = 1) -> None:
        self._asker = asker
        self._count = blocks_in_flight
        self._broken = 0  # items in a row

    @classmethod
    def sharing(cls, asker: Any) -> LocalExecutor:
        """As many blocks in flight as `asker` bears."""
        return cls(asker)

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Iterator[Sequence[ItemResult]]:
        """Results block by block, as they become ready."""
        source = iter(blocks)
        running: set[Future[Sequence[ItemResult]]] = set()
        with ThreadPoolExecutor(self._count, thread_name_prefix="freehold-job") as threads:
            try:
                while True:
                    while len(running) < self._count:
                        block = next(source, None)
                        if block is None:
                            break
                        running.add(threads.submit(self._answer, task, block))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _answer(self, task: Any, block: Sequence[Item]) -> Sequence[ItemResult]:
        """One block; where the task breaks on it, item by item, so that one spoils no other."""
        started = time.monotonic()
        try:
            answers = task.answer(self._asker, [item.document for item in block])
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
        return [_result(item, each, share) for item, each in zip(block, answers, strict=True)]


def _result(item: Item, answer: Answer[Any], seconds: float) -> ItemResult:
    usage = _usage(answer)
    content = str(item.content_sha256)
    if answer.error is not None:
        error = ErrorInfo.of(answer.error)
        return ItemResult(item.id, content, "error", None, error, usage, seconds)
    return ItemResult(item.id, content, "ok", answer.value, None, usage, seconds)


def _usage(answer: Any) -> dict[str, int]:
    usage = getattr(answer, "usage", None)
    if usage is not None and is_dataclass(usage) and not isinstance(usage, type):
        return asdict(usage)
    names = ("prompt_tokens", "cached_tokens", "answer_tokens")
    return {name: getattr(answer, name) for name in names}
