# SPDX-License-Identifier: Apache-2.0
"""Code from a specification: files in, files out, and given tests decide whether they are right.

A document that is a Python function with nothing but a docstring is completed; any other is a
specification, answered with whole files in fenced blocks. Tests run in the `sandbox`; where they
fail the model is shown what they printed and may try again. Without tests, nothing is run.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from freehold.documents import prompts
from freehold.documents.asking import (
    JSON,
    NOTHING_USED,
    Answer,
    Asker,
    Progress,
    Reply,
    Usage,
    unfenced,
)
from freehold.documents.document import Document
from freehold.documents.sandbox import (
    MAX_BYTES,
    Bounds,
    Verdict,
    check_tests,
    checked_path,
    run_tests,
)
from freehold.errors import AnswerError, FreeholdError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

_BODY_TOKENS = 256  # for the body of one function
_FILE_TOKENS = 4096  # for files, as far as the context holds them
_MAX_ATTEMPTS = 10
_MAX_FILES = 20  # of an answer
_MAX_BEGINNING = 20_000  # characters; more is no beginning of a short function
_PYTHON_BLOCK = re.compile(r"^```(?:python|py)[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(
    r"^(?P<fence>```+|~~~+)[ \t]*(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Code:
    """Files for each document. `files` are there already, `tests` decide, `path` is what a single
    file is called.

    The value: ``files``, text by path; ``passed``, true, or null where there are no tests;
    ``attempts``; ``isolation``, what held the tests while they ran. Files that do not pass are an
    AnswerError, with the end of what the tests printed.
    """

    name: ClassVar[str] = "code"
    VERSION: ClassVar[int] = 2

    tests: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    path: str = "solution.py"
    attempts: int = 1
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        for name in (self.path, *self.files):
            checked_path(name)
        if not 1 <= self.attempts <= _MAX_ATTEMPTS:
            raise InvalidParameterError(f"between 1 and {_MAX_ATTEMPTS} attempts can be made")
        size = sum(len(text) for text in (*self.files.values(), self.tests or ""))
        if size > MAX_BYTES:
            raise InvalidParameterError(f"the files and tests have more than {MAX_BYTES:,} bytes")
        if self.tests is not None:
            check_tests(self.tests)

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        bounds = self.bounds
        return {
            "tests": self.tests,
            "files": dict(self.files),
            "path": self.path,
            "attempts": self.attempts,
            "bounds": [bounds.seconds, bounds.memory, bounds.file_bytes, bounds.strict],
            "prompts": prompts.VERSION,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        return cls(
            spec["tests"], spec["files"], spec["path"], spec["attempts"], Bounds(*spec["bounds"])
        )

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Files. Each round asks all documents that have not passed as one batch."""
        works = [_Work(document, self._question(document)) for document in documents]
        for attempt in range(1, self.attempts + 1):
            open_works = [work for work in works if not work.over]
            if not open_works:
                break
            room = [self._room(asker, work) for work in open_works]
            asked = [work.conversation for work in open_works]
            for work, reply in zip(open_works, asker.chat(asked, max_tokens=room), strict=True):
                self._try(work, reply, attempt, last=attempt == self.attempts)
        return [work.answer() for work in works]

    def _question(self, document: Document) -> prompts.Messages:
        if _beginning(document.text) is not None:
            return prompts.complete_function(_beginning(document.text) or "")
        return prompts.write_code(document.text, self.files, self.path)

    def _room(self, asker: Asker, work: _Work) -> int:
        if work.beginning is not None:
            return _BODY_TOKENS
        try:
            used = asker.count(work.conversation)
        except FreeholdError:
            return _BODY_TOKENS  # what is wrong with it is told when it is asked
        return max(16, min(_FILE_TOKENS, asker.context_length - used))

    def _try(self, work: _Work, reply: Reply, attempt: int, *, last: bool) -> None:
        """One reply: files that pass, or what is wrong with them."""
        work.usage += reply.usage
        work.attempts = attempt
        work.text = reply.text
        try:
            text = reply.whole()
        except FreeholdError as error:
            work.fail(error)
            return
        try:
            files = self._files(work, text)
            if self.tests is not None:
                work.verdict = run_tests({**self.files, **files}, self.tests, self.bounds)
                if work.verdict.ended == "refused":
                    work.fail(_refused(work.verdict))
                    return
                if not work.verdict.passed:
                    raise AnswerError(_failure(work.verdict))
            work.files = files
        except InvalidParameterError as error:
            work.fail(AnswerError(error.message))
        except AnswerError as error:
            if last:
                tries = "" if attempt == 1 else f" after {attempt} attempts"
                work.fail(AnswerError(f"{error.message}{tries}"))
            else:
                work.conversation = prompts.try_again(work.conversation, text, error.message)

    def _files(self, work: _Work, text: str) -> dict[str, str]:
        """The files in an answer, those in Python valid. Raises AnswerError."""
        if work.beginning is not None:
            return {self.path: completed(work.beginning, text)}
        files = files_of(text, self.path)
        for name, content in files.items():
            if name.endswith(".py") and _parsed(content) is None:
                raise AnswerError(f"{name} is not valid Python")
        return files


