# SPDX-License-Identifier: Apache-2.0
"""Hands what is left of a job to vLLM's ``run-batch``, and takes the results back.

The job's own command is repeated for it, with something in the model's place that writes requests
down instead of answering them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer

from freehold.cli import console
from freehold.cli._job_options import handover
from freehold.cli._jobs_run import command_of
from freehold.documents.jobs import Journal, place
from freehold.documents.jobs.handover import Handover, take_results
from freehold.errors import JobError
from freehold.formats.atomic_files import atomic_files


def hand_over(
    name: str, out: Path | None, served_as: str | None, *, retry_errors: bool = False
) -> None:
    """Write the requests that have no answer yet; with `retry_errors`, of what failed too."""
    path = place.find(name)
    with Journal.existing(path) as journal:
        words, folder = command_of(journal)
        name = journal.name
    away = Handover(served_as or _model_in(words))
    if out is None:
        away.write = sys.stdout.write
        _repeat(words, folder, away, retry_errors)
        sys.stdout.flush()
    else:
        out = out.absolute()  # the command is repeated in its own folder
        with atomic_files() as open_file:
            file = open_file(out)
            away.write = lambda line: file.write(line.encode())
            _repeat(words, folder, away, retry_errors)
        console.note(f"written to {out}")
    console.note(f"{name}: {len(away.wanted):,} requests")


def take_back(name: str, results: Path) -> None:
    """Keep the replies, then answer every document whose replies are all there."""
    path = place.find(name)
    with place.locked(path), Journal.existing(path, write=True) as journal:
        words, folder = command_of(journal)
        taken = take_results(results, journal)
        name = journal.name
    away = Handover(_model_in(words))
    _repeat(words, folder, away, True)  # a reply to what failed is welcome
    told = [f"{taken.replies:,} replies"]
    if taken.failed:
        told.append(f"{taken.failed:,} errors, which are still to be asked")
    if taken.unknown:
        told.append(f"{taken.unknown:,} of no item of this job")
    if taken.damaged:
        told.append(f"{taken.damaged:,} lines that are no results")
    console.note(f"{name}: {', '.join(told)}")
    if taken.first_error:
        console.note(f"the first error: {console.one_line(taken.first_error, 200)}")
    with Journal.existing(path) as journal:
        counts = journal.counts()
    console.note(f"{counts.ok:,} answered, {counts.errors:,} failed, {counts.pending:,} left")
    if counts.pending:
        console.note(f"`freehold jobs export {name} --vllm` writes what is to be asked now")
    if counts.pending or counts.errors:
        raise typer.Exit(1)


def _repeat(words: list[str], folder: str, away: Handover, retry_errors: bool) -> None:
    from freehold.cli.main import run

    here = os.getcwd()  # noqa: PTH109
    token = handover.set(away)
    try:
        os.chdir(folder)
        given = [word for word in words if word != "--retry-errors"]
        code = run([*given, "--retry-errors"] if retry_errors else given)
    except OSError as error:
        raise JobError(f"{folder}: {error.strerror}") from None
    finally:
        handover.reset(token)
        os.chdir(here)
    if away.summary is None:
        raise typer.Exit(code or 1)


def _model_in(words: list[Any]) -> str:
    """What the command calls its model."""
    for flag in ("--model", "-m"):
        if flag in words[:-1]:
            return str(words[words.index(flag) + 1])
    found = [word.partition("=")[2] for word in words if word.startswith("--model=")]
    return found[0] if found else "model"
