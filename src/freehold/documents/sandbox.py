# SPDX-License-Identifier: Apache-2.0
"""Running Python that a model wrote, with tests, where it can do no harm.

A folder that is thrown away, a process with limits and without rights (`_sandbox_child`): no
network, no other process, nothing written or read outside of the folder but Python itself. Where
the kernel cannot hold the code to that it is not run, unless the caller insists, and the report
says what was missing. Knows no model and no task.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from freehold.documents import _sandbox_child as child
from freehold.errors import CapacityError, InvalidParameterError

MAX_FILES = 64
MAX_BYTES = 1_000_000  # of all files together
_REPORT = 4_000  # characters that are kept of what was printed: its end
_FOLDER_BYTES = 64_000_000
_FOLDER_FILES = 2_000
_TICK = 0.05
_FAILING = re.compile(r"assert|fail|exit|_exit|abort|test|main")  # calls that may say no
Ended = Literal["passed", "failed", "time", "memory", "disk", "refused"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the code gets. `strict`: nothing runs where the kernel cannot hold it."""

    seconds: float = 10.0  # of real time, and of the processor
    memory: int = 512 << 20  # bytes of address space, Python included
    file_bytes: int = 8_000_000
    strict: bool = True

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 3600:
            raise InvalidParameterError("tests get between 0.1 and 3,600 seconds")
        if not 64 << 20 <= self.memory <= 1 << 40:
            raise InvalidParameterError("tests get at least 64 MB of memory")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, the end of what it printed, what held it (`layers`) and what should have and
    did not (`gaps`)."""

    ended: Ended
    report: str
    seconds: float
    layers: tuple[str, ...]
    gaps: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the tests came to their end, all of them sound."""
        return self.ended == "passed"


def checked_path(name: str) -> str:
    """A relative path of a file that stays in its folder. Raises InvalidParameterError."""
    path = PurePosixPath(name)
    wrong = (
        not name or len(name) > 200 or path.is_absolute() or ".." in path.parts
        or any(character < " " or character in '\\:*?"<>|' for character in name)
        or any(part.startswith((".", "-")) for part in path.parts) or name.endswith("/")
    )  # fmt: skip
    if wrong:
        raise InvalidParameterError(f"{name!r:.80} is no path inside a folder")
    return str(path)


def check_tests(source: str) -> None:
    """Raise InvalidParameterError for tests that are no Python, or in which nothing can fail: files
    would be said to pass that nobody tested."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidParameterError(f"the tests are not Python: {error!s:.200}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert | ast.Raise):
            return
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            return
        if isinstance(node, ast.Call) and _FAILING.match(ast.unparse(node.func).split(".")[-1]):
            return
    raise InvalidParameterError(
        "nothing in the tests can fail", hint="write asserts, functions called test… or unittest"
    )


def run_tests(
    files: Mapping[str, str], tests: str, bounds: Bounds | None = None, *,
    without: tuple[str, ...] = (),
) -> Verdict:  # fmt: skip
    """Run `tests` in a folder with `files`: its statements, then its functions called test… and its
    cases of unittest. `without` leaves layers out, for tests of what is then said.

    Raises InvalidParameterError for files that are too many, too large, or named to leave the
    folder; CapacityError where no process can be started.
    """
    bounds = bounds or Bounds()
    total = sum(len(text.encode("utf-8", "replace")) for text in (*files.values(), tests))
    if len(files) > MAX_FILES or total > MAX_BYTES:
        raise InvalidParameterError(f"more than {MAX_FILES} files or {MAX_BYTES:,} bytes")
    with tempfile.TemporaryDirectory(prefix="freehold-code-") as outer:
        folder = Path(outer, "work").resolve()
        folder.mkdir()
        for name, text in files.items():
            path = folder / checked_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", errors="replace")
        program = folder / f"tests_{secrets.token_hex(4)}.py"
        program.write_text(tests, encoding="utf-8", errors="replace")
        return _run(folder, Path(outer, "printed"), program, bounds, without)


def _run(
    folder: Path, printed: Path, program: Path, bounds: Bounds, without: tuple[str, ...]
) -> Verdict:
    token = secrets.token_hex(16)
    reading, writing = os.pipe()
    told = {
        "folder": str(folder), "program": str(program), "token": token, "pipe": writing,
        "seconds": int(bounds.seconds) + 1, "memory": bounds.memory,
        "file_bytes": bounds.file_bytes, "strict": bounds.strict, "without": list(without),
        "readable": [*child.READABLE, sys.base_prefix, sys.exec_prefix, child.__file__],
    }  # fmt: skip
    started = time.monotonic()
    try:
        with printed.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", child.__file__],
                stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=folder,
                env={"HOME": str(folder), "PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
                pass_fds=[writing], start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise CapacityError(f"no process can be started for tests: {error.strerror}") from None
    os.close(writing)
    try:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass
        broken = _wait(process, folder, started + bounds.seconds)
        said = _read_all(reading)
    finally:
        _end(process)
        os.close(reading)
    return _verdict(process, broken, said, token, printed, time.monotonic() - started)


def _verdict(
    process: subprocess.Popen[bytes], broken: Ended | None, said: bytes, token: str,
    printed: Path, seconds: float,
) -> Verdict:  # fmt: skip
    first, _, rest = said.partition(b"\n")
    try:
        state = json.loads(first)
    except ValueError:
        state = {"layers": [], "gaps": ["the process did not come to the point of saying"]}
    report = printed.read_bytes()[-4 * _REPORT :].decode("utf-8", "replace")[-_REPORT:].strip()
    ended: Ended = "failed"
    if broken is not None:
        ended = broken
    elif process.returncode == 3 and state["gaps"]:
        ended, report = "refused", "; ".join(state["gaps"])
    elif process.returncode == 0 and rest == token.encode():
        ended = "passed"
    elif process.returncode == -signal.SIGXCPU or process.returncode == -signal.SIGKILL:
        ended = "time"
    elif process.returncode == -signal.SIGXFSZ:
        ended = "disk"
    elif "MemoryError" in report[-200:]:
        ended = "memory"
    return Verdict(ended, report, seconds, tuple(state["layers"]), tuple(state["gaps"]))


def _wait(process: subprocess.Popen[bytes], folder: Path, until: float) -> Ended | None:
    """Until the process ends, its time is up or its folder too full."""
    while process.poll() is None:
        if time.monotonic() > until:
            return "time"
        if _is_full(folder):
            return "disk"
        try:
            process.wait(_TICK)
        except subprocess.TimeoutExpired:
            continue
    return None


def _is_full(folder: Path) -> bool:
    size = count = 0
    for root, _, names in os.walk(folder):
        for name in names:
            count += 1
            try:
                size += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 - many of them
            except OSError:
                continue
            if count > _FOLDER_FILES or size > _FOLDER_BYTES:
                return True
    return False


def _read_all(pipe: int) -> bytes:
    """What was said, without waiting for whoever may still hold the pipe."""
    found = b""
    while len(found) < 1 << 16 and select.select([pipe], [], [], 0)[0]:
        piece = os.read(pipe, 1 << 12)
        if not piece:
            break
        found += piece
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
