# SPDX-License-Identifier: Apache-2.0
"""A process that works on a job with a fake model, for tests that kill it.

``python job_worker.py JOURNAL LOG COUNT [SECONDS_PER_BLOCK]``: COUNT documents, some of them alike.
The fake model writes every computation into LOG before it answers, so that LOG knows more than the
journal ever can. Everything but the model is the real thing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from freehold.documents.document import Document
from freehold.documents.jobs import Identity, Item, ItemResult, Journal, place, run_job

TWINS = 10  # every so many documents one has the text of the one before
IN_FLIGHT = 2  # blocks


class FakeTask:
    """Counts letters."""

    name = "fake"
    VERSION = 1

    def spec(self) -> dict[str, Any]:
        return {"what": "length"}


IDENTITY = Identity.of(FakeTask(), "0" * 64)


def text_of(index: int) -> str:
    number = index - 1 if index % TWINS == TWINS - 1 else index
    return f"document {number}\n" + "x" * (number * 7919 % 300)


def items(count: int) -> Iterator[Item]:
    for index in range(count):
        yield Item.of(Document(text_of(index), f"d{index}.txt", "txt", 1))


class FakeExecutor:
    """Fast, with two blocks in flight that come back in another order than they went out."""

    def __init__(self, log: Path, seconds: float = 0.0) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._seconds = seconds
        self.began: float | None = None

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Iterator[Sequence[ItemResult]]:
        held: list[Sequence[ItemResult]] = []
        for block in blocks:
            self.began = self.began or time.monotonic()
            held.append(self._compute(block))
            if len(held) == IN_FLIGHT:
                yield held.pop()  # the later one first
        yield from held

    def _compute(self, block: Sequence[Item]) -> list[ItemResult]:
        results = []
        for item in block:
            assert item.document is not None
            os.write(self._log, f"{item.content_sha256}\n".encode())
            value = len(item.document.text)
            results.append(ItemResult(item.id, str(item.content_sha256), "ok", value))
        time.sleep(self._seconds)
        return results


def peak_kib() -> int:
    """The most memory that this program had. What getrusage tells may be its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    started = time.monotonic()
    journal_path, log, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    executor = FakeExecutor(log, float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
    with place.locked(journal_path), Journal.open(journal_path, IDENTITY) as journal:
        summary = run_job(FakeTask(), items(count), executor, journal)
    first = (executor.began or time.monotonic()) - started
    print(f"{summary.tally.ok} {summary.tally.computed} {first:.3f} {peak_kib()}", flush=True)


if __name__ == "__main__":
    main()
