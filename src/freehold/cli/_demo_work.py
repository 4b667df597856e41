# SPDX-License-Identifier: Apache-2.0
"""What `freehold demo` does with documents: read, sort, ask; answers and counts, nothing shown.

The model sorts the documents by kind, and its answer decides what is asked next. The kinds and
their questions are those of a small firm's post.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freehold import documents
from freehold.documents.asking import Answer
from freehold.documents.document import Document
from freehold.documents.tasks.code import unfinished_function
from freehold.errors import DocumentError

if TYPE_CHECKING:
    from freehold.llm import LLM

Report = Callable[[int, int, str], None]  # answers so far, answers expected, what is being asked

# What is extracted from a document of each kind.
FIELDS: dict[str, tuple[str, ...]] = {
    "ticket": ("customer", "order_number"),
    "invoice": ("invoice_number", "supplier", "total", "due_date"),
    "order": ("order_number", "customer", "product", "quantity"),
    "contract": ("provider", "client", "notice_period"),
    "incident": ("date", "service", "cause"),
}
_FILE = "solution.py"
TICKET_LABELS = ("billing", "shipping", "technical", "access", "refund", "damage")


@dataclass(slots=True)
class Work:
    """A document and every answer about it; None where a question was not asked."""

    document: Document
    beginning: str | None = None  # of a function to complete; then nothing else is asked
    kind: Answer[str] | None = None
    label: Answer[str] | None = None  # what a ticket is about
    fields: Answer[dict[str, str | None]] | None = None
    summary: Answer[str] | None = None
    function: Answer[str] | None = None

    def answers(self) -> list[Answer[Any]]:
        """Those that were asked for, in the order of asking."""
        asked = (self.kind, self.label, self.fields, self.summary, self.function)
        return [answer for answer in asked if answer is not None]


@dataclass(slots=True)
class Gathered:
    """What was found at a path."""

    works: list[Work] = field(default_factory=list)
    failures: list[DocumentError] = field(default_factory=list)  # files that could not be read
    more: bool = False  # whether the limit left documents out


def gather(path: Path, limit: int) -> Gathered:
    """Read up to `limit` documents; a file that cannot be read stops nothing."""
    found = Gathered()
    for document in documents.read_all(documents.find(path)):
        if isinstance(document, documents.Unread):
            found.failures.append(document.error)
        elif len(found.works) == limit:
            found.more = True
            break
        else:
            found.works.append(Work(document, unfinished_function(document.text)))
    return found


def ask_all(llm: LLM, works: list[Work], report: Report) -> float:
    """Ask about every document, task by task; gives the seconds it took.

    Each task is one batch: its instruction is the shared beginning of all its prompts.
    """
    started = time.perf_counter()
    functions = [work for work in works if work.beginning is not None]
    others = [work for work in works if work.beginning is None]
    expected = 4 * len(others) + len(functions)  # kind, label, fields, summary
    done = 0

    def step(label: str, count: int) -> Callable[[int, int], None]:
        nonlocal done
        before, done = done, done + count
        return lambda so_far, _: report(min(before + so_far, expected), expected, label)

    texts = [work.document.text for work in others]
    step_kind = step("sorting", len(texts))
    kinds = documents.classify(llm, texts, list(FIELDS), step_kind) if texts else []
    for work, kind in zip(others, kinds, strict=True):
        work.kind = kind.part("label")
    tickets = [work for work in others if _kind(work) == "ticket"]
    if tickets:
        step_label = step("classifying tickets", len(tickets))
        labels = documents.classify(
            llm, [work.document.text for work in tickets], TICKET_LABELS, step_label
        )
        for work, label in zip(tickets, labels, strict=True):
            work.label = label.part("label")
    for name, fields in FIELDS.items():
        chosen = [work for work in others if _kind(work) == name]
        if chosen:
            step_fields = step(f"extracting from {name}s", len(chosen))
            found = documents.extract(
                llm, [work.document.text for work in chosen], fields, step_fields
            )
            for work, values in zip(chosen, found, strict=True):
                work.fields = values.part("values")
    if texts:
        summaries = documents.summarize(llm, texts, step("summarising", len(texts)))
        for work, summary in zip(others, summaries, strict=True):
            work.summary = summary.part("summary")
    if functions:
        beginnings = [work.beginning or "" for work in functions]
        step_code = step("completing code", len(functions))
        for work, code in zip(
            functions, documents.complete_functions(llm, beginnings, step_code), strict=True
        ):
            work.function = code.part("files").part(_FILE)
    return time.perf_counter() - started


def _kind(work: Work) -> str | None:
    return None if work.kind is None else work.kind.value
