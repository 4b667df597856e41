# SPDX-License-Identifier: Apache-2.0
"""What every command that answers documents has in common: flags of its job, its run, its end.

A command makes a task, items and an asker, and calls `work`. Knows no task.
"""

from __future__ import annotations

import sys
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
    from freehold.documents.jobs import Identity, Item, JobSummary, Journal, Row, Work
    from freehold.documents.jobs.handover import Handover

_J = "Job"
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
            with job_bar(name, total) as progress:
                summary = run_job(
                    task, items, executor, journal, retry_errors=flags.retry_errors,
                    progress=progress, record=record,
                )  # fmt: skip
            if summary.state == "done" and away is None:
                deliver(journal, flags.out, form, run=journal.run)
    except KeyboardInterrupt:
        console.note(f"what is answered is kept; `freehold jobs resume {name}` goes on")
        raise
    _end(summary)


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
    return run_record(
        identity, getattr(llm, "checkpoint", None), getattr(llm, "ops", None), command=typed.get(),
        resumable=not stdin,
    )  # fmt: skip


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
