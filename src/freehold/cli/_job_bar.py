# SPDX-License-Identifier: Apache-2.0
"""How far a job is, while it runs and at its end, on stderr. Knows counts, no items."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from freehold.cli import console

if TYPE_CHECKING:
    from freehold.documents.jobs import JobSummary, Tally


@contextmanager
def job_bar(title: str, total: int | None) -> Iterator[Callable[[Tally], None] | None]:
    """Items, rate, time left and cache hits, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )  # fmt: skip
    started = time.monotonic()
    # Answers go to stdout meanwhile: the bar, which is on stderr, must not take them over.
    with Progress(
        *columns, console=Console(stderr=True), transient=True,
        redirect_stdout=False, redirect_stderr=False,
    ) as bar:  # fmt: skip
        task = bar.add_task(console.one_line(title, 30), total=total, pace="")

        def update(tally: Tally) -> None:
            known = (
                tally.seen if tally.all_seen else None if total is None else max(total, tally.seen)
            )
            pace = pace_of(tally, known, time.monotonic() - started)
            bar.update(task, completed=tally.done, total=known, pace=pace)

        yield update


def pace_of(tally: Tally, total: int | None, seconds: float) -> str:
    """``12.3/s, 4 min left, 1,234 found, 2 failed``: rate and time left count what was computed
    here; what an earlier run or another item has answered takes no time."""
    rate = tally.computed / max(seconds, 1e-9)
    parts = [f"{console.rate(rate)}/s"]
    if total is not None and tally.computed:
        left = max(total - tally.done, 0)
        done = tally.done - tally.known
        # Of what is left, as many will be found as were found of what is done.
        new = left * (tally.computed / done if done else 1.0)
        parts.append(f"{duration(new / rate)} left")
    found = tally.known + tally.shared
    if found:
        parts.append(f"{found:,} found")
    if tally.errors:
        parts.append(f"{tally.errors:,} failed")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def tell(summary: JobSummary) -> None:
    """The end of a run in one line, and what to do next in another."""
    tally = summary.tally
    parts = [f"{tally.ok:,} answered"]
    if tally.errors:
        parts.append(f"{tally.errors:,} failed")
    if tally.known:
        parts.append(f"{tally.known:,} known from before")
    if tally.shared:
        parts.append(f"{tally.shared:,} the same as another")
    rate = ""
    if tally.computed:
        rate = f", {console.rate(tally.computed / max(summary.seconds, 1e-9))} per second"
    spent = f"{summary.seconds:.1f} s" if summary.seconds < 90 else duration(summary.seconds)
    console.note(f"{summary.name}: {', '.join(parts)} in {spent}{rate}")
    if summary.state == "cancelled":
        console.note(f"cancelled; `freehold jobs resume {summary.name}` goes on")
    elif tally.errors:
        console.note(
            f"`freehold jobs show {summary.name}` tells why; "
            f"`freehold jobs resume {summary.name} --retry-errors` asks again"
        )
