# SPDX-License-Identifier: Apache-2.0
"""What every command that answers documents has in common: flags of its job, its run, its end.

A command makes a task, items and an asker, and calls `work`. Knows no task.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console
from freehold.cli._job_bar import job_bar, tell
from freehold.cli._typed import typed

if TYPE_CHECKING:
    from freehold.documents.executors import Executor
    from freehold.documents.jobs import Identity, Item, JobSummary, Journal, Row, Tally, Work
    from freehold.documents.jobs.handover import Handover
    from freehold.documents.jobs.runner import Progress

_J = "Job"
_ROW_BY_ROW = ("jsonl", "batch")  # formats whose lines need no others
_LOOK_SECONDS = 0.5
# Set while `freehold jobs` repeats a command to hand its requests over instead of answering them.
handover: ContextVar[Handover | None] = ContextVar("handover", default=None)


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
    asker: Any = None,
    executor: Executor | None = None,
    identity: Identity | None = None,
    total: int | None = None,
    stdin: bool = False,
    record: dict[str, Any] | None = None,
    form: str | None = None,
) -> None:
    """Run a job to its end, write its answers in the order of the items, say what it came to.

    A second run of the same job answers only what is new. Who answers is an `asker` in this
    process, or an `executor` with an `identity`. `total`, where the number of items is known, is
    for the bar; `stdin` says that items came from there and cannot come again. Raises
    typer.Exit(1) when an item failed or the job was cancelled.
    """
    from freehold.documents.executors.local import LocalExecutor
    from freehold.documents.jobs import Identity, Journal, place, run_job
    from freehold.documents.jobs.exports import check, format_of

    # Refused before work begins.
    form = form or ("jsonl" if flags.out is None else format_of(flags.out))
    check(form)
    away = handover.get()
    if identity is None:
        identity = Identity.of(task, asker.model_digest)
    if record is None:
        record = record_of(identity, asker, stdin=stdin)
    if away is not None:
        executor = away.executor(task, asker)
    elif executor is None:
        executor = LocalExecutor.sharing(asker)
    name = flags.job or place.default_name(identity.task, identity.fingerprint)
    path = place.journal_path(name)
    try:
        with place.locked(path), Journal.open(path, identity, name) as journal:
            if away is not None:
                away.journal = journal
            shown = None
            # On a terminal they would stand in the way of the bar.
            streams = flags.out is None and form in _ROW_BY_ROW and not sys.stdout.isatty()
            if away is None and streams:
                shown = _Shown(journal, form)
            with job_bar(name, total) as bar:
                summary = run_job(
                    task, items, executor, journal, retry_errors=flags.retry_errors,
                    progress=_both(bar, shown), record=record,
                )  # fmt: skip
            if shown is not None:
                shown.rest()
            elif summary.state == "done" and away is None:
                deliver(journal, flags.out, form, run=journal.run)
    except KeyboardInterrupt:
        console.note(f"what is answered is kept; `freehold jobs resume {name}` goes on")
        raise
    _end(summary)


class _Shown:
    """Answers on stdout while a job runs: those that are there, in the order of the items, up to
    the first that is not."""

    def __init__(self, journal: Journal, form: str) -> None:
        self._journal, self._form = journal, form
        self._position = -1  # of the last one shown
        self._last = time.monotonic()

    def look(self, _: Tally) -> None:
        """Show what is new, not too often."""
        if time.monotonic() - self._last >= _LOOK_SECONDS:
            self.rest()

    def rest(self) -> None:
        """Show what there is now."""
        from freehold.documents.jobs import exports

        self._last = time.monotonic()
        for row in self._journal.rows(run=self._journal.run, after=self._position):
            if row.status == "pending":
                break
            for piece in exports.text(self._form, lambda row=row: iter([row])):  # type: ignore[misc]
                sys.stdout.write(piece)
            self._position = row.position
        sys.stdout.flush()


def _both(bar: Progress | None, shown: _Shown | None) -> Progress:
    def update(tally: Tally) -> None:
        if bar is not None:
            bar(tally)
        if shown is not None:
            shown.look(tally)

    return update


def _end(summary: JobSummary) -> None:
    away = handover.get()
    if away is not None:
        away.summary = summary
        return
    tell(summary)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def record_of(identity: Identity, asker: Any = None, *, stdin: bool = False) -> dict[str, Any]:
    """The run record of a command whose model is loaded, or is asked elsewhere."""
    from freehold.documents.jobs.record import run_record

    llm = getattr(asker, "llm", None)
    record = run_record(
        identity, getattr(llm, "checkpoint", None), getattr(llm, "ops", None), command=typed.get(),
        resumable=not stdin,
    )  # fmt: skip
    # Long documents are cut for it. No part of the fingerprint: where it is chosen by free memory,
    # a job would be another one every day.
    record["engine"]["context_length"] = getattr(asker, "context_length", None)
    return record


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
