# SPDX-License-Identifier: Apache-2.0
"""What a machine has to run models with: free memory, processors, graphics cards.

Reads what the operating system and the vendors' tools publish. Knows no models, measures nothing
(`probe` does), and never fails: what cannot be read is absent.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

_NVIDIA_SMI_SECONDS = 5.0
_CGROUP = Path("/sys/fs/cgroup")
_DRM = Path("/sys/class/drm")


@dataclass(frozen=True, slots=True)
class Rates:
    """What memory and multipliers of a device give. Bytes and operations per second."""

    read: float
    int8: float
    fill: float = 0.0  # of memory that was not in use yet: what loading can not outrun; 0 = unknown
    measured: bool = False  # or a typical machine's


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card with memory of its own."""

    name: str
    total: int
    free: int
    read: float | None = None  # bytes per second, where it is known


@dataclass(frozen=True, slots=True)
class Machine:
    """Somebody's computer, or one described by a tier."""

    name: str
    total: int  # bytes of RAM
    free: int
    cores: int
    rates: Rates
    gpus: tuple[Gpu, ...] = ()

    @property
    def free_vram(self) -> int:
        return sum(gpu.free for gpu in self.gpus)

    def with_rates(self, rates: Rates) -> Machine:
        return replace(self, rates=rates)


# Until a machine is measured: two channels of DDR4 and AVX2 on four cores give about this.
TYPICAL = Rates(read=30e9, int8=400e9, fill=3e9)


def this_machine(*, gpus: bool = True, rates: Rates = TYPICAL) -> Machine:
    """The machine this runs on, as it is now. `gpus` off spares asking the vendors' tools, which
    takes longer than all the rest."""
    memory = psutil.virtual_memory()
    limit, used = _container_memory()
    total, free = memory.total, memory.available
    if limit is not None:
        total = min(total, limit)
        free = min(free, max(0, limit - used))
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    found = tuple(_all_gpus()) if gpus else ()
    return Machine(platform.node() or "this machine", total, free, max(1, cores), rates, found)


def processor_name() -> str:
    """What the processor calls itself."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _container_memory() -> tuple[int | None, int]:
    """The limit of this process's container, if it has one, and how much of it cannot be had:
    pages of files are given back when they are wanted."""
    limit = _read(_CGROUP / "memory.max") or ""
    if not limit.isdigit():
        return None, 0
    used = _read(_CGROUP / "memory.current") or "0"
    cached = 0
    for line in (_read(_CGROUP / "memory.stat") or "").splitlines():
        if line.startswith("inactive_file "):
            cached = int(line.split()[1])
    return int(limit), max(0, int(used if used.isdigit() else 0) - cached)


def _all_gpus() -> Iterator[Gpu]:
    yield from _nvidia_gpus()
    yield from _amd_gpus()


def _nvidia_gpus() -> Iterator[Gpu]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return
    try:
        done = subprocess.run(
            [tool, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return
    yield from parse_nvidia(done.stdout)


def parse_nvidia(text: str) -> Iterator[Gpu]:
    """Cards out of the lines ``name, total MiB, free MiB``; lines that say otherwise are skipped,
    such as those of cards that tell no sizes."""
    for line in text.splitlines():
        name, *numbers = [part.strip() for part in line.rsplit(",", 2)]
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            total, free = (int(number) << 20 for number in numbers)
            yield Gpu(name[:80], total, min(free, total))


def _amd_gpus() -> Iterator[Gpu]:
    """Cards of the amdgpu driver. Those that have no memory of their own are part of the RAM and
    not counted twice."""
    for card in sorted(_DRM.glob("card[0-9]*/device")):
        total, used = (_read(card / f"mem_info_vram_{what}") or "" for what in ("total", "used"))
        if not (total.isdigit() and used.isdigit()) or int(total) < 2 << 30:
            continue
        name = _read(card / "product_name") or f"AMD {_read(card / 'device') or 'GPU'}"
        yield Gpu(name[:80], int(total), max(0, int(total) - int(used)))


def _read(path: Path) -> str | None:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return None
