# SPDX-License-Identifier: Apache-2.0
"""Documents read in other processes, with caps that hold when a reader is wrong.

A file that makes a reader crash, hang or fill the memory is an error of that file (of an archive:
of the member), its process is replaced, and the rest is read. Processes are started afresh, not
forked, without importing the caller's program, and stay for many files. Knows no file format.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.documents import _reading_wire as wire
from freehold.documents._reading_process import Ending, ReaderProcess
from freehold.documents.document import Document, Limits, Unread
from freehold.documents.readers import named
from freehold.errors import DocumentError, DocumentTooLargeError, ReaderCrashError

__all__ = ["Caps", "read", "read_all"]

_DEFAULT = Limits()
_AHEAD = 32  # files per process that may be read before their turn
_MAX_WAITING = 32_000_000  # bytes of documents that wait for their turn
# Small files are asked for in a row, so that a process need not wait for its caller between them.
# Requests fit into a pipe, or both sides could wait for each other for ever.
_MAX_ASKED_FILES = 256_000  # bytes of such files
_MAX_ASKED = 32_000  # bytes of requests
_GRACE = 5.0  # seconds after which a process that did not end itself is ended
_TICK = 1.0


@dataclass(frozen=True, slots=True)
class Caps:
    """What the process of a reader gets. Beyond is the end of it, and an error of the document."""

    seconds: float = 60.0  # of real time, for each document of a file
    memory: int = 1_000_000_000  # bytes of address space, some 50 MB of them for Python itself
    files: int = 1000  # that one process reads before it is replaced


def read_all(
    paths: Iterable[str | Path],
    limits: Limits = _DEFAULT,
    *,
    caps: Caps | None = None,
    processes: int | None = None,
) -> Iterator[Document | Unread]:
    """The documents of many files, in order; what cannot be read is given as `Unread`.

    Up to `processes` files are read at a time (as many as there are cores, at most four) while the
    caller works on what was given. Raises CapacityError when no process can be started.
    """
    count = processes or min(4, len(os.sched_getaffinity(0)))
    pool = _Pool(limits, caps or Caps(), count)
    try:
        yield from pool.run(paths)
    finally:
        pool.close()


def read(
    path: str | Path, limits: Limits = _DEFAULT, *, caps: Caps | None = None
) -> Iterator[Document]:
    """The documents in one file. Raises DocumentError at the first that cannot be read.

    Starts a process, which takes a tenth of a second: `read_all` is for many.
    """
    for found in read_all([path], limits, caps=caps, processes=1):
        if isinstance(found, Unread):
            raise found.error
        yield found


class _Job:
    """One file and what was found in it so far."""

    def __init__(self, number: int, path: str | Path) -> None:
        self.number = number
        whole = Path(path).absolute()
        self.path = os.fsencode(whole)
        self.source = named(path)
        self.found: deque[tuple[Document | Unread, int]] = deque()
        self.waiting = 0  # bytes of what was found
        self.done = False
        self.skip = 0  # members of an archive that are behind us
        self.member = ""  # the one that is being read
        self.goes_on = False  # behind a member that failed
        try:
            self.size = whole.stat().st_size
        except (OSError, ValueError):  # the reader will say it better
            self.size = 0

    def request(self) -> dict[str, Any]:
        return {"path": self.path.hex(), "source": self.source, "skip": self.skip}

    def add(self, found: Document | Unread, size: int) -> None:
        self.found.append((found, size))
        self.waiting += size

    def take(self) -> Iterator[Document | Unread]:
        while self.found:
            found, size = self.found.popleft()
            self.waiting -= size
            yield found

    def fail(self, error: DocumentError) -> None:
        """What was being read ended its process."""
        source = self.member or self.source
        told = type(error)(f"{source:.300}: {error.message}", hint=error.hint)
        self.add(Unread(told, source), 0)
        self.goes_on = bool(self.member)
        self.member = ""


class _Pool:
    def __init__(self, limits: Limits, caps: Caps, count: int) -> None:
        self._limits = limits
        self._caps = caps
        self._count = count
        self._asked: dict[ReaderProcess, deque[_Job]] = {}
        self._again: list[tuple[int, _Job]] = []  # a heap of those that no process was found for
        self._polled = time.monotonic()

    def run(self, paths: Iterable[str | Path]) -> Iterator[Document | Unread]:
        coming = itertools.starmap(_Job, enumerate(paths))
        jobs: deque[_Job] = deque()
        while True:
            while job := self._next(coming, jobs):
                if not self._ask(job):
                    self._later(job)
                    break
            if not jobs:
                return
            yield from jobs[0].take()
            if jobs[0].done:
                jobs.popleft()
            else:
                self._poll(jobs[0], sum(job.waiting for job in jobs) < _MAX_WAITING)

    def close(self) -> None:
        for process in self._asked:
            process.kill()
        self._asked.clear()

    def _next(self, coming: Iterator[_Job], jobs: deque[_Job]) -> _Job | None:
        if self._again:
            return heapq.heappop(self._again)[1]
        if len(jobs) >= _AHEAD * self._count:
            return None
        job = next(coming, None)
        if job is not None:
            jobs.append(job)
        return job

    def _ask(self, job: _Job) -> bool:
        """Find a process for the file; gives whether there is one."""
        request = json.dumps(job.request()).encode() + b"\n"
        for process in list(self._asked):
            if process.tired and not self._asked[process]:
                process.kill()
                del self._asked[process]
        if len(self._asked) < self._count and all(self._asked.values()):
            process = ReaderProcess(self._limits, self._caps.memory, self._caps.seconds)
            self._asked[process] = deque()
        else:
            process = min(self._asked, key=lambda asked: len(self._asked[asked]))
        queue = self._asked[process]
        small = job.size + sum(other.size for other in queue) <= _MAX_ASKED_FILES
        fits = (len(queue) + 1) * len(request) <= _MAX_ASKED
        if queue and (process.tired or not small or not fits):
            return False
        queue.append(job)
        process.ask(request)
        process.tired = process.tired or process.asked >= self._caps.files
        return True

    def _poll(self, head: _Job, room: bool) -> None:
        """Wait for news of the file whose turn it is, and where there is room of others."""
        now = time.monotonic()
        away = now - self._polled  # the caller's time is not the reader's
        # Where its turn has come and no process took it, one must get through with what it has.
        room = room or not any(head in queue for queue in self._asked.values())
        listening = []
        with selectors.PollSelector() as selector:
            for process, queue in self._asked.items():
                if queue and (room or head in queue):
                    process.heard = min(process.heard + away, now)
                    listening.append(process)
                    selector.register(process.pipe, selectors.EVENT_READ, process)
                else:
                    process.heard = now
            ready = [key.data for key, _ in selector.select(_TICK)]
        self._polled = time.monotonic()
        for process in listening:
            if process in ready:
                self._hear(process)
            elif self._polled - process.heard > self._caps.seconds + _GRACE:
                self._ended(process, Ending.TIME)

    def _hear(self, process: ReaderProcess) -> None:
        try:
            data = process.read()
            if not data:
                self._ended(process, process.ending())
                return
            for record, size in process.frames.feed(data):
                if record.get("ended") == "memory":
                    self._ended(process, Ending.MEMORY)
                    return
                self._take(process, record, size)
        except wire.BadFrameError:
            self._ended(process, Ending.BAD)

    def _take(self, process: ReaderProcess, record: dict[str, Any], size: int) -> None:
        """Believe one record."""
        if "ready" in record:
            return
        queue = self._asked[process]
        if not queue:
            raise wire.BadFrameError("an answer that nobody asked for")
        job = queue[0]
        if "done" in record:
            queue.popleft()
            process.tired = process.tired or bool(record.get("tired"))
            self._leave(job)
        elif "index" in record:
            job.skip, job.member = wire.member(record)
        elif "ended" in record:
            job.fail(ReaderCrashError(f"its reader failed ({record.get('what')!s:.200})"))
        else:
            job.add(wire.from_record(record), size)

    def _leave(self, job: _Job) -> None:
        """No process is reading it now."""
        if job.goes_on:
            job.goes_on = False
            self._later(job)
        else:
            job.done = True

    def _later(self, job: _Job) -> None:
        heapq.heappush(self._again, (job.number, job))

    def _ended(self, process: ReaderProcess, ending: Ending) -> None:
        queue = self._asked.pop(process)
        process.kill()
        caps = self._caps
        megabytes = f"{caps.memory // 1_000_000:,} MB"
        if ending is Ending.TIME:
            error: DocumentError = DocumentTooLargeError(
                f"reading it took more than {caps.seconds:g} seconds"
            )
        elif ending is Ending.MEMORY:
            error = DocumentTooLargeError(f"reading it takes more than {megabytes} of memory")
        elif ending is Ending.ABORT:
            error = DocumentTooLargeError(
                f"its reader gave up, as it does when it needs more than {megabytes} of memory"
            )
        else:
            error = ReaderCrashError(
                f"its reader's process died of it ({process.last_words})",
                hint=f"it is damaged, made to do harm, or takes more than {megabytes} to read",
            )
        for job in list(queue)[1:]:
            self._later(job)
        if queue:
            queue[0].fail(error)
            self._leave(queue[0])
