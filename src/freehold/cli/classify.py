# SPDX-License-Identifier: Apache-2.0
"""`freehold classify`: a label for every document, with probabilities. Nothing is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import _documents, console, options
from freehold.cli._job_options import JobFlags
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.documents import Asker, Classify, Document
    from freehold.documents.calibration import Calibration

_C = "Classify"


@options.with_options
def command(
    paths: _documents.Paths = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels", "-l", help="The labels: a,b,c, or @file with one on each line.",
            rich_help_panel=_C, show_default=False,
        ),
    ] = None,
    multi_label: Annotated[
        bool,
        typer.Option(
            "--multi-label", help="Any number of labels fit: each is a question of its own.",
            rich_help_panel=_C,
        ),
    ] = False,
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", help="With --multi-label: give labels that are likelier than this.",
            rich_help_panel=_C,
        ),
    ] = 0.5,
    abstain_below: Annotated[
        float,
        typer.Option(
            "--abstain-below", help="Give no label where the likeliest is less likely than this.",
            rich_help_panel=_C,
        ),
    ] = 0.0,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", rich_help_panel=_C,
            help="How far a probability may be off; which label is the likeliest never is.",
        ),
    ] = 0.01,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate", metavar="FILE", show_default=False, rich_help_panel=_C,
            help="A table of labelled examples to fit temperature and biases on.",
        ),
    ] = None,
    label_column: Annotated[
        str,
        typer.Option(
            "--label-column", rich_help_panel=_C,
            help="Its column with the label; with --multi-label, labels with ; between them.",
        ),
    ] = "label",
    flags: _documents.DocumentFlags = _documents.DocumentFlags(),  # noqa: B008 - frozen
    job: JobFlags = JobFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    """Label documents, with probabilities and without decoding."""
    from freehold.documents import Classify

    _documents.places(paths)
    task = Classify(
        tuple(_documents.listed(labels, "--labels")), abstain_below, multi_label, threshold,
        tolerance=tolerance,
    )  # fmt: skip
    with _documents.opened(flags, engine) as who:
        if calibrate is not None:
            task = task.calibrated(_fitted(task, who.here(), calibrate, flags.column, label_column))
        _documents.run(task, paths, flags, job, who)


def _fitted(
    task: Classify, asker: Asker, path: str, column: str | None, label_column: str
) -> Calibration:
    """What the labelled examples of a table come to; says how well it does."""
    from freehold.documents.document import Document, Unread
    from freehold.documents.tasks.classify import fitted

    rows: list[Document] = []
    truths: list[str] = []
    for found in _documents.documents([path], None):
        if isinstance(found, Unread):
            raise found.error
        assert isinstance(found, Document)
        truths.append(found.column(label_column).text)
        # The documents' column need not be there: examples often come from elsewhere.
        name = column if column in found.columns else None
        rows.append(found.column(name) if name is not None else _without(found, label_column))
    with console.progress_bar("calibrating") as bar:
        found_fit = fitted(task, asker, rows, truths, bar)
    console.note(
        f"calibrated on {found_fit.examples:,} examples: temperature "
        f"{found_fit.temperature:.3g}, expected calibration error {found_fit.error_before:.3f} "
        f"before and {found_fit.error:.3f} after, accuracy {found_fit.accuracy_before:.1%} and "
        f"{found_fit.accuracy:.1%}"
    )
    return found_fit


def _without(document: Document, column: str) -> Document:
    """A row without its label: the one column that is left, or all others as lines."""
    rest = [name for name in document.columns if name != column]
    if not rest:
        raise InvalidParameterError(f"{document.name} has no column but {column!r}")
    if len(rest) == 1:
        return document.column(rest[0])
    if "text" in rest:
        return document.column("text")
    raise InvalidParameterError(
        f"{document.name} has several columns", hint="--column names the one with the text"
    )
