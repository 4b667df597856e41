# SPDX-License-Identifier: Apache-2.0
"""What a task needs from whatever runs the model, and what a task gives back.

Knows conversations, replies and counts. Knows no model: `llm_asker` asks one in this process, and
others may ask one elsewhere. A task sees nothing but an `Asker`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from freehold._llm_label_rule import EXACT, Precision
from freehold.documents.prompts import Messages
from freehold.errors import AnswerError, FreeholdError
from freehold.types import Constraint, FinishReason

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]  # answers so far, answers in all
# What a spec and a value are made of: nothing that JSON cannot write down.
JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None
# One form for all answers, or one for each.
Forms: TypeAlias = Constraint | Sequence[Constraint | None] | None

_FENCED = re.compile(r"\s*```[\w+-]*\n(.*?)\n?```\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one or several requests."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, known from an earlier one
    answer_tokens: int = 0
    forced_tokens: int = 0  # of the answer, those its form left no choice about

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.answer_tokens + other.answer_tokens,
            self.forced_tokens + other.forced_tokens,
        )


NOTHING_USED = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one conversation: a text, whole or cut off, or an error."""

    text: str = ""
    finish_reason: FinishReason = "stop"
    usage: Usage = NOTHING_USED
    error: FreeholdError | None = None

    def whole(self) -> str:
        """The text of a reply that came to its end. Raises what was wrong with it."""
        if self.error is not None:
            raise self.error
        if self.finish_reason != "stop":
            raise AnswerError(f"the answer did not end within {self.usage.answer_tokens:,} tokens")
        return self.text


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How likely one conversation is answered with each of some labels and nothing else.

    Natural logarithms, in the order of the labels; nothing is decoded for them.
    """

    logprobs: tuple[float, ...] = ()
    usage: Usage = NOTHING_USED
    error: FreeholdError | None = None


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What came of one document: a value that JSON can write down, or an error that says why there
    is none."""

    value: T | None
    text: str = ""  # what the model wrote, where that was one answer
    error: FreeholdError | None = None
    usage: Usage = field(default=NOTHING_USED)

    def part(self, name: str) -> Answer[Any]:
        """The same answer with one entry of its value as the value."""
        value: Any = self.value
        return replace(self, value=None if value is None else value[name])


class Asker(Protocol):
    """Asks a model, greedily. Answers come in the order of the conversations; what is wrong with
    one of them is its own error and nobody else's."""

    @property
    def context_length(self) -> int:
        """Tokens of a conversation and its answer together."""

    @property
    def model_digest(self) -> str:
        """Tells this model, with its adapter, from every other; the same wherever it lies."""

    def count(self, messages: Messages) -> int:
        """Tokens of a rendered conversation, the opening of its answer included."""

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""

    def chat(
        self,
        conversations: Sequence[Messages],
        *,
        max_tokens: int | Sequence[int],
        constraint: Forms = None,
    ) -> list[Reply]:
        """An answer to each, of at most `max_tokens`, in the form of its constraint."""

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        """How likely each is answered with each of the labels, as far as `precision` asks."""


def spread(
    count: int, max_tokens: int | Sequence[int], constraint: Forms
) -> tuple[list[int], list[Constraint | None]]:
    """The limit and the form of each of `count` answers, where one may stand for all."""
    limits = [max_tokens] * count if isinstance(max_tokens, int) else list(max_tokens)
    if constraint is None or isinstance(constraint, Constraint):
        return limits, [constraint] * count
    return limits, list(constraint)


def answered(reply: Reply, parse: Callable[[str], T]) -> Answer[T]:
    """The answer that `parse` makes of a whole reply; it may raise AnswerError."""
    try:
        return Answer(parse(reply.whole()), reply.text, usage=reply.usage)
    except FreeholdError as error:
        return Answer(None, reply.text, error, reply.usage)


def unfenced(text: str) -> str:
    """The inside of an answer that is one fenced block and nothing else, as chat models like it."""
    found = _FENCED.fullmatch(text)
    return text if found is None else found[1]
