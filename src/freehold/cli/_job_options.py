# SPDX-License-Identifier: Apache-2.0
"""What every command that answers documents has in common: flags of its job, its bar, its end.

A command makes items, a task and an asker, and calls `work`. Knows no task.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console

if TYPE_CHECKING:
    from freehold.documents.executors import Executor
    from freehold.documents.jobs import Identity, Item, JobSummary, Journal, Row, Tally, Work

_J = "Job"


@dataclass(frozen=True)
class JobFlags:
    """Where answers go and how a job is gone on with."""

    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the answers here: .jsonl, .csv, .sqlite or .parquet; default: JSON Lines "
            "on stdout.",
            rich_help_panel=_J,
            show_default=False,
        ),
    ] = None
    job: Annotated[
        str | None,
        typer.Option(
            "--job",
            help="Name of the job; default: one for the same model and question.",
            rich_help_panel=_J,
            show_default=False,
        ),
    ] = None
    retry_errors: Annotated[
        bool,
        typer.Option(
            "--retry-errors", help="Ask again where an earlier run failed.", rich_help_panel=_J
        ),
    ] = False


def work(
    flags: JobFlags,
    *,
    task: Work,
    items: Iterable[Item],
    identity: Identity,
    executor: Executor,
    total: int | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Run a job to its end, write its answers in the order of the items, and say what it came to.

    A second run of the same job answers only what is new. Raises typer.Exit(1) when an item
    failed or the job was cancelled. `total`, where the number of items is known, is for the bar.
    """
    from freehold.documents.jobs import Journal, place, run_job
    from freehold.documents.jobs.exports import format_of

    form = "jsonl" if flags.out is None else format_of(flags.out)  # refused before work begins
    name = flags.job or place.default_name(identity.task, identity.fingerprint)
    path = place.journal_path(name)
    with place.locked(path), Journal.open(path, identity, name) as journal:
        with job_bar(name, total) as progress:
            summary = run_job(
                task, items, executor, journal, retry_errors=flags.retry_errors,
                progress=progress, record=record,
            )  # fmt: skip
        if summary.state == "done":
            deliver(journal, flags.out, form, run=journal.run)
    tell(summary)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def deliver(journal: Journal, out: Path | None, form: str, run: int | None = None) -> None:
    """Write the answers of a run, or of the whole job, into a file or to stdout."""
    from freehold.documents.jobs import exports

    def rows() -> Iterator[Row]:
        return journal.rows(run=run)

    if out is not None:
        exports.write(form, rows, out)
        console.note(f"written to {out}")
        return
    for piece in exports.text(form, rows):
        sys.stdout.write(piece)
    sys.stdout.flush()


def tell(summary: JobSummary) -> None:
    """The end of a run in a sentence or three, on stderr."""
    tally = summary.tally
    parts = [f"{tally.ok:,} answered"]
    if tally.known:
        parts.append(f"{tally.known:,} known from before")
    if tally.shared:
        parts.append(f"{tally.shared:,} the same as another")
    if tally.errors:
        parts.append(f"{tally.errors:,} failed")
    rate = (
        f", {console.rate(tally.computed / summary.seconds)} per second" if tally.computed else ""
    )
    console.note(f"{summary.name}: {', '.join(parts)} in {summary.seconds:.1f} s{rate}")
    if summary.state == "cancelled":
        console.note(f"cancelled; `freehold jobs resume {summary.name}` goes on")
    elif tally.errors:
        console.note(
            f"`freehold jobs show {summary.name}` tells why; "
            f"`freehold jobs resume {summary.name} --retry-errors` asks again"
        )


@contextmanager
def job_bar(title: str, total: int | None) -> Iterator[Callable[[Tally], None] | None]:
    """Items, rate, time left and cache hits on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False), TimeRemainingColumn(),
        TextColumn("{task.fields[hits]}", markup=False),
    )  # fmt: skip
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(console.one_line(title, 30), total=total, rate="", hits="")

        def update(tally: Tally) -> None:
            seconds = max(time.monotonic() - started, 1e-9)
            found = tally.known + tally.shared
            hits = [f"{found:,} found" if found else "", f"{tally.errors:,} failed"]
            bar.update(
                task, completed=tally.done, total=total or tally.seen,
                rate=f"{console.rate(tally.computed / seconds)}/s",
                hits=", ".join(hits[: 1 + bool(tally.errors)]).strip(", "),
            )  # fmt: skip

        yield update