class _Work:
    """How far one document has come."""

    def __init__(self, document: Document, conversation: prompts.Messages) -> None:
        self.beginning = _beginning(document.text)
        self.conversation = conversation
        self.files: dict[str, str] | None = None
        self.verdict: Verdict | None = None
        self.error: FreeholdError | None = None
        self.attempts = 0
        self.text = ""
        self.usage: Usage = NOTHING_USED

    @property
    def over(self) -> bool:
        return self.files is not None or self.error is not None

    def fail(self, error: FreeholdError) -> None:
        self.error = error

    def answer(self) -> Answer[Any]:
        if self.files is None:
            return Answer(None, self.text, self.error, self.usage)
        value = {
            "files": self.files,
            "passed": None if self.verdict is None else self.verdict.passed,
            "attempts": self.attempts,
            "isolation": [] if self.verdict is None else list(self.verdict.layers),
        }
        return Answer(value, self.text, usage=self.usage)


def _refused(verdict: Verdict) -> FreeholdError:
    return InvalidParameterError(
        f"the tests were not run: {verdict.report}",
        hint="--weak-sandbox runs them all the same",
    )


def _failure(verdict: Verdict) -> str:
    why = {"time": "take too long", "memory": "need too much memory", "disk": "write too much"}
    lines = [line.strip() for line in verdict.report.splitlines() if line.strip()]
    said = f": {' / '.join(lines[-3:])[-400:]}" if lines and verdict.ended == "failed" else ""
    return f"the tests {why.get(verdict.ended, 'fail')}{said}"


TASK = Code


def complete_functions(
    llm: LLM | Asker, beginnings: Iterable[Document | str], progress: Progress | None = None,
    **options: Any,
) -> list[Answer[Any]]:  # fmt: skip
    """Every beginning (signature and docstring) with the body the model wrote for it; options are
    `Code`'s."""
    from freehold.documents import tasks

    return tasks.run(Code(**options), llm, beginnings, progress)


def files_of(text: str, path: str) -> dict[str, str]:
    """The fenced blocks of an answer by the paths behind their fences; one without a path, or an
    answer without a fence, is the file `path`. Raises AnswerError."""
    found: dict[str, str] = {}
    unnamed = 0
    for block in _BLOCK.finditer(text):
        words = block["info"].split()
        named = [word for word in words if "." in word or "/" in word]
        name = named[-1].removeprefix("path=").strip("\"'") if named else path
        unnamed += not named
        try:
            name = checked_path(name)
        except InvalidParameterError as error:
            raise AnswerError(f"the answer {error.message}") from None
        if name in found:
            raise AnswerError(f"the answer has the file {name!r:.80} twice")
        found[name] = block["body"]
    if not found and text.strip() and "```" not in text:
        found[path] = text.strip("\n") + "\n"
    if not found or len(found) > _MAX_FILES or unnamed > 1:
        raise AnswerError("the answer has no files, or too many")
    if sum(map(len, found.values())) > MAX_BYTES:
        raise AnswerError(f"the answer has more than {MAX_BYTES:,} bytes")
    return found


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


def _beginning(text: str) -> str | None:
    """A document that is nothing but the beginning of a function, or holds one in a block."""
    if _is_beginning(text):
        return text
    return unfinished_function(text)


def _is_beginning(text: str) -> bool:
    if len(text) > _MAX_BEGINNING or "def " not in text:
        return False
    tree = _parsed(text)
    last = tree.body[-1] if tree is not None and tree.body else None
    return (
        isinstance(last, ast.FunctionDef)
        and len(last.body) == 1
        and ast.get_docstring(last) is not None
    )


def unfinished_function(text: str) -> str | None:
    """The function in the first Python block of a Markdown text, if all it has is a docstring."""
    block = _PYTHON_BLOCK.search(text)
    return block[1].rstrip() if block is not None and _is_beginning(block[1]) else None


def _parsed(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape in somebody's code is theirs
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
