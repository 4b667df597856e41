# SPDX-License-Identifier: Apache-2.0
"""Which of some labels a text has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freehold.documents import prompts
from freehold.documents.asking import Answer, Progress, ask
from freehold.errors import AnswerError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

_SPARE_TOKENS = 4  # the end token, and another way to cut the same letters


def classify(
    llm: LLM, texts: Sequence[str], labels: Sequence[str], progress: Progress | None = None
) -> list[Answer[str]]:
    """One of `labels` for every text, or an AnswerError where the model named none of them."""
    known = {label.casefold(): label for label in labels}
    if len(known) != len(labels) or len(labels) < 2 or not all(known):
        raise InvalidParameterError("labels must be two or more different words")

    def parse(_: int, text: str) -> str:
        label = known.get(text.strip().removesuffix(".").casefold())
        if label is None:
            raise AnswerError(f"answered {text.strip()[:60]!r}, which is none of the labels")
        return label

    longest = max(len(llm.tokenizer.encode(label, add_special=False)) for label in labels)
    conversations = [prompts.classify(text, labels) for text in texts]
    return ask(llm, conversations, parse, longest + _SPARE_TOKENS, progress)
