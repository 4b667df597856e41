# SPDX-License-Identifier: Apache-2.0
"""The process in which documents are read. Asked by lines on stdin, answers by frames on stdout.

Knows its own limits, which the kernel keeps: memory, time for each document, no file written, no
process started, and where the kernel lets it (user namespaces), no network. When a document breaks
one, the process ends; what that means is for the one who asked to say.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from freehold.documents import _reading_wire as wire
from freehold.documents import readers
from freehold.documents.document import Limits

_FLUSH_BYTES = 1 << 16
_FLUSH_SECONDS = 0.1
_OPEN_FILES = 64
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # of Linux's sched.h
_DYING = b'\0\0\0\x12{"ended":"memory"}'  # made beforehand: there may be no memory to make it in


def main() -> None:
    """Serve until stdin ends."""
    terms = json.loads(sys.stdin.buffer.readline())
    memory = terms["memory"]
    limits = Limits(**terms["limits"])
    for what, most in (
        (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES), (resource.RLIMIT_NPROC, 0),
    ):  # fmt: skip
        resource.setrlimit(what, (most, most))
    _leave_network()
    # Whatever a library prints must not get between the frames.
    pipe = os.dup(1)
    os.dup2(2, 1)
    answers = _Answers(pipe)
    clock = _Clock(terms["seconds"])
    answers.around = clock.paused
    answers.send({"ready": True})
    answers.flush()
    for line in sys.stdin.buffer:
        try:
            _serve(json.loads(line), limits, clock, answers)
        except MemoryError:
            os.write(pipe, _DYING)
            os._exit(1)
        tired = _address_space() > memory // 2  # libraries keep some of what they were given
        answers.send({"done": True, "tired": tired})
        answers.flush()


def _serve(request: dict[str, Any], limits: Limits, clock: _Clock, answers: _Answers) -> None:
    def entering(index: int, name: str) -> None:
        answers.send({"index": index, "name": name})
        answers.flush()
        clock.start()

    found = readers.scan(
        os.fsdecode(bytes.fromhex(request["path"])), limits, source=request["source"],
        skip=request["skip"], entering=entering,
    )  # fmt: skip
    clock.start()
    try:
        for document in found:
            clock.start()
            answers.send(wire.to_record(document))
    except (MemoryError, BrokenPipeError):
        raise
    except Exception as error:  # a reader must not let this out; the others go on all the same
        answers.send({"ended": "bug", "what": f"{type(error).__name__}: {error}"[:300]})
    clock.stop()


class _Clock:
    """Ends this process when a document takes too long, wherever in C it may be stuck."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = -seconds

    def start(self) -> None:
        """From now, or a moment ago: rows of a table come by the ten thousand a second."""
        now = time.monotonic()
        if now - self._started < min(0.1, 0.1 * self._seconds):
            return
        self._started = now
        used = time.process_time()
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + self._seconds) + 2, most))
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._started = -self._seconds

    def paused(self, action: Callable[[], None]) -> None:
        """Waiting for the one who asked to listen costs a document no time."""
        self.stop()
        action()
        self.start()


class _Answers:
    """Frames, written some at a time."""

    def __init__(self, pipe: int) -> None:
        self._file = io.FileIO(pipe, "wb")
        self._waiting = bytearray()
        self._flushed = time.monotonic()
        self.around: Callable[[Callable[[], None]], None] = lambda action: action()

    def send(self, record: dict[str, Any]) -> None:
        self._waiting += wire.frame(record)
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if late or len(self._waiting) > _FLUSH_BYTES:
            self.around(self.flush)

    def flush(self) -> None:
        view = memoryview(self._waiting)
        while view:
            view = view[self._file.write(view) :]
        view.release()
        self._waiting = bytearray()
        self._flushed = time.monotonic()


def _leave_network() -> None:
    """Go where no network is. Not every system allows it; then a reader is only trusted."""
    # A user's own namespace gives the right to the other; root has it, and would lose its files.
    flags = _NEW_NETWORK if os.geteuid() == 0 else _NEW_NETWORK | _NEW_USER
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(flags)


def _address_space() -> int:
    """Bytes, as the kernel counts them for the limit."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is not worth importing
        return int(file.read().split()[0]) * resource.getpagesize()
