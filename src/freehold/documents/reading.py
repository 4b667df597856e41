# SPDX-License-Identifier: Apache-2.0
"""Documents read in other processes, with caps that hold when a reader is wrong.

A file that makes a reader crash, hang or fill the memory is an error of that file (of an archive:
of the member), its process is replaced, and the rest is read. Processes are started afresh, not
forked, without importing the caller's program, and stay for many files. Knows no file format.
"""

from __future__ import annotations

import dataclasses
import itertools
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
_AHEAD = 4  # files per process that may be read before their turn
_MAX_WAITING = 16_000_000  # bytes of a file's documents that wait for their turn
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

    def __init__(self, path: str | Path) -> None:
        self.path = os.fsencode(Path(path).absolute())
        self.source = named(path)
        self.found: deque[tuple[Document | Unread, int]] = deque()
        self.waiting = 0  # bytes of what was found
        self.done = False
        self.skip = 0  # members of an archive that are behind us
        self.member = ""  # the one that is being read

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
        self.done = not self.member
        self.member = ""


class _Pool:
    def __init__(self, limits: Limits, caps: Caps, count: int) -> None:
        self._limits = limits
        self._caps = caps
        self._count = count
        self._busy: dict[ReaderProcess, _Job] = {}
        self._idle: list[ReaderProcess] = []
        self._again: deque[_Job] = deque()  # archives to go on with behind a member that failed
        self._polled = time.monotonic()

    def run(self, paths: Iterable[str | Path]) -> Iterator[Document | Unread]:
        coming = iter(paths)
        jobs: deque[_Job] = deque()
        while True:
            while len(self._busy) < self._count and (
                job := self._again.popleft() if self._again else self._next(coming, jobs)
            ):
                self._start(job)
            if not jobs:
                return
            yield from jobs[0].take()
            if jobs[0].done:
                jobs.popleft()
            else:
                self._poll(jobs[0])

    def close(self) -> None:
        for process in itertools.chain(self._busy, self._idle):
            process.kill()
        self._busy.clear()
        self._idle.clear()

    def _next(self, coming: Iterator[str | Path], jobs: deque[_Job]) -> _Job | None:
        if len(jobs) >= _AHEAD * self._count:
            return None
        for path in coming:
            job = _Job(path)
            jobs.append(job)
            if b"\0" not in job.path:
                return job
            job.fail(DocumentError("cannot be read: there is a NUL in its name"))
        return None

    def _start(self, job: _Job) -> None:
        process = self._idle.pop() if self._idle else ReaderProcess(self._limits, self._caps.memory)
        self._busy[process] = job
        process.ask({
            "path": job.path.hex(), "source": job.source, "skip": job.skip,
            "limits": dataclasses.asdict(self._limits), "seconds": self._caps.seconds,
        })  # fmt: skip

    def _poll(self, head: _Job) -> None:
        """Wait for news of those that may speak: the file whose turn it is, and a little ahead."""
        now = time.monotonic()
        away = now - self._polled  # the caller's time is not the reader's
        listening = []
        with selectors.DefaultSelector() as selector:
            for process, job in self._busy.items():
                if job is head or job.waiting < _MAX_WAITING:
                    process.heard = min(process.heard + away, now)
                    listening.append(process)
                    selector.register(process.pipe, selectors.EVENT_READ, process)
                else:
                    process.heard = now
            ready = [key.data for key, _ in selector.select(_TICK)]
        self._polled = time.monotonic()
        for process in listening:
            if process in ready:
                self._hear(process, self._busy[process])
            elif self._polled - process.heard > self._caps.seconds + _GRACE:
                self._ended(process, Ending.TIME)

    def _hear(self, process: ReaderProcess, job: _Job) -> None:
        try:
            data = process.read()
            if not data:
                self._ended(process, process.ending())
                return
            for record, size in process.frames.feed(data):
                if self._take(process, job, record, size):
                    return
        except wire.BadFrameError:
            self._ended(process, Ending.BAD)

    def _take(self, process: ReaderProcess, job: _Job, record: dict[str, Any], size: int) -> bool:
        """Believe one record; gives whether the process is through with its file."""
        if "done" in record:
            job.done = not self._again or self._again[-1] is not job
            del self._busy[process]
            if process.asked < self._caps.files and not record.get("tired"):
                self._idle.append(process)
            else:
                process.kill()
            return True
        if "index" in record:
            job.skip, job.member = record["index"] + 1, str(record.get("name"))
        elif record.get("ended") == "memory":
            self._ended(process, Ending.MEMORY)
            return True
        elif "ended" in record:
            self._fail(job, ReaderCrashError(f"its reader failed ({record.get('what')!s:.200})"))
        elif "ready" not in record:
            job.add(wire.from_record(record), size)
        return False

    def _ended(self, process: ReaderProcess, ending: Ending) -> None:
        job = self._busy.pop(process)
        process.kill()
        caps = self._caps
        megabytes = f"{caps.memory // 1_000_000:,} MB"
        if ending is Ending.TIME:
            error: DocumentError = DocumentTooLargeError(
                f"reading it took more than {caps.seconds:g} seconds"
            )
        elif ending is Ending.MEMORY:
            error = DocumentTooLargeError(f"reading it takes more than {megabytes} of memory")
        else:
            error = ReaderCrashError(
                f"its reader's process died of it ({process.last_words})",
                hint=f"it is damaged, made to do harm, or takes more than {megabytes} to read",
            )
        self._fail(job, error)

    def _fail(self, job: _Job, error: DocumentError) -> None:
        job.fail(error)
        if not job.done:
            self._again.append(job)
