# SPDX-License-Identifier: Apache-2.0
"""Models that are being fetched for clients: a few at a time, each once however many wait for it.

A fetch runs on a thread of its own. It ends early when nobody waits for it any more or the server
stops; what has come is kept, and the next one goes on from there. What is fetched, and whether the
policy agrees, is `pulling.py`'s; how progress is worded is a dialect's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from freehold.errors import CapacityError, DownloadError, FreeholdError
from freehold.hub.remote import RemoteFile
from freehold.hub.store import StoredModel
from freehold.pulling import PullOptions, PullPlan, pull
from freehold.server.failures import RequestError
from freehold.server.request_context import current, owner

_log = logging.getLogger("freehold.server")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a fetch is. Bytes are those of one file."""

    stage: str  # "planning", "fetching", "checking" or "recording"
    file: RemoteFile | None = None
    done: int = 0


class _Stopped(Exception):
    """Nobody wants the model any more."""


class PullJob:
    """One model that is being fetched. Written by its thread, watched from the event loop."""

    def __init__(
        self, name: str, draining: Callable[[], bool], at_end: Callable[[PullJob], None]
    ) -> None:
        self.name = name
        self.waiting = 0  # clients
        self.steps = [Step("planning")]  # that are over, and the one that is not: the last
        self.begun = asyncio.Event()  # it is known what will come, or all is over
        self.over = asyncio.Event()
        self.stored: StoredModel | None = None
        self.error: BaseException | None = None
        self._draining, self._at_end = draining, at_end
        self._loop = asyncio.get_running_loop()
        self._before: dict[str, tuple[RemoteFile, int]] = {}  # files, and bytes of those before
        self._key, self._request, self._at = owner(), current().id, time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether it may go on."""
        return self.waiting > 0 and not self._draining()

    def start(self) -> None:
        """Begin. The thread is one that nobody waits for when the process ends."""
        self.log("pull begins")
        threading.Thread(target=self._run, name=f"pull {self.name:.60}", daemon=True).start()

    def result(self) -> StoredModel:
        """What came, once it is over. Raises what ended it, as a client is told."""
        error = self.error
        if isinstance(error, _Stopped):
            raise RequestError(
                "the server is shutting down; what has come is kept",
                kind="overloaded", retry_after=5,
            )  # fmt: skip
        if isinstance(error, DownloadError):
            raise RequestError(error.message, status_code=502)
        if isinstance(error, CapacityError):
            raise RequestError(error.message, status_code=507)
        if error is not None:
            raise error
        assert self.stored is not None
        return self.stored

    def log(self, event: str, **fields: object) -> None:
        """One line on what becomes of it, and for whom."""
        known: dict[str, object] = {"id": self._request, "model": self.name}
        if self._key is not None:
            known["key"] = self._key
        _log.info(event, extra={"fields": known | fields})

    # -- on the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        stored: StoredModel | None = None
        error: BaseException | None = None
        try:
            stored = pull(
                self.name, PullOptions(), progress=self._progress, note=self._note,
                planned=self._planned,
            )  # fmt: skip
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._end, stored, error)

    def _planned(self, plan: PullPlan) -> None:
        at = 0
        for file in plan.model.files:
            self._before[file.name] = (file, at)
            at += file.size
        self._go_on()
        self._loop.call_soon_threadsafe(self.begun.set)

    def _progress(self, done: int, total: int, name: str) -> None:
        self._go_on()
        if name not in self._before:
            self._step(Step("checking" if name else "recording"))
            return
        file, before = self._before[name]
        self._step(Step("fetching", file, min(max(done - before, 0), file.size)))

    def _step(self, step: Step) -> None:
        """Steps on one file are one, which grows."""
        last = self.steps[-1]
        if last.stage == step.stage and last.file is step.file:
            self.steps[-1] = step
            return
        if last.file is not None:
            self.steps[-1] = Step(last.stage, last.file, last.file.size)
        self.steps.append(step)

    def _note(self, text: str) -> None:
        self._go_on()
        self.log("pull notes", note=text.removeprefix("note: ")[:500])

    def _go_on(self) -> None:
        if not self.wanted:
            raise _Stopped

    # -- on the loop -----------------------------------------------------------------------------

    def _end(self, stored: StoredModel | None, error: BaseException | None) -> None:
        self.stored, self.error = stored, error
        seconds = round(time.monotonic() - self._at, 3)
        if stored is not None:
            self.log("pulled", stored=stored.name, bytes=stored.size, seconds=seconds)
        elif isinstance(error, _Stopped):
            self.log("pull stopped", seconds=seconds)
        elif isinstance(error, FreeholdError):
            self.log("pull failed", error=error.message, seconds=seconds)
        else:
            _log.error("pull of %s failed", self.name, exc_info=error)
        self._at_end(self)
        self.begun.set()
        self.over.set()


class Pulls:
    """All fetches of a server. Its methods belong to one event loop."""

    def __init__(self, most: int, draining: Callable[[], bool]) -> None:
        self._most, self._draining = most, draining
        self._jobs: dict[str, PullJob] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[PullJob]:
        """The fetch of a model, begun or joined, which goes on while somebody is inside.

        Raises RequestError where too many others are under way.
        """
        while (job := self._jobs.get(name)) is not None and not job.wanted:
            await job.over.wait()  # it is ending; the next one goes on from there
        if job is None:
            job = self._begin(name)
        job.waiting += 1
        if job.waiting == 1:
            job.start()
        try:
            yield job
        finally:
            job.waiting -= 1

    def _begin(self, name: str) -> PullJob:
        if len(self._jobs) >= self._most:
            raise RequestError(
                f"{len(self._jobs)} models are being fetched already",
                kind="overloaded", retry_after=30,
            )  # fmt: skip
        job = self._jobs[name] = PullJob(name, self._draining, self._over)
        return job

    def _over(self, job: PullJob) -> None:
        del self._jobs[job.name]
