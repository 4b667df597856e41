# SPDX-License-Identifier: Apache-2.0
"""The rest of a Python function. Whether it is right is for tests to say: nothing is run here."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from freehold.documents import prompts
from freehold.documents.asking import Answer, Progress, ask, unfenced
from freehold.errors import AnswerError

if TYPE_CHECKING:
    from freehold.llm import LLM

_MAX_TOKENS = 256
_MAX_BEGINNING = 20_000  # characters; more is no beginning of a short function
_PYTHON_BLOCK = re.compile(r"^```(?:python|py)[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


def complete_functions(
    llm: LLM, beginnings: Sequence[str], progress: Progress | None = None
) -> list[Answer[str]]:
    """Every beginning (signature and docstring) with the body the model wrote for it.

    An answer that does not make it valid Python is an AnswerError.
    """

    def parse(index: int, text: str) -> str:
        body = unfenced(text).strip("\n").rstrip()
        if body and not body[0].isspace():
            body = "    " + body  # the first indentation is easily lost
        function = f"{beginnings[index].rstrip()}\n{body}\n"
        tree = _parsed(function) if body.strip() else None
        if tree is None:
            raise AnswerError("the answer does not make the function valid Python")
        return function

    conversations = [prompts.complete_function(beginning) for beginning in beginnings]
    return ask(llm, conversations, parse, _MAX_TOKENS, progress)


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
