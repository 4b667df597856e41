# SPDX-License-Identifier: Apache-2.0
"""`freehold demo`: the main job at a glance, an open model reading documents on this machine.

Puts path, model, work and output together. What is asked is `_demo_work`, how it looks
`_demo_table`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.errors import DocumentError

if TYPE_CHECKING:
    from freehold.cli._demo_work import Gathered, Work
    from freehold.documents.asking import Answer
    from freehold.llm import LLM

_SEEDLING = "seedling"


@options.with_options
def command(
    path: Annotated[
        str | None,
        typer.Argument(
            help="A document, or a folder of them; default: the samples that come with freehold.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Which model reads: a path, or a model's name."
        ),
    ] = _SEEDLING,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Read so many documents at most.")
    ] = 100,
    as_json: options.Json = False,
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Let a model sort, read and summarise documents."""
    from freehold import builtin
    from freehold.cli import _demo_work

    found = _demo_work.gather(builtin.sample_documents() if path is None else Path(path), limit)
    if not found.works:
        raise (
            found.failures[0]
            if found.failures
            else DocumentError(
                f"{path}: there are no documents", hint="give a file, or a folder with files"
            )
        )
    started = time.perf_counter()
    with engine.for_documents().open(model) as llm:
        load_seconds = time.perf_counter() - started
        for notice in llm.notices:
            console.note(f"note: {notice}")
        with console.progress_bar("reading") as bar:
            seconds = _demo_work.ask_all(llm, found.works, bar)
        report = Report.of(llm, model, found, load_seconds, seconds)
    if as_json:
        console.data_json(report.as_json())
        return
    from freehold.cli import _demo_table

    _demo_table.show(report)


@dataclass(frozen=True)
class Report:
    """Everything that is told about one run."""

    model: str  # where it lies
    model_name: str  # as it was asked for
    is_seedling: bool
    parameters: int
    found: Gathered
    load_seconds: float
    seconds: float  # of asking
    read_tokens: int
    cached_tokens: int  # of the read ones, known from a shared beginning
    written_tokens: int

    @classmethod
    def of(
        cls, llm: LLM, name: str, found: Gathered, load_seconds: float, seconds: float
    ) -> Report:
        answers = [answer for work in found.works for answer in work.answers()]
        return cls(
            llm.path,
            name,
            name == _SEEDLING,
            sum(tensor.num_elements for tensor in llm.checkpoint.tensors.values()),
            found,
            load_seconds,
            seconds,
            sum(answer.usage.prompt_tokens for answer in answers),
            sum(answer.usage.cached_tokens for answer in answers),
            sum(answer.usage.answer_tokens for answer in answers),
        )

    @property
    def works(self) -> list[Work]:
        return self.found.works

    @property
    def tokens_per_second(self) -> float:
        """Tokens read and written together, for each second of asking."""
        return (self.read_tokens + self.written_tokens) / self.seconds if self.seconds else 0.0

    def sentences(self) -> Iterator[str]:
        """What could not be read, was left out, or was decided while reading."""
        for failure in self.found.failures:
            yield f"not read: {failure.message}"
        if self.found.more:
            yield f"more documents were there; --limit {len(self.works)} left them out"
        said: dict[str, None] = {}  # a table repeats its notes in every row
        for work in self.works:
            for note in work.document.notes:
                said[f"{Path(work.document.source).name}: {note}"] = None
        yield from said

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        from freehold.documents.list_prices import AS_OF, LIST_PRICES, SOURCE

        read, written = self.read_tokens, self.written_tokens
        return {
            "model": self.model,
            "parameters": self.parameters,
            "documents": [_work_json(work) for work in self.works],
            "failures": [failure.message for failure in self.found.failures],
            "more_documents": self.found.more,
            "tokens": {"read": read, "cached": self.cached_tokens, "written": written},
            "tokens_per_second": self.tokens_per_second,
            "timings": {"load_seconds": self.load_seconds, "seconds": self.seconds},
            "api_list_prices": {
                "as_of": AS_OF,
                "source": SOURCE,
                "currency": "USD",
                "models": [
                    {**asdict(price), "cost": price.cost(read, written)} for price in LIST_PRICES
                ],
            },
        }


def _work_json(work: Work) -> dict[str, Any]:
    document = work.document
    return {
        "source": document.source,
        "row": document.row,
        "reader": document.reader,
        "reader_version": document.reader_version,
        "sha256": document.sha256,
        "notes": list(document.notes),
        "kind": _answer_json(work.kind),
        "label": _answer_json(work.label),
        "fields": _answer_json(work.fields),
        "summary": _answer_json(work.summary),
        "function": _answer_json(work.function),
    }


def _answer_json(answer: Answer[Any] | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "value": answer.value,
        "error": None if answer.error is None else answer.error.message,
        "text": answer.text,
        "prompt_tokens": answer.usage.prompt_tokens,
        "cached_tokens": answer.usage.cached_tokens,
        "answer_tokens": answer.usage.answer_tokens,
    }
