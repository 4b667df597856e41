# SPDX-License-Identifier: Apache-2.0
"""The executor of other machines: servers with an OpenAI-compatible API, one or a fleet of them.

Each endpoint has a few blocks in flight and is given the next when one comes back, so a faster one
does more. What an endpoint that is lost was working on goes to the others. Knows askers and
blocks; how a server is asked is `endpoint_asker`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from freehold.documents.answering import Answering
from freehold.documents.endpoint_asker import EndpointAsker, EndpointLostError
from freehold.documents.jobs.items import Item, ItemResult
from freehold.documents.tasks import Task
from freehold.errors import JobError

_BLOCKS = 2  # in flight at each endpoint: the next is there before the last is done


class EndpointExecutor:
    """Answers by `askers`, each of which asks one endpoint for the same model."""

    def __init__(self, askers: Sequence[EndpointAsker]) -> None:
        if not askers:
            raise JobError("a job needs at least one endpoint")
        self._places = tuple(Answering(asker) for asker in askers)
        self.lost: list[str] = []  # why, of each endpoint that is out

    def run(self, task: Task, blocks: Iterable[Sequence[Item]]) -> Generator[Sequence[ItemResult]]:
        """Results block by block, as they become ready. Raises JobError when every endpoint is
        lost; what was given back is done."""
        source, again = iter(blocks), deque[Sequence[Item]]()
        alive = list(self._places)
        running: dict[Future[list[ItemResult]], tuple[Answering, Sequence[Item]]] = {}
        threads = ThreadPoolExecutor(_BLOCKS * len(alive), thread_name_prefix="freehold-block")
        try:
            while True:
                for place in _turns(alive, [place for place, _ in running.values()]):
                    block = again.popleft() if again else next(source, None)
                    if block is None:
                        break
                    running[threads.submit(place.answer, task, block)] = place, block
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    place, block = running.pop(future)
                    try:
                        results = future.result()
                    except EndpointLostError as error:
                        again.append(block)
                        self._lose(place, alive, error)
                        continue
                    yield results
        finally:
            if running:  # answers that nobody will take
                for place in self._places:
                    place.stop()
            threads.shutdown(wait=True, cancel_futures=True)

    def _lose(self, place: Answering, alive: list[Answering], why: JobError) -> None:
        if place in alive:
            alive.remove(place)
            self.lost.append(why.message)
        if not alive:
            raise JobError(
                f"no endpoint is left: {'; '.join(self.lost)}",
                hint="what is answered is kept; run the command again when they are back",
            ) from None


def _turns(alive: Sequence[Answering], working: Sequence[Answering]) -> Iterator[Answering]:
    """Endpoints that may take a block, the least busy first."""
    busy = [working.count(place) for place in alive]
    for level in range(_BLOCKS):
        yield from (place for place, blocks in zip(alive, busy, strict=True) if blocks <= level)
