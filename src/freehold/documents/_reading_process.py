# SPDX-License-Identifier: Apache-2.0
"""One process that reads documents, seen from outside: started, asked, listened to, ended."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import freehold
from freehold.documents import _reading_wire as wire
from freehold.documents.document import Limits
from freehold.errors import CapacityError

# -I and -S: neither the environment nor the current folder says what is imported.
_PROGRAM = (
    "import sys; sys.path.extend(sys.argv[1:]);"
    "from freehold.documents._reading_worker import main; main()"
)


class Ending(enum.Enum):
    """Why a process ended while it read."""

    TIME = enum.auto()
    MEMORY = enum.auto()
    ABORT = enum.auto()  # by itself, as it does when there is no memory left
    CRASH = enum.auto()
    BAD = enum.auto()  # it said something that readers do not say


class ReaderProcess:
    """Started at once; raises CapacityError when it cannot be."""

    def __init__(self, limits: Limits, memory: int, seconds: float) -> None:
        root = str(Path(freehold.__file__).parents[1])
        places = [root, *(path for path in sys.path if path and path != root)]
        try:
            # A session of its own, so that an interrupt at the terminal is the caller's alone; no
            # environment, for it may hold keys.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, *places],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                bufsize=0, start_new_session=True, env={},
            )  # fmt: skip
        except OSError as error:
            raise CapacityError(f"no process to read documents in: {error.strerror}") from None
        assert self._process.stdout is not None
        self.pipe = self._process.stdout.fileno()
        self.frames = wire.Frames(limits)
        self.heard = time.monotonic()
        self.asked = 0  # files so far
        self.tired = False  # to be replaced when it has read what it was asked for
        self.last_words = "without a word"
        self._spoken = False
        terms = {"memory": memory, "seconds": seconds, "limits": dataclasses.asdict(limits)}
        self._write(json.dumps(terms).encode() + b"\n")

    def ask(self, request: bytes) -> None:
        """Give it a line that says what to read."""
        self.asked += 1
        self._write(request)

    def read(self) -> bytes:
        """What it has said since; nothing when it has ended."""
        data = os.read(self.pipe, 1 << 20)
        self.heard = time.monotonic()
        self._spoken = self._spoken or bool(data)
        return data

    def ending(self) -> Ending:
        """Why it closed its pipe. Raises CapacityError when it never got to work."""
        # It may have closed the pipe and gone on; if it has ended, this changes nothing.
        self._process.kill()
        status = self._process.wait()
        if not self._spoken:
            raise CapacityError(
                f"the process to read documents in ended before it began ({sys.executable})"
            )
        if status < 0:
            self.last_words = signal.Signals(-status).name
            if -status in (signal.SIGALRM, signal.SIGXCPU):
                return Ending.TIME
            # What C++ does when it is refused memory, and seldom for another reason. How much was
            # in use cannot be asked: the kernel counts in what this process had at the start.
            if -status == signal.SIGABRT:
                return Ending.ABORT
        else:
            self.last_words = f"exit status {status}"
        return Ending.CRASH

    def kill(self) -> None:
        """Without regard to what it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        # An end will be noticed where answers are awaited.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(data)
