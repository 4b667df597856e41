# SPDX-License-Identifier: Apache-2.0
"""The key facts of a text in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freehold.documents import prompts
from freehold.documents.asking import Answer, Progress, ask
from freehold.errors import AnswerError

if TYPE_CHECKING:
    from freehold.llm import LLM

_MAX_TOKENS = 128


def summarize(
    llm: LLM, texts: Sequence[str], progress: Progress | None = None
) -> list[Answer[str]]:
    """One line for every text; an answer of several lines is joined to one."""

    def parse(_: int, text: str) -> str:
        line = " ".join(text.split())
        if not line:
            raise AnswerError("the answer is empty")
        return line

    return ask(llm, [prompts.summarize(text) for text in texts], parse, _MAX_TOKENS, progress)
