# SPDX-License-Identifier: Apache-2.0
"""What every command over documents takes: where they are, and which model reads them.

Paths, folders, patterns, columns of tables and stdin become items of a job. Knows no task.
"""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import _text, options
from freehold.cli._job_options import JobFlags, work
from freehold.cli._where import Answerer, WhereFlags, answering
from freehold.errors import DocumentError, EmptyDocumentError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.documents import Document, Task
    from freehold.documents.document import Unread
    from freehold.documents.jobs import Item

STDIN = "-"
_TABLES = {".csv": 1, ".tsv": 1, ".jsonl": 0, ".ndjson": 0}  # and how many lines of names
_D = "Documents"

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="Documents: files, folders, patterns such as 'mail/**/*.eml', or - for stdin.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class DocumentFlags(WhereFlags):
    """Which documents, and who reads them where."""

    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Which model reads: a path or a name.",
            rich_help_panel=_D,
        ),
    ] = "seedling"  # fmt: skip
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--adapter", help="A low-rank adapter (LoRA) to read under.", rich_help_panel=_D,
            show_default=False,
        ),
    ] = None  # fmt: skip
    column: Annotated[
        str | None,
        typer.Option(
            "--column", help="Of tables (CSV, JSONL), take the text of this column alone.",
            rich_help_panel=_D, show_default=False,
        ),
    ] = None  # fmt: skip


def opened(flags: DocumentFlags, engine: options.EngineFlags) -> AbstractContextManager[Answerer]:
    """Whoever reads, ready to."""
    return answering(flags.model, flags, engine.for_documents(), flags.adapter)


def run(
    task: Task, paths: Sequence[str] | None, flags: DocumentFlags, job: JobFlags, who: Answerer
) -> None:
    """The task over all documents, as a job."""
    given = places(paths)
    with _on_disk(given, flags.column) as files:
        keep_apart(files_of(files), job.out)
        total = about_how_many(files_of(files)) if sys.stderr.isatty() else None
        work(
            job, task=task, items=items(files, flags.column), stdin=STDIN in given, total=total,
            **who.arguments(task),
        )  # fmt: skip


def keep_apart(files: Iterable[str | Path], out: Path | None) -> None:
    """Raise InvalidParameterError where answers would be written over what is read."""
    if out is None or not out.is_file():
        return
    mark = out.stat()
    for path in files:
        try:
            same = os.path.samestat(os.stat(path), mark)  # noqa: PTH116 - what is read may be text
        except (OSError, ValueError):
            continue  # its reader will say it better
        if same:
            raise InvalidParameterError(
                f"{path!s:.300} is to be read, and --out would write over it",
                hint="write the answers outside of what is read",
            )


def about_how_many(files: Iterable[str | Path]) -> int | None:
    """Documents in files, for a bar to begin with: rows of tables by their lines. None where it
    cannot be told without reading."""
    total = 0
    for path in files:
        ending = Path(path).suffix.lower()
        if ending == ".zip":
            return None
        if ending not in _TABLES:
            total += 1
            continue
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as above
                lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        except (OSError, ValueError):
            lines = 1
        total += max(1, lines - _TABLES[ending])
    return total


def places(paths: Sequence[str] | None) -> list[str]:
    """Where documents are: what was named, or stdin where something is piped in.

    Raises InvalidParameterError where there is neither.
    """
    if paths:
        return list(dict.fromkeys(paths))
    if not _text.stdin_has_text():
        raise InvalidParameterError(
            "which documents?", hint="name files or folders, or pipe a text in"
        )
    return [STDIN]


def files_of(places: Sequence[str]) -> Iterator[str | Path]:
    """Every file that a place stands for, each once, in order."""
    from freehold.documents import find

    seen: set[str] = set()
    for place in places:
        matching = [place]
        if glob.has_magic(place) and not Path(place).exists():
            matching = sorted(glob.glob(place, recursive=True))  # noqa: PTH207 - absolute ones too
            if not matching:
                raise DocumentError(f"{place:.300}: nothing matches this pattern")
        for found in matching:
            for path in find(found):
                if str(path) not in seen:
                    seen.add(str(path))
                    yield path


def documents(places: Sequence[str | Path], column: str | None) -> Iterator[Document | Unread]:
    """The documents of all places, in order, with those that cannot be read in their places."""
    from freehold.documents.document import Document, Unread
    from freehold.documents.reading import read_all

    for found in read_all(files_of([str(place) for place in places])):
        if column is None or not isinstance(found, Document):
            yield found
            continue
        try:
            chosen = found.column(column)
        except InvalidParameterError as error:
            yield Unread(DocumentError(error.message, hint=error.hint), found.source, found.row)
            continue
        if not chosen.text.strip():
            empty = EmptyDocumentError(f"{found.name} has nothing in its column {column!r:.100}")
            yield Unread(empty, found.source, found.row)
            continue
        yield chosen


def items(places: Sequence[str | Path], column: str | None) -> Iterator[Item]:
    """The same as items of a job."""
    from freehold.documents.jobs import Item

    for found in documents(places, column):
        source = found.source
        if Path(source).name.startswith(_PREFIX):
            found = replace(found, source="stdin")
        yield Item.of(found)


_PREFIX = "freehold-stdin-"


@contextmanager
def _on_disk(places: Sequence[str], column: str | None) -> Iterator[list[str]]:
    """The same places with stdin as a file: readers work in other processes. With a column it is a
    table, JSON Lines or CSV; else it is one text."""
    if STDIN not in places:
        yield list(places)
        return
    text = _text.read_stdin()
    if not text.strip():
        raise DocumentError("stdin: there is no text in it")
    ending = ".txt"
    if column is not None:
        ending = ".jsonl" if text.lstrip().startswith("{") else ".csv"
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix=_PREFIX, suffix=ending, newline=""
    ) as file:
        file.write(text)
        file.flush()
        yield [file.name if place == STDIN else place for place in places]


def listed(values: Sequence[str] | None, name: str) -> list[str]:
    """``a,b`` and ``--option a --option b`` alike, and ``@file`` for a file with one on each
    line."""
    found: list[str] = []
    for value in values or ():
        if value.startswith("@"):
            found += [line for line in _text.read_file(value[1:]).splitlines() if line.strip()]
        else:
            found += value.split(",")
    cleaned = [word.strip() for word in found]
    if not cleaned or not all(cleaned):
        raise InvalidParameterError(f"{name} takes a list: a,b,c, or @file with one on each line")
    return cleaned
