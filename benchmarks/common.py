# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: worker processes, the machine's fingerprint, limits, tables.

Knows how to compare numbers; knows no engine.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Instruction sets that decide which kernel runs.
FLAGS_OF_NOTE = (
    *("avx2", "f16c", "fma", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),
)


class WorkerError(RuntimeError):
    """The worker died or answered with an error."""


class Worker:
    """An engine in its own process, stopped (SIGSTOP) whenever it is not its turn.

    Stopping matters: thread pools of some engines spin for a while after their last job and
    would take time from the next engine.
    """

    def __init__(self, name: str, python: str, script: str) -> None:
        self.name = name
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.paused = False

    def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one command, wait for its answer."""
        if self.paused:
            self.process.send_signal(signal.SIGCONT)
            self.paused = False
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"{self.name}: the worker process is gone") from None
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: the worker died during {op!r} (its stderr is above)")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self.name}: {op}: {reply['error']}")
        return reply

    def pause(self) -> None:
        if not self.paused:
            self.process.send_signal(signal.SIGSTOP)
            self.paused = True

    def close(self) -> None:
        if self.paused:
            self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            self.process.wait(timeout=5)  # a worker interrupted in a long call is not waited for
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model that set the machine's limit for it."""

    weights_in_layers: int  # matrix elements multiplied for every token
    weights_in_output: int  # the output matrix, needed only where logits are wanted
    bytes_per_token: int  # weight bytes one decoded token reads
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    def prefill_limit(self, n: int, int8_ops: float, attention_flops: float) -> float:
        """tok/s if every int8 unit were busy all the time; attention at its own peak."""
        matrix = 2.0 * (self.weights_in_layers * n + self.weights_in_output) / int8_ops
        width = self.num_heads * self.head_dim
        # q·k and p·v: 2 operations each, over half of the n x n square.
        attention = 2.0 * width * n * n * self.num_layers / attention_flops
        return n / (matrix + attention)

    def decode_limit(
        self, depth: int, streams: int, bytes_per_second: float, int8_ops: float
    ) -> float:
        """tok/s of all streams: weights read once a step, f16 keys and values once a stream."""
        kv = 2 * 2 * self.num_kv_heads * self.head_dim * self.num_layers * depth
        read = (self.bytes_per_token + kv * streams) / bytes_per_second
        multiply = 2.0 * (self.weights_in_layers + self.weights_in_output) * streams / int8_ops
        return streams / max(read, multiply)


def limits_of(ops: Any) -> dict[str, float]:
    """A freehold backend's measured limits in bytes and operations per second.

    Empty where the backend measures none; attention falls back to half the int8 rate, which is
    what bf16 products reach where the processor has them.
    """
    measure = getattr(ops, "machine_limits", None)
    found: Mapping[str, float] = measure() if measure is not None else {}
    if not found:
        return {}
    int8 = found["int8_gops"] * 1e9
    floats = max(found.get("bf16_gflops", 0.0), found.get("f32_gflops", 0.0)) * 1e9
    return {
        "read_bytes": found["read_gbps"] * 1e9,
        "int8_ops": int8,
        "attention_flops": floats or int8 / 2,
    }


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def command_line() -> str:
    """The command as typed, without the folders of this machine."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return shlex.join(["python", *(Path(w).name if os.sep in w else w for w in words)])


def commit() -> str:
    """Commit of the working tree, with a plus sign when it has changes."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    sha = git("rev-parse", "--short=12", "HEAD")
    return (sha + ("+" if git("status", "--porcelain", "-uno") else "")) or "unknown"


def cpu_model() -> tuple[str, list[str]]:
    """Name of the processor and those of its flags that choose a kernel."""
    name, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    return name, [flag for flag in FLAGS_OF_NOTE if flag in flags]


def fingerprint() -> dict[str, Any]:
    """What a reader needs to judge whether two runs may be compared."""
    name, flags = cpu_model()
    meminfo = Path("/proc/meminfo")
    memory = 0
    if meminfo.exists():
        memory = int(meminfo.read_text().split("MemTotal:")[1].split()[0]) * 1024
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    versions = {"python": platform.python_version()}
    for package in ("freehold", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)),
        "flags": flags,
        "memory_bytes": memory,
        "kernel": f"{platform.system()} {platform.release()}",
        "huge_pages": huge_pages.read_text().strip() if huge_pages.exists() else "unknown",
        "load_average": os.getloadavg()[0],
        "versions": versions,
    }


def busy_seconds() -> float:
    """Seconds all processors were busy with anything, or taken by the host, since boot."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def header(benchmark: str) -> dict[str, Any]:
    """The part of the JSON line every benchmark shares."""
    return {
        "benchmark": benchmark,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "command": command_line(),
        "commit": commit(),
        "machine": fingerprint(),
    }


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text table: first column left, the others right."""
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        parts = [str(cells[0]).ljust(widths[0])]
        parts += [str(cell).rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(columns), line(["-" * width for width in widths]), *map(line, rows)])


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def finish(result: Mapping[str, Any], output: str | None) -> None:
    """The one last line of JSON, and the same in a file when asked for."""
    line = json.dumps(result, separators=(",", ":"))
    if output:
        Path(output).write_text(line + "\n")
    say(line)
