# SPDX-License-Identifier: Apache-2.0
"""`freehold code`: files from a specification, checked by tests that run in a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import _documents, _text, console, options
from freehold.cli._job_options import JobFlags
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.documents import Code
    from freehold.documents.jobs import Identity

_C = "Code"


@options.with_options
def command(
    paths: _documents.Paths = None,
    tests: Annotated[
        Path | None,
        typer.Option(
            "--tests", rich_help_panel=_C, show_default=False,
            help="A Python file of asserts, test functions or unittest cases that decides.",
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", rich_help_panel=_C, show_default=False,
            help="A file that is there already, shown to the model and the tests; repeatable.",
        ),
    ] = None,
    path: Annotated[
        str,
        typer.Option("--path", rich_help_panel=_C, help="What a single file is called."),
    ] = "solution.py",
    attempts: Annotated[
        int,
        typer.Option(
            "--attempts", rich_help_panel=_C,
            help="Show the model what the tests printed, and let it try so often.",
        ),
    ] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", rich_help_panel=_C, help="The tests may take so long.")
    ] = 10.0,
    memory: Annotated[
        int, typer.Option("--memory", rich_help_panel=_C, help="And so many megabytes.")
    ] = 512,
    weak: Annotated[
        bool,
        typer.Option(
            "--weak-sandbox", rich_help_panel=_C,
            help="Run tests even where the kernel cannot keep the code from files and network.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", rich_help_panel=_C, show_default=False,
            help="Write the files below this folder, one folder per specification.",
        ),
    ] = None,
    flags: _documents.DocumentFlags = _documents.DocumentFlags(),  # noqa: B008 - frozen
    job: JobFlags = JobFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:  # fmt: skip
    """Write code from specifications and check it with tests."""
    from freehold.documents import Code
    from freehold.documents.sandbox import Bounds

    _documents.places(paths)
    task = Code(
        None if tests is None else _text.read_file(str(tests)),
        {file.name: _text.read_file(str(file)) for file in files or ()},
        path, attempts, Bounds(seconds, memory << 20, strict=not weak),
    )  # fmt: skip
    with _documents.opened(flags, engine) as who:
        try:
            _documents.run(task, paths, flags, job, who)
        finally:
            if write is not None:
                _write(task, job, who.identity(task), write)


def _write(task: Code, job: JobFlags, identity: Identity, folder: Path) -> None:
    """The files of all specifications of the job that were answered. Nothing is overwritten."""
    from freehold.documents.jobs import Journal, place

    name = job.job or place.default_name(identity.task, identity.fingerprint)
    count = 0
    with Journal.existing(place.journal_path(name)) as journal:
        for number, row in enumerate(journal.rows(), 1):
            if row.status == "ok" and row.value is not None:
                count += _write_one(folder / f"{number}", row.value["files"].items())
    console.note(f"{count:,} files written below {folder}")


def _write_one(folder: Path, files: Sequence[tuple[str, str]]) -> int:
    from freehold.documents.sandbox import checked_path

    count = 0
    for name, text in files:
        target = folder / checked_path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("x", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except FileExistsError:
            if target.read_text("utf-8", "replace") != text:
                raise InvalidParameterError(
                    f"{target} is there already and holds something else",
                    hint="give another folder with --write",
                ) from None
        count += 1
    return count
