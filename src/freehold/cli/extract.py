# SPDX-License-Identifier: Apache-2.0
"""`freehold extract`: values of a schema from every document, each with where it was read."""

from __future__ import annotations

from typing import Annotated

import typer

from freehold.cli import _documents, options
from freehold.cli._job_options import JobFlags
from freehold.errors import InvalidParameterError

_X = "Extract"


@options.with_options
def command(
    paths: _documents.Paths = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--fields", "-f", rich_help_panel=_X, show_default=False,
            help="What to find: name,name:type,… with types text, number, integer, boolean, date, "
            "id, email, a|b for one of some words, and [] behind any for a list.",
        ),
    ] = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", rich_help_panel=_X, show_default=False,
            help="A file with a JSON Schema, or a pydantic class as module:Class.",
        ),
    ] = None,
    evidence: Annotated[
        bool,
        typer.Option(
            "--evidence/--no-evidence", rich_help_panel=_X,
            help="Hold values to words of the document, and say where they stand.",
        ),
    ] = True,
    search: Annotated[
        int,
        typer.Option(
            "--search", rich_help_panel=_X,
            help="Follow so many beginnings of an answer side by side: slower, and better.",
        ),
    ] = 1,
    flags: _documents.DocumentFlags = _documents.DocumentFlags(),  # noqa: B008 - frozen
    job: JobFlags = JobFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    """Extract values and where each was read."""
    from freehold.documents import Extract
    from freehold.documents.fields import load_schema, schema_of_fields

    if (fields is None or fields == []) == (schema is None):
        raise InvalidParameterError(
            "say what to extract with either --fields or --schema",
            hint="freehold extract invoices/ --fields supplier,total:number,due:date",
        )
    _documents.places(paths)
    if schema is not None:
        wanted = load_schema(schema)
    else:
        wanted = schema_of_fields(_documents.listed(fields, "--fields"))
    task = Extract(wanted, evidence, search=search)
    with _documents.opened(flags, engine) as who:
        _documents.run(task, paths, flags, job, who)
