# SPDX-License-Identifier: Apache-2.0
"""What can be done with documents: one file here per task, found by listing the folder.

A task is a module named like the task, with a class ``TASK``; modules with a leading underscore
help them. A `Task` turns documents into one `Answer` each, in order, and can be made again from its
`spec`, in another process or a year later. Offsets and evidence, where a task gives them, count
code points of exactly the text it was given.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from freehold.documents.asking import JSON, Answer, Asker, Progress
from freehold.documents.document import Document
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

__all__ = ["Task", "asker_of", "from_spec", "names", "run", "texts"]

_BLOCK = 96  # documents at a time: enough for the engine, few enough to report progress


class Task(Protocol):
    """Something to do with every document of a job."""

    name: ClassVar[str]
    VERSION: ClassVar[int]  # raised when the same spec gives other answers

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer, as JSON; a task is made again from it."""

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """One for each document, in order. What goes wrong with one is its own answer's error."""


@functools.cache
def names() -> tuple[str, ...]:
    """The tasks there are, sorted."""
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if not name.startswith("_")))


def from_spec(name: str, spec: dict[str, Any]) -> Task:
    """The task that gave this spec. Raises InvalidParameterError for what no task has given."""
    if name not in names():
        raise InvalidParameterError(
            f"there is no task {name!r:.80}", hint=f"there are {', '.join(names())}"
        )
    made = importlib.import_module(f"{__name__}.{name}").TASK
    try:
        task: Task = made.from_spec(spec)
    except (TypeError, KeyError, AttributeError) as error:
        raise InvalidParameterError(f"no {name} task has this spec: {error}") from None
    return task


def run(
    task: Task, llm: LLM | Asker, documents: Iterable[Document | str],
    progress: Progress | None = None,
) -> list[Answer[Any]]:  # fmt: skip
    """Answers to all documents, block by block; a text stands for a document of its own."""
    asker, given = asker_of(llm), texts(documents)
    answers: list[Answer[Any]] = []
    for start in range(0, len(given), _BLOCK):
        answers += task.answer(asker, given[start : start + _BLOCK])
        if progress is not None:
            progress(len(answers), len(given))
    return answers


def asker_of(llm: LLM | Asker) -> Asker:
    """Whoever asks a model: what is given, or an `LLMAsker` around a model."""
    from freehold.documents.llm_asker import LLMAsker
    from freehold.llm import LLM

    return LLMAsker(llm) if isinstance(llm, LLM) else llm


def texts(documents: Iterable[Document | str]) -> list[Document]:
    """Documents as they are, and texts as documents that came from nowhere."""
    return [
        Document(text, source="", reader="", reader_version=0) if isinstance(text, str) else text
        for text in documents
    ]
