# SPDX-License-Identifier: Apache-2.0
"""Measure this machine once: what its memory and its multipliers give, and how fast it hands out
memory. Takes about two seconds; the result is kept among the user's data.

Knows where the result lies and when it is another machine's. Does not know what it is used for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from freehold import backends
from freehold.config import env_isa, env_threads
from freehold.errors import FreeholdError
from freehold.planner.machine import TYPICAL, Machine, Rates, processor_name

FILE_NAME = "machine.json"
_FORMAT = 1
_FILL_BYTES = 256 << 20
_LOOK_SECONDS = 0.3
_BUSY_PERCENT = 20.0  # of all processors
_BUSY_COUNTS_FOR = 600.0
_BUFFER_BYTES = 512 << 20
_LEAST_BUFFER = 64 << 20
_NAMES = ("read", "int8", "fill")


def fingerprint(machine: Machine) -> str:
    """What tells this machine, as it may be used now, from others. No serial number, no name."""
    marks = (processor_name(), machine.cores, machine.total >> 28, env_threads(), env_isa())
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:16]


def record_mark(machine: Machine) -> str:
    """Under what runs are remembered: predictions made with other rates say nothing of these."""
    rates = machine.rates
    return f"{fingerprint(machine)}-{rates.read / 1e8:.0f}-{rates.int8 / 1e9:.0f}"


def known_rates(machine: Machine, folder: Path | None) -> Rates | None:
    """What was measured of this machine before, or None."""
    return _kept(machine, folder)[0]


def is_due(machine: Machine, folder: Path | None) -> bool:
    """Whether the machine should be measured: it was not, or while it was busy, some time ago."""
    rates, busy, measured = _kept(machine, folder)
    return rates is None or (busy and not 0 <= time.time() - measured < _BUSY_COUNTS_FOR)


def _kept(machine: Machine, folder: Path | None) -> tuple[Rates | None, bool, float]:
    """Rates, whether the machine was busy then, and when that was."""
    nothing = None, False, 0.0
    if folder is None:
        return nothing
    try:
        with (folder / FILE_NAME).open("rb") as file:
            kept = json.loads(file.read(1 << 16))
        if kept["format"] != _FORMAT or kept["fingerprint"] != fingerprint(machine):
            return nothing
        busy, measured = bool(kept["busy"]), float(kept["measured"])
        read, int8, fill = (float(kept[key]) for key in ("read", "int8", "fill"))
    except (OSError, ValueError, KeyError, TypeError):
        return nothing
    if not all(0 < rate < math.inf for rate in (read, int8, fill)):
        return nothing
    return Rates(read, int8, fill, measured=True), busy, measured


def measure(machine: Machine, folder: Path | None) -> Rates:
    """Measure and keep the result; a typical machine's numbers where the kernels do not load. A
    folder that cannot be written to costs the keeping only."""
    busy = psutil.cpu_percent(_LOOK_SECONDS) > _BUSY_PERCENT
    try:
        room = max(_LEAST_BUFFER, min(_BUFFER_BYTES, machine.free // 4))
        found = rates_of(backends.create("cpu"), buffer_bytes=room)
    except FreeholdError:
        found = None
    if found is None:
        return TYPICAL
    nbytes = min(_FILL_BYTES, room)
    fill = nbytes / max(1e-6, seconds_to_occupy(nbytes, machine.cores))
    rates = replace(found, fill=fill)
    before = known_rates(machine, folder)
    if busy and before is not None:
        # Other work can only make a machine look slower than it is.
        rates = replace(rates, **{k: max(getattr(rates, k), getattr(before, k)) for k in _NAMES})
    if folder is not None:
        content = {
            "format": _FORMAT, "fingerprint": fingerprint(machine), "measured": int(time.time()),
            "busy": busy, **{name: getattr(rates, name) for name in _NAMES},
        }  # fmt: skip
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{FILE_NAME}.{os.getpid()}"
            partial.write_text(json.dumps(content), "utf-8")
            partial.replace(folder / FILE_NAME)
    return rates


def rates_of(ops: Any, **options: Any) -> Rates | None:
    """What an open backend measures of its device now, or None where it measures nothing."""
    ask = getattr(ops, "machine_limits", None)
    found = ask(**options) if ask is not None else None
    if not found or not all(found.get(key) for key in ("read_gbps", "int8_gops")):
        return None
    return Rates(found["read_gbps"] * 1e9, found["int8_gops"] * 1e9, measured=True)


def seconds_to_occupy(size: int, threads: int) -> float:
    """Seconds from asking for `size` bytes of memory until all of them are there, in huge pages
    where there are any. An engine that arranges weights anew cannot load faster."""
    began = time.perf_counter()
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(memory, np.uint8)[:: mmap.PAGESIZE]
        parts = np.array_split(pages, threads)
        workers = [threading.Thread(target=part.fill, args=(1,)) for part in parts]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        seconds = time.perf_counter() - began
        del pages, parts, workers
    return seconds
