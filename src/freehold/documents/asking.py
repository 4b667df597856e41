# SPDX-License-Identifier: Apache-2.0
"""Many conversations as batches, each answer parsed or failed on its own.

Knows prompts as messages and answers as text; what is asked is `tasks`. This is the one place of
the room that talks to a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from freehold.documents.prompts import Messages
from freehold.errors import (
    AnswerError,
    ContextLengthError,
    FreeholdError,
    TemplateError,
    UserError,
)
from freehold.types import Completion, SamplingParams

if TYPE_CHECKING:
    from freehold.llm import LLM

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]  # answers so far, answers in all

_BATCH = 32  # conversations at a time: enough for the engine, few enough to report progress
_FENCED = re.compile(r"\s*```[\w+-]*\n(.*?)\n?```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of one document: a value, or an error that says why there is none."""

    value: T | None
    text: str = ""  # what the model wrote
    error: FreeholdError | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, known from an earlier one
    answer_tokens: int = 0


def ask(
    llm: LLM,
    conversations: Sequence[Messages],
    parse: Callable[[int, str], T],
    max_tokens: int,
    progress: Progress | None = None,
) -> list[Answer[T]]:
    """Greedy answers in order. ``parse(index, text)`` gives the value or raises AnswerError.

    A conversation that does not fit, or whose answer does not end within `max_tokens`, fails
    alone. Raises TemplateError when the model cannot chat at all.
    """
    if not llm.has_chat_template:
        raise TemplateError(
            f"{llm.path}: the model has no chat template", hint="use a model tuned to follow orders"
        )
    params = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    answers: dict[int, Answer[T]] = {}
    fitting: list[int] = []
    for i, messages in enumerate(conversations):
        refusal = _refusal(llm, messages)
        if refusal is None:
            fitting.append(i)
        else:
            answers[i] = Answer(None, error=refusal)
    for start in range(0, len(fitting), _BATCH):
        batch = fitting[start : start + _BATCH]
        completions = llm.chat([conversations[i] for i in batch], params)
        for i, completion in zip(batch, completions, strict=True):
            answers[i] = _answer(completion, lambda text, i=i: parse(i, text))  # type: ignore[misc]
        if progress is not None:
            progress(len(answers), len(conversations))
    return [answers[i] for i in range(len(conversations))]


def unfenced(text: str) -> str:
    """The inside of an answer that is one fenced block and nothing else, as chat models like it."""
    found = _FENCED.fullmatch(text)
    return text if found is None else found[1]


def _refusal(llm: LLM, messages: Messages) -> UserError | None:
    """Why a conversation cannot be sent, found before a batch is made with it."""
    try:
        needed = len(llm.chat_ids(messages))
    except UserError as error:
        return error
    if needed >= llm.context_length:
        return ContextLengthError(
            f"{needed:,} tokens with the instruction, and the context holds {llm.context_length:,}",
            hint="use a model with a longer context, or shorter documents",
        )
    return None


def _answer(completion: Completion, parse: Callable[[str], T]) -> Answer[T]:
    value: T | None = None
    error: FreeholdError | None = None
    try:
        if completion.finish_reason != "stop":
            written = len(completion.token_ids)
            raise AnswerError(f"the answer did not end within {written:,} tokens")
        value = parse(completion.text)
    except AnswerError as refused:
        error = refused
    return Answer(
        value,
        completion.text,
        error,
        prompt_tokens=len(completion.prompt_token_ids),
        cached_tokens=completion.cached_tokens,
        answer_tokens=len(completion.token_ids),
    )
