# SPDX-License-Identifier: Apache-2.0
"""Runs files of requests as jobs, goes on with jobs, stops them, writes and removes them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import typer

from freehold.cli import console, options
from freehold.cli._documents import keep_apart
from freehold.cli._job_options import JobFlags, deliver, work
from freehold.cli._typed import typed
from freehold.documents.jobs import Identity, Journal, place
from freehold.documents.jobs.exports import check, format_of
from freehold.errors import JobError

_WAIT = 10.0  # seconds for a cancelled job to finish what is in flight, before saying so


def run_requests(
    path: Path, model: str, adapter: Path | None, flags: JobFlags, form: str | None,
    engine: options.EngineFlags, recommended: bool,
) -> None:  # fmt: skip
    """Answer a file of OpenAI batch requests with the server's own routes, without a server."""
    from freehold.documents.jobs.record import run_record
    from freehold.documents.jobs.requests import BatchTask, count_lines, request_items
    from freehold.documents.model_digest import adapter_digest, model_digest
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.model_names import resolve_model
    from freehold.server.batches.line_executor import LineExecutor
    from freehold.server.settings import ServerSettings

    keep_apart([path], flags.out)
    task = BatchTask(recommended_sampling=recommended)
    with open_checkpoint(resolve_model(model)) as checkpoint:
        identity = Identity.of(
            task, model_digest(checkpoint),
            adapter=None if adapter is None else adapter_digest(adapter),
        )  # fmt: skip
        record = run_record(identity, checkpoint, command=typed.get())
    settings = ServerSettings(
        models=(model,), adapters=() if adapter is None else (f"job={adapter}",),
        engine=engine.settings(), recommended_sampling=recommended, keep_alive=None,
        request_timeout=None,
    )  # fmt: skip
    executor = LineExecutor(settings, adapted=None if adapter is None else "job")
    try:
        work(
            flags, task=task, items=request_items(path), executor=executor, identity=identity,
            total=count_lines(path), record=record, form=form or (None if flags.out else "batch"),
        )  # fmt: skip
    finally:
        executor.close()


def resume(name: str, *, retry_errors: bool = False) -> None:
    """Repeat the command that ran last, in the folder where it ran: what is done is not asked
    again. Raises JobError where that cannot be."""
    from freehold.cli.main import run

    path = place.find(name)
    with Journal.existing(path) as journal:
        words, folder = command_of(journal)
    if retry_errors and "--retry-errors" not in words:
        words = [*words, "--retry-errors"]
    try:
        os.chdir(folder)
    except OSError as error:
        raise JobError(
            f"{folder}: {error.strerror}", hint="run the command again yourself"
        ) from None
    raise typer.Exit(run(words))


def command_of(journal: Journal) -> tuple[list[str], str]:
    """The command of the last run, and the folder it ran in. Raises JobError."""
    runs = journal.runs()
    record = runs[-1].record if runs else {}
    words, folder = record.get("command"), record.get("folder")
    if not words or not folder:
        raise JobError(
            f"{journal.name} was not begun by a command, so there is none to repeat",
            hint="call run_job again with the same items",
        )
    if not record.get("resumable"):
        raise JobError(
            f"the documents of {journal.name} came from stdin and cannot come again by themselves",
            hint=f"pipe them into the same command: freehold {' '.join(words)}",
        )
    return list(words), folder


def cancel(name: str) -> None:
    """Ask the process that works on a job to stop; wait a moment for it."""
    path = place.find(name)
    worker = place.worker(path)
    if worker is None:
        raise JobError(f"nobody works on {path.name.removesuffix('.job.sqlite')}")
    with Journal.existing(path, write=True) as journal:
        journal.ask_to_cancel()
        until = time.monotonic() + _WAIT
        while place.worker(path) is not None and time.monotonic() < until:
            time.sleep(0.1)
        over = place.worker(path) is None
        console.note(
            f"{journal.name} is cancelled; `freehold jobs resume {journal.name}` goes on" if over
            else f"process {worker} stops once what it has begun is answered"
        )  # fmt: skip


def export(name: str, out: Path | None, form: str | None) -> None:
    """Write what a job has, finished or not, in the order in which its items came."""
    path = place.find(name)
    form = form or ("jsonl" if out is None else format_of(out))
    check(form)
    with Journal.existing(path) as journal:
        counts = journal.counts()
        deliver(journal, out, form)
    if counts.pending:
        console.note(f"{counts.pending:,} of {counts.items:,} items have no answer yet")


def remove(name: str) -> None:
    """Delete a job and all its answers."""
    path = place.find(name)
    with place.locked(path):
        size = path.stat().st_size
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
    console.note(f"removed {path.name.removesuffix('.job.sqlite')}, {console.size(size)}")
