# SPDX-License-Identifier: Apache-2.0
"""Works batches off, line by line, behind those who wait for an answer.

A few lines are under way at once, taken from all batches in turn; only one while somebody else
uses a model. What came of a line is in the batch's journal before the line counts as done, so a
batch goes on after a restart where it was. Knows no dialect: it is given a function that answers a
body, and one for each kind of batch that writes the answers together at the end.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from freehold.server.batches.lines import Journal, Lines, scan
from freehold.server.batches.store import Batch, BatchStore

# (endpoint, body, key's name) -> status, seconds to wait before another try, body of the answer
Answer = Callable[[str, bytes, str], Awaitable[tuple[int, int, bytes]]]
# (batch, its lines, its journal): writes the answers together, on a thread
Finish = Callable[[Batch, Lines, Journal], None]
_Result = TypeVar("_Result")

INPUT, JOURNAL = "input.jsonl", "journal.jsonl"
_LATER = (429, 503, 529)  # not the line's fault: it is asked again
_POLL_SECONDS = 0.25
_DISK_SECONDS = 30.0  # between tries to write
_log = logging.getLogger("freehold.server")


class _Run:
    """A batch that is being worked off."""

    def __init__(self, batch: Batch, lines: Lines, journal: Journal) -> None:
        self.batch, self.lines, self.journal = batch, lines, journal
        self.pending = deque(i for i in range(len(lines)) if i not in journal.places)
        self.tasks: set[asyncio.Task[None]] = set()
        self.resume_at = 0.0  # time.monotonic() before which none of its lines is tried

    def count(self) -> None:
        """Say in the batch how far it is."""
        batch, journal = self.batch, self.journal
        batch.completed, batch.failed = journal.completed, journal.failed
        batch.usage = dict(journal.usage)


class BatchRunner:
    """All methods belong to one event loop; files are written on one thread, one by one."""

    def __init__(
        self, store: BatchStore, answer: Answer, others: Callable[[], int],
        finish: Mapping[str, Finish], *, max_lines: int, sweep: Callable[[], None],
    ) -> None:  # fmt: skip
        """`others` tells how many requests hold models or wait for them, lines of batches apart;
        `sweep` removes what is past its time and is called now and then."""
        self._store, self._answer, self._others = store, answer, others
        self._finish, self._max_lines, self._sweep = finish, max_lines, sweep
        self._runs: deque[_Run] = deque()  # the next to be served first
        self._opened: list[_Run] = []
        self._in_flight = 0
        self._full = False
        self._wake = asyncio.Event()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="freehold-batches")
        self._jobs: set[asyncio.Task[None]] = set()
        # In a context of its own: it does not act for whoever happened to start it.
        self._spawn(self._work())
        for batch in store.over():  # whose end was interrupted
            self._tidy(batch)
        for batch in store.unfinished():
            self.submit(batch)

    # -- from outside ----------------------------------------------------------------------------
    def submit(self, batch: Batch) -> None:
        """Work on a batch that the store holds, from where it is."""
        self._spawn(self._open(batch))

    async def cancel(self, batch: Batch) -> None:
        """Ask no more of its lines. What is done stays done."""
        if batch.over or batch.status in ("cancelling", "finalizing"):
            return
        batch.ending = "cancelled"
        batch.enter("cancelling")
        await self._on_disk(self._store.save, batch)
        self._wake.set()

    async def close(self) -> None:
        """Stop; whatever is not done is done after the next start."""
        tasks = [*self._jobs, *(task for run in self._runs for task in run.tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._disk.shutdown)
        for run in self._opened:
            run.journal.close()

    # -- batches ---------------------------------------------------------------------------------
    async def _open(self, batch: Batch) -> None:
        """Check the requests of a batch, then let it take part."""
        place = self._store.place(batch)
        lines = await asyncio.to_thread(scan, place / INPUT, batch.endpoint)
        if lines.errors:
            batch.errors = lines.errors
            await self._over(batch, "failed")
            return
        journal = await self._on_disk(Journal, place / JOURNAL)
        run = _Run(batch, lines, journal)
        batch.total = len(lines)
        run.count()
        if batch.status == "validating":
            batch.enter("in_progress")
        await self._on_disk(self._store.save, batch)
        self._opened.append(run)
        self._runs.append(run)
        self._wake.set()

    async def _work(self) -> None:
        """Start lines and end batches, for as long as the server runs."""
        swept = 0.0
        while True:
            self._wake.clear()
            for run in list(self._runs):
                self._look_at(run)
            while self._in_flight < self._allowed() and self._start_one():
                pass
            if time.monotonic() - swept > 600:
                swept = time.monotonic()
                await self._on_disk(self._sweep)
            try:
                async with asyncio.timeout(_POLL_SECONDS if self._runs else 60.0):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _look_at(self, run: _Run) -> None:
        batch = run.batch
        if batch.status == "in_progress" and time.time() >= batch.expires:
            batch.ending = "expired"
        if batch.ending != "completed":
            run.pending.clear()
            for task in run.tasks:
                task.cancel()
        if not run.pending and not run.tasks:
            self._runs.remove(run)
            self._spawn(self._end(run))

    async def _end(self, run: _Run) -> None:
        """Write the answers together."""
        batch = run.batch
        batch.enter("finalizing")
        await self._on_disk(self._store.save, batch)  # behind the last answers
        run.count()
        batch.unfinished = batch.total - batch.completed - batch.failed
        await self._kept(self._finish[batch.kind], batch, run.lines, run.journal)
        run.journal.close()
        self._opened.remove(run)
        await self._over(batch, batch.ending)

    async def _kept(self, write: Callable[..., None], *given: Any) -> None:
        """Write something that must not be lost, again and again where the disk refuses."""
        while True:
            try:
                await asyncio.shield(self._on_disk(write, *given))
            except OSError as error:
                _log.error("batches: %s", error)
                await asyncio.sleep(_DISK_SECONDS)
            else:
                return

    async def _over(self, batch: Batch, status: str) -> None:
        """Told once it is on disk and nothing will be done to its folder any more."""
        final = replace(batch, times=dict(batch.times))
        final.enter(status)
        await self._kept(self._store.save, final)
        self._tidy(batch)
        batch.status, batch.times = final.status, final.times

    def _tidy(self, batch: Batch) -> None:
        place = self._store.place(batch)
        for name in (INPUT, JOURNAL):
            (place / name).unlink(missing_ok=True)
        self._store.measure(batch)

    # -- lines -----------------------------------------------------------------------------------
    def _allowed(self) -> int:
        full = self._store.quota.full
        if full and not self._full:
            _log.warning("batches wait: the files of the server take all the room they may")
        self._full = full
        if full:
            return 0
        return 1 if self._others() else self._max_lines

    def _start_one(self) -> bool:
        for _ in range(len(self._runs)):
            run = self._runs[0]
            self._runs.rotate(-1)
            if run.pending and time.monotonic() >= run.resume_at:
                self._in_flight += 1
                task = self._task(self._line(run, run.pending.popleft()))
                run.tasks.add(task)
                task.add_done_callback(partial(self._line_over, run))
                return True
        return False

    def _line_over(self, run: _Run, task: asyncio.Task[None]) -> None:
        self._in_flight -= 1
        run.tasks.discard(task)
        run.count()
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a line of %s failed", run.batch.batch_id, exc_info=error)

    async def _line(self, run: _Run, index: int) -> None:
        batch = run.batch
        custom_id, body = await asyncio.to_thread(run.lines.read, index)
        if batch.endpoint == "/v1/responses":
            body.setdefault("store", False)  # or batches would push out what people talk about
        raw = json.dumps(body).encode()
        status, wait, answer = await self._answer(batch.endpoint, raw, batch.owner)
        if status in _LATER:
            run.pending.appendleft(index)
            run.resume_at = time.monotonic() + min(max(wait, 1), 30)
            return
        record = {
            "line": index, "id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id,
            "status": status, "body": json.loads(answer),
        }  # fmt: skip
        # An answer that was made is kept, whoever gives up meanwhile.
        await self._kept(self._note, run, record)

    def _note(self, run: _Run, record: dict[str, Any]) -> None:
        before = run.journal.size
        run.journal.append(record)
        self._store.grow(run.batch, run.journal.size - before)

    # -- tasks -----------------------------------------------------------------------------------
    def _on_disk(self, function: Callable[..., _Result], *given: Any) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._disk, partial(function, *given))

    @staticmethod
    def _task(work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None]
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        return task

    def _spawn(self, work: Any) -> None:
        task = self._task(work)
        self._jobs.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._jobs.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                _log.error("batches: %s", error, exc_info=error)

        task.add_done_callback(over)
