# SPDX-License-Identifier: Apache-2.0
"""Named values of a text, each with the words it was read from.

What is asked for is planned (`answer_plan`), the answer is constrained while it is written, so that
what is to be copied can only be copied, and is read back with the places of the words
(`answer_reading`). A document that does not fit the context is read in pieces that overlap by two
sentences; what they say is put together, and where they differ that is told. A piece whose answer
does not end in the room there is is cut in two and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from freehold.chat.json_check import JsonCheck
from freehold.documents import answer_plan, prompts
from freehold.documents.answer_reading import Result, Tree, combine, is_full, read
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
from freehold.documents.chunks import VERSION as CHUNKER
from freehold.documents.chunks import Chunk, chunk, chunks_for
from freehold.documents.document import Document
from freehold.documents.evidence import Passage, Span
from freehold.documents.fields import schema_of_fields
from freehold.errors import AnswerError, FreeholdError, InvalidParameterError
from freehold.types import Constraint

if TYPE_CHECKING:
    from freehold.llm import LLM

_LIST_SHARE = 3  # of the context, that an answer with lists may take
_SPARE_TOKENS = 32
_LEAST_PIECE = 64  # tokens; a shorter one is not cut again
_MAX_CUTS = 64  # of a document
_MOST_ITEMS = 24  # of a list in one answer; a piece with more is cut in two


@dataclass(frozen=True)
class Extract:
    """The values that `schema`, a JSON Schema of an object, asks for.

    The value: ``values``, which are valid under the schema; ``evidence``, by JSON Pointer the
    {start, end, quote} each was read from, with its page where there are pages, and how many
    ``places`` hold the same words; ``unsupported``, pointers of values that no words of the text
    back; ``conflicts``, what pieces of a long document said differently; ``problems``, words that
    were found and are no value; ``pieces``.
    """

    name: ClassVar[str] = "extract"
    VERSION: ClassVar[int] = 3

    schema: Mapping[str, Any]
    evidence: bool = True
    overlap: int = 2  # sentences of a piece that the next one repeats
    search: int = 1  # beginnings of an answer that are followed side by side

    def __post_init__(self) -> None:
        if not 1 <= self.search <= 32:
            raise InvalidParameterError("between 1 and 32 beginnings of an answer can be followed")
        _ = self.plan, self._check  # what is wrong with a schema is told at once

    @classmethod
    def of_fields(cls, fields: Sequence[str]) -> Self:
        """Values by these names, ``name:type`` or a name alone, each of which may be null."""
        return cls(schema_of_fields(fields))

    @cached_property
    def plan(self) -> answer_plan.ObjectPlan:
        """How the values are asked for."""
        return answer_plan.plan(self.schema, evidence=self.evidence)

    @cached_property
    def _check(self) -> JsonCheck:
        return JsonCheck(self.schema)

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        return {
            "schema": json.loads(json.dumps(self.schema)),
            "evidence": self.evidence,
            "overlap": self.overlap,
            "search": self.search,
            "prompts": prompts.VERSION,
            "chunker": CHUNKER,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        return cls(spec["schema"], spec["evidence"], spec["overlap"], spec["search"])

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Values with evidence. All pieces of all documents are asked as one batch, those that
        had to be cut again as another."""
        works = [_Work(document) for document in documents]
        for work in works:
            try:
                work.waiting = chunks_for(
                    asker, work.document.text, self._question(""), self._room(asker),
                    overlap=self.overlap,
                )  # fmt: skip
                work.cut = len(work.waiting) > 1
            except FreeholdError as error:
                work.error = error
        while asked := [(work, piece) for work in works for piece in work.waiting]:
            for work in works:
                work.waiting = []
            passages = [Passage(piece.text, piece.start) for _, piece in asked]
            replies = self._ask(
                asker,
                [self._question(piece.text) for _, piece in asked],
                [
                    self._form(work, passage)
                    for (work, _), passage in zip(asked, passages, strict=True)
                ],
            )
            for (work, piece), passage, reply in zip(asked, passages, replies, strict=True):
                self._take(asker, work, piece, passage, reply)
        return [self._answer(work) for work in works]

    def _ask(
        self, asker: Asker, conversations: list[prompts.Messages], forms: list[Constraint]
    ) -> list[Reply]:
        room = self._room(asker)
        if self.search == 1:
            return asker.chat(conversations, max_tokens=room, constraint=forms)
        found: Any = getattr(asker, "search", None)
        if found is None:
            raise InvalidParameterError(
                "whoever answers cannot search for answers", hint="leave --search out"
            )
        replies: list[Reply] = found(
            conversations, max_tokens=room, constraint=forms, width=self.search
        )
        return replies

    def _question(self, text: str) -> prompts.Messages:
        names = answer_plan.flat_names(self.plan)
        if names is not None:
            return prompts.extract(text, names)
        form = json.dumps(answer_plan.form(self.plan), ensure_ascii=False)
        return prompts.extract_form(text, form)

    def _form(self, work: _Work, passage: Passage) -> Constraint:
        schema = answer_plan.answer_schema(self.plan, lenient=work.cut, most=_MOST_ITEMS)
        return Constraint("grounded", {"schema": schema, "text": passage.flat})

    def _room(self, asker: Asker) -> int:
        """Tokens an answer may take."""
        fixed, has_lists = answer_plan.answer_tokens(self.plan)
        wanted = fixed + _SPARE_TOKENS
        if has_lists:
            wanted = max(wanted, asker.context_length // _LIST_SHARE)
        return min(wanted, asker.context_length // 2)

    def _take(
        self, asker: Asker, work: _Work, piece: Chunk, passage: Passage, reply: Reply
    ) -> None:
        """The answer of one piece, or two smaller pieces to be asked."""
        work.usage += reply.usage
        tree: Tree = None
        more = reply.error is None and reply.finish_reason == "length"
        if not more:
            try:
                answer = _parsed(reply.whole())
                tree = read(self.plan, answer, passage, work.document.text)
                more = is_full(self.plan, tree, _MOST_ITEMS)
            except FreeholdError as error:
                work.error = work.error or error
                return
        if not more:
            work.trees.append((piece.start, tree))
            return
        size = asker.count_text(piece.text)
        halves = chunk(piece.text, max(1, (size + 1) // 2), asker.count_text)
        work.cuts += 1
        if size < _LEAST_PIECE or len(halves) < 2 or work.cuts > _MAX_CUTS:
            why = f"the answer did not end within {reply.usage.answer_tokens:,} tokens"
            work.error = work.error or AnswerError(why, hint="ask for less at once")
            return
        work.cut = True
        work.waiting += [
            Chunk(half.text, piece.start + half.start, piece.start + half.end) for half in halves
        ]

    def _answer(self, work: _Work) -> Answer[Any]:
        error = work.error
        if error is None:
            try:
                trees = [tree for _, tree in sorted(work.trees, key=lambda item: item[0])]
                result = combine(self.plan, trees)
                if not self._check.accepts(result.values):
                    raise AnswerError(
                        "the values that were found are not valid under the schema"
                        + "".join(f"; {path}: {why}" for path, why in result.problems.items())
                    )
                return Answer(_value(result, work), usage=work.usage)
            except AnswerError as refused:
                error = refused
        return Answer(None, error=error, usage=work.usage)


@dataclass(slots=True)
class _Work:
    """How far one document has come."""

    document: Document
    waiting: list[Chunk] = field(default_factory=list)  # to be asked
    trees: list[tuple[int, Tree]] = field(default_factory=list)  # by where their piece begins
    cut: bool = False  # no piece holds all of it
    cuts: int = 0  # pieces that were cut again
    usage: Usage = NOTHING_USED
    error: FreeholdError | None = None


def _value(result: Result, work: _Work) -> dict[str, Any]:
    return {
        "values": result.values,
        "evidence": {
            path: _evidence(span, work.document) for path, span in result.evidence.items()
        },
        "unsupported": result.unsupported,
        "conflicts": result.conflicts,
        "problems": result.problems,
        "pieces": len(work.trees),
    }


def _evidence(span: Span, document: Document) -> dict[str, Any]:
    found: dict[str, Any] = {
        "start": span.start,
        "end": span.end,
        "quote": document.text[span.start : span.end],
        "places": span.places,
    }
    page = document.page_at(span.start)
    if page is not None:
        found["page"] = page.number
    return found


def _parsed(text: str) -> Any:
    """JSON in an answer, which may come from somebody who was not kept to the form."""
    try:
        return json.loads(unfenced(text))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise AnswerError(f"the answer is not JSON: {reason:.100}") from None


TASK = Extract


def extract(
    llm: LLM | Asker, documents: Iterable[Document | str],
    wanted: Sequence[str] | Mapping[str, Any], progress: Progress | None = None, **options: Any,
) -> list[Answer[Any]]:  # fmt: skip
    """What is `wanted` of every document: names, ``name:type`` pairs, or a JSON Schema; options are
    `Extract`'s."""
    from freehold.documents import tasks

    schema = wanted if isinstance(wanted, Mapping) else schema_of_fields(wanted)
    return tasks.run(Extract(schema, **options), llm, documents, progress)
