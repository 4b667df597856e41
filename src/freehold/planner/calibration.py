# SPDX-License-Identifier: Apache-2.0
"""What runs on this machine took beside what was predicted of them, and what follows from it.

Every run leaves a line: phase, kind of model, predicted and real seconds. No name of a model, no
text. The file is bounded; lines of another machine do not count. Knows no arithmetic of models:
what is predicted comes from `speed`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Phase = Literal["load", "prefill", "decode"]
PHASES: tuple[Phase, ...] = ("load", "prefill", "decode")

FILE_NAME = "runs.jsonl"
MAX_BYTES = 128 << 10
MAX_RECORDS = 400  # that are kept when the file has grown beyond that
_LATEST = 24  # of a kind that count: a machine changes, and so do we
_LONGEST_LINE = 400
# A prediction may be off by so much where nothing is known, and by so much where much is: the
# machine has other things to do.
_BLIND_SPREAD = 1.5
_LEAST_SPREAD = 1.15
# More than this beside a prediction is no property of the machine: it swapped, or it slept.
_BELIEVABLE = 20.0


@dataclass(frozen=True, slots=True)
class Record:
    """One phase of one run."""

    phase: Phase
    kind: str  # of model: "Q4_K", "Q4_K experts"
    predicted: float  # seconds, uncalibrated
    actual: float


@dataclass(frozen=True, slots=True)
class Factor:
    """By what a prediction is to be multiplied: probably by `middle`, likely by `low` to `high`."""

    middle: float
    low: float
    high: float
    runs: int  # it is drawn from; 0 = from none


class Calibration:
    """What is known of one machine."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._ratios: dict[tuple[Phase, str], list[float]] = {}
        for record in records:
            ratio = record.actual / record.predicted
            if 1 / _BELIEVABLE < ratio < _BELIEVABLE:
                self._ratios.setdefault((record.phase, record.kind), []).append(ratio)

    def factor(self, phase: Phase, kind: str) -> Factor:
        """From runs of this kind of model; else from those of all kinds together."""
        own = self._ratios.get((phase, kind), [])[-_LATEST:]
        if own:
            return _factor(own, 1.0 if len(own) > 1 else 1.1)
        others = [
            statistics.median(ratios[-_LATEST:])
            for (other, _), ratios in self._ratios.items()
            if other == phase
        ]
        if others:
            return _factor(others, 1.2)
        return Factor(1.0, 1 / _BLIND_SPREAD, _BLIND_SPREAD, 0)


def _factor(ratios: list[float], doubt: float) -> Factor:
    middle = statistics.median(ratios)
    ordered = sorted(ratios)
    tenth = len(ordered) // 10
    low, high = ordered[tenth], ordered[-1 - tenth]
    spread = _LEAST_SPREAD * doubt
    return Factor(middle, min(low, middle / spread), max(high, middle * spread), len(ratios))


def load_calibration(folder: Path | None, fingerprint: str) -> Calibration:
    """What the file in `folder` knows of the machine; nothing where there is none."""
    return Calibration(_read(folder, fingerprint)) if folder is not None else Calibration()


def _read(folder: Path, fingerprint: str) -> list[Record]:
    try:
        with (folder / FILE_NAME).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_BYTES))
            lines = file.read(MAX_BYTES).split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(line)
            record = Record(said["phase"], str(said["kind"]), *map(float, said["seconds"]))
            if said["machine"] == fingerprint and _sound(record):
                found.append(record)
    return found


def _sound(record: Record) -> bool:
    times = (record.predicted, record.actual)
    return record.phase in PHASES and all(math.isfinite(t) and t > 0 for t in times)


def remember(folder: Path | None, fingerprint: str, records: Iterable[Record]) -> None:
    """Add records to the file. Never fails: who cannot remember has still run the model."""
    lines = [
        json.dumps(
            {
                "phase": r.phase, "kind": r.kind[:40], "seconds": [r.predicted, r.actual],
                "machine": fingerprint, "at": int(time.time()),
            }
        )
        for r in records
        if _sound(r)
    ]  # fmt: skip
    if folder is None or not lines:
        return
    data = "".join(f"{line}\n" for line in lines if len(line) < _LONGEST_LINE).encode()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        # One write of a short text at the end of a file: several processes may do so at once.
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)
        if path.stat().st_size > MAX_BYTES:
            _shorten(path)


def _shorten(path: Path) -> None:
    """Keep the latest records. What another process adds meanwhile may be lost, and is no loss."""
    kept = path.read_bytes()[-MAX_BYTES:].split(b"\n")[1:]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(b"\n".join(kept[-MAX_RECORDS:]))
    partial.replace(path)
