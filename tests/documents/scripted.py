# SPDX-License-Identifier: Apache-2.0
"""An asker without a model, for tests of what tasks make of replies: one token per character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from freehold._llm_label_rule import EXACT, Precision
from freehold.documents.asking import Forms, LabelScores, Reply, Usage
from freehold.documents.prompts import Messages
from freehold.errors import ContextLengthError
from freehold.types import Constraint


class Scripted:
    """Answers by a function of the prompt, and scores labels by another."""

    model_digest = "scripted"

    def __init__(
        self, answer: Callable[[str], str] = lambda prompt: "", *, context: int = 1000,
        score: Callable[[str, str], float] = lambda prompt, label: -1.0,
    ) -> None:  # fmt: skip
        self.context_length = context
        self.answer = answer
        self.score = score
        self.prompts: list[str] = []
        self.batches: list[int] = []
        self.forms: list[Constraint | None] = []

    def count(self, messages: Messages) -> int:
        return sum(len(message["content"]) for message in messages)

    def count_text(self, text: str) -> int:
        return len(text)

    def chat(
        self, conversations: Sequence[Messages], *, max_tokens: int | Sequence[int],
        constraint: Forms = None,
    ) -> list[Reply]:  # fmt: skip
        count = len(conversations)
        limits = [max_tokens] * count if isinstance(max_tokens, int) else list(max_tokens)
        forms = constraint if isinstance(constraint, Sequence) else [constraint] * count
        self.batches.append(count)
        self.forms += forms
        return [
            self._reply(messages[-1]["content"], limit)
            for messages, limit in zip(conversations, limits, strict=True)
        ]

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        prompts = [messages[-1]["content"] for messages in conversations]
        self.prompts += prompts
        return [
            LabelScores(tuple(self.score(prompt, label) for label in labels), Usage(len(prompt), 3))
            for prompt in prompts
        ]

    def _reply(self, prompt: str, limit: int) -> Reply:
        self.prompts.append(prompt)
        if len(prompt) >= self.context_length:
            return Reply(error=ContextLengthError(f"{len(prompt):,} tokens are too many"))
        text = self.answer(prompt)
        cut = text[:limit]
        reason = "stop" if cut == text else "length"
        return Reply(cut, reason, Usage(len(prompt), 3, len(cut)))


def always(text: str, context: int = 1000) -> Scripted:
    """One answer to everything."""
    return Scripted(lambda prompt: text, context=context)
