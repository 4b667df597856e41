# SPDX-License-Identifier: Apache-2.0
"""Scores of an answer against what the generator knows. Knows no model.

Units: fields for extract, key facts for summarize, words for chat, one for classify and code. The
output of a model is hostile input: code runs in a process of its own (`python -I`) without
environment, in an empty folder of its own, under limits of time, memory, processes and file size.
That keeps accidents in check; it is no jail for a determined attacker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.seedling.example import Example

LONGEST_OUTPUT = 20_000  # characters; what is longer is wrong without being read
_SECONDS = 5
_CPU_SECONDS = 2
_MEMORY = 512 * 1024 * 1024  # bytes of address space
_FILE = 64 * 1024  # bytes


@dataclass(frozen=True)
class Score:
    """`correct` of `total` units; `whole` when the answer as a whole is right."""

    correct: int
    total: int
    whole: bool


def score(example: Example, output: str) -> Score:
    """The score of `output` (without end mark) as the answer to `example`; never raises on it."""
    if len(output) > LONGEST_OUTPUT:
        output = ""
    facts = example.facts
    if example.task == "classify":
        return _units([output.strip() == facts["label"]])
    if example.task == "extract":
        return _fields(facts["fields"], output)
    if example.task == "summarize":
        line = output.strip()
        present = [fact in line for fact in facts["key_facts"]]
        return Score(sum(present), len(present), all(present) and "\n" not in line)
    if example.task == "code":
        return _units([passes(facts["beginning"], output, facts["tests"])])
    return _units([word in output for word in facts["words"]])


def passes(beginning: str, body: str, tests: str, seconds: float = _SECONDS) -> bool:
    """True when the function `beginning` + `body` passes `tests` within the limits.

    The body may be indented or not and may stand in a code fence; it may also repeat the function.
    The verdict is a random word printed after the last test, so that leaving early with a code of
    zero does not pass.
    """
    token = os.urandom(16).hex()
    program = "\n".join((beginning.rstrip("\n"), _indented(body), tests, f"print({token!r})", ""))
    with tempfile.TemporaryDirectory(prefix="seedling-") as folder:
        path = Path(folder, "candidate.py")
        try:
            path.write_text(program, encoding="utf-8")
        except UnicodeEncodeError:
            return False
        return _run(path, folder, seconds).strip().endswith(token)


def _run(path: Path, folder: str, seconds: float) -> str:
    """What the program prints; empty when it failed or ran out of its limits."""
    report = Path(folder, "printed")
    # To a file, not to a pipe: the limit of the file size then bounds what is printed as well.
    with report.open("wb") as printed:
        process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-S", "-c", _LIMITED, str(path)],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(process)
    return report.read_bytes().decode(errors="replace") if code == 0 else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


# The limits are set inside the child: nothing of it runs between fork and exec in the parent.
_LIMITED = f"""
import resource, sys
for kind, most in ((resource.RLIMIT_CPU, {_CPU_SECONDS}), (resource.RLIMIT_AS, {_MEMORY}),
                   (resource.RLIMIT_FSIZE, {_FILE}), (resource.RLIMIT_CORE, 0),
                   (resource.RLIMIT_NOFILE, 16)):
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))
source = open(sys.argv[1], encoding="utf-8").read()
exec(compile(source, "candidate", "exec"), {{"__name__": "candidate"}})
"""


def _indented(body: str) -> str:
    lines = body.strip("\n").replace("\t", "    ").split("\n")
    if lines and lines[0].lstrip().startswith("```"):
        lines = [line for line in lines if not line.lstrip().startswith("```")]
    filled = [line for line in lines if line.strip()]
    if filled and filled[0].startswith(("def ", "from ", "import ")):
        return "    pass\n" + "\n".join(lines)
    if filled and not filled[0].startswith(" "):
        lines = [f"    {line}" for line in lines]
    return "\n".join(lines) or "    pass"


def _fields(wanted: Mapping[str, str | None], output: str) -> Score:
    try:
        answer: Any = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        return Score(0, len(wanted), False)
    missing = object()
    right = [answer.get(name, missing) == value for name, value in wanted.items()]
    return Score(sum(right), len(right), all(right) and list(answer) == list(wanted))


def _units(right: list[bool]) -> Score:
    return Score(sum(right), len(right), all(right))
