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
_BUSY_COUNTS_FOR = 86400.0


def fingerprint(machine: Machine) -> str:
    """What tells this machine, as it may be used now, from others. No serial number, no name."""
    marks = (processor_name(), machine.cores, machine.total >> 28, env_threads(), env_isa())
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:16]


def record_mark(machine: Machine) -> str:
    """Under what runs are remembered: predictions made with other rates say nothing of these."""
    rates = machine.rates
    return f"{fingerprint(machine)}-{rates.read / 1e8:.0f}-{rates.int8 / 1e9:.0f}"


def known_rates(machine: Machine, folder: Path | None) -> Rates | None:
    """What was measured of this machine before, or None; nor does it count what was measured more
    than a day ago while the machine was busy."""
    if folder is None:
        return None
    try:
        with (folder / FILE_NAME).open("rb") as file:
            kept = json.loads(file.read(1 << 16))
        if kept["format"] != _FORMAT or kept["fingerprint"] != fingerprint(machine):
            return None
        if kept["busy"] and not 0 <= time.time() - kept["measured"] < _BUSY_COUNTS_FOR:
            return None
        read, int8, fill = (float(kept[key]) for key in ("read", "int8", "fill"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not all(0 < rate < math.inf for rate in (read, int8, fill)):
        return None
    return Rates(read, int8, fill, measured=True)


def measure(machine: Machine, folder: Path | None) -> Rates:
    """Measure and keep the result; a typical machine's numbers where the kernels do not load. A
    folder that cannot be written to costs the keeping only."""
    busy = psutil.cpu_percent(_LOOK_SECONDS) > _BUSY_PERCENT
    try:
        found = rates_of(backends.create("cpu"))
    except FreeholdError:
        found = None
    if found is None:
        return TYPICAL
    fill = _FILL_BYTES / max(1e-6, seconds_to_occupy(_FILL_BYTES, machine.cores))
    rates = replace(found, fill=fill)
    if folder is not None:
        content = {
            "format": _FORMAT, "fingerprint": fingerprint(machine), "read": rates.read,
            "int8": rates.int8, "fill": rates.fill, "measured": int(time.time()), "busy": busy,
        }  # fmt: skip
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{FILE_NAME}.{os.getpid()}"
            partial.write_text(json.dumps(content), "utf-8")
            partial.replace(folder / FILE_NAME)
    return rates


def rates_of(ops: Any) -> Rates | None:
    """What an open backend measures of its device now, or None where it measures nothing."""
    ask = getattr(ops, "machine_limits", None)
    found = ask() if ask is not None else None
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
