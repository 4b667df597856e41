# SPDX-License-Identifier: Apache-2.0
"""The rest of a Python function. Whether it is right is for tests to say: nothing is run here."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from freehold.documents import prompts
from freehold.documents.asking import JSON, Answer, Asker, Progress, answered, unfenced
from freehold.documents.document import Document
from freehold.errors import AnswerError

if TYPE_CHECKING:
    from freehold.llm import LLM

_MAX_TOKENS = 256
_MAX_BEGINNING = 20_000  # characters; more is no beginning of a short function
_PYTHON_BLOCK = re.compile(r"^```(?:python|py)[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Code:
    """The function that each document begins, whole. The value: ``code``."""

    name: ClassVar[str] = "code"
    VERSION: ClassVar[int] = 1

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        return {"prompts": prompts.VERSION}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        return cls()

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Functions. One that is no valid Python is an AnswerError."""
        beginnings = [document.text for document in documents]
        conversations = [prompts.complete_function(beginning) for beginning in beginnings]
        replies = asker.chat(conversations, max_tokens=_MAX_TOKENS)
        return [
            answered(reply, lambda text, head=head: {"code": completed(head, text)})  # type: ignore[misc]
            for reply, head in zip(replies, beginnings, strict=True)
        ]


TASK = Code


def complete_functions(
    llm: LLM | Asker, beginnings: Iterable[Document | str], progress: Progress | None = None
) -> list[Answer[Any]]:
    """Every beginning (signature and docstring) with the body the model wrote for it."""
    from freehold.documents import tasks

    return tasks.run(Code(), llm, beginnings, progress)


def completed(beginning: str, text: str) -> str:
    """`beginning` with the body in an answer. Raises AnswerError unless that is valid Python."""
    body = unfenced(text).strip("\n").rstrip()
    if body and not body[0].isspace():
        body = "    " + body  # the first indentation is easily lost
    function = f"{beginning.rstrip()}\n{body}\n"
    tree = _parsed(function) if body.strip() else None
    if tree is None:
        raise AnswerError("the answer does not make the function valid Python")
    return function


def unfinished_function(text: str) -> str | None:
    """The function in the first Python block of a Markdown text, if all it has is a docstring."""
    block = _PYTHON_BLOCK.search(text)
    if block is None or len(block[1]) > _MAX_BEGINNING:
        return None
    tree = _parsed(block[1])
    last = tree.body[-1] if tree is not None and tree.body else None
    if not isinstance(last, ast.FunctionDef) or len(last.body) != 1:
        return None
    return block[1].rstrip() if ast.get_docstring(last) is not None else None


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape in somebody's code is theirs
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
