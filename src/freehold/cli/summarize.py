# SPDX-License-Identifier: Apache-2.0
"""`freehold summarize`: what every document says, shorter; all of it is read, however long."""

from __future__ import annotations

from typing import Annotated

import typer

from freehold.cli import _documents, options
from freehold.cli._job_options import JobFlags

_S = "Summarize"


@options.with_options
def command(
    paths: _documents.Paths = None,
    words: Annotated[
        int | None,
        typer.Option(
            "--words", "-w", rich_help_panel=_S, show_default=False,
            help="Prose of at most so many words; default: one line of key facts.",
        ),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", rich_help_panel=_S,
            help="Where a piece of a long document fails, go on without it and say how much was "
            "read; default: the document fails.",
        ),
    ] = False,
    flags: _documents.DocumentFlags = _documents.DocumentFlags(),  # noqa: B008 - frozen
    job: JobFlags = JobFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    """Summarise documents of any length."""
    from freehold.documents import Summarize

    _documents.places(paths)
    task = Summarize(words, allow_partial=allow_partial)
    with _documents.opened(flags, engine) as who:
        _documents.run(task, paths, flags, job, who)
