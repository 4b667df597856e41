# SPDX-License-Identifier: Apache-2.0
"""The executor of this process: a task's answers by a model that lies in this memory.

Several blocks are in flight, each on a thread, so that the engine has the next block's documents
before the last one of a block is answered. Knows askers, neither journal nor model.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from freehold.documents.answering import Answering, EngineWatch
from freehold.documents.asking import Asker
from freehold.documents.jobs.items import Item, ItemResult
from freehold.documents.tasks import Task

# Times the least block (`Pace.FIRST`): as many conversations as an engine works on at once.
BLOCKS_IN_FLIGHT = 8


class LocalExecutor:
    """Answers with `asker`, which must bear `blocks_in_flight` threads at once."""

    def __init__(self, asker: Asker, *, blocks_in_flight: int = 1) -> None:
        self._answering = Answering(asker)
        self._count = blocks_in_flight
        self._watch = EngineWatch()

    @classmethod
    def sharing(cls, asker: Asker) -> LocalExecutor:
        """With a model of this process shared by several blocks; any other asker has one block at
        a time."""
        from freehold.documents.llm_asker import LLMAsker
        from freehold.documents.shared_asker import SharedAsker

        if isinstance(asker, LLMAsker):
            return cls(SharedAsker(asker), blocks_in_flight=BLOCKS_IN_FLIGHT)
        return cls(asker)

    def run(self, task: Task, blocks: Iterable[Sequence[Item]]) -> Generator[Sequence[ItemResult]]:
        """Results block by block, as they become ready."""
        source = iter(blocks)
        running: set[Future[list[ItemResult]]] = set()
        threads = ThreadPoolExecutor(self._count, thread_name_prefix="freehold-job")
        try:
            while True:
                while len(running) < self._count and (block := next(source, None)) is not None:
                    running.add(threads.submit(self._answering.answer, task, block))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    results = future.result()
                    self._watch.seen(results)
                    yield results
        finally:
            if running:
                self._answering.stop()
            threads.shutdown(wait=True, cancel_futures=True)
