# SPDX-License-Identifier: Apache-2.0
"""What a text says, shorter: of any length, and all of it is read.

A text that fits the context is summarised at once. A longer one is cut (`chunks`), each piece is
summarised, and the summaries, in order, are the text of the next round until one fits: a tree. The
value tells how much of the document was read, in how many pieces and rounds. Pieces that a model
fails on fail the document, or, with `allow_partial`, are left out and lower the share that is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
)
from freehold.documents.chunks import VERSION as CHUNKER
from freehold.documents.chunks import Chunk, chunks_for
from freehold.documents.document import Document
from freehold.errors import AnswerError, FreeholdError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

_LINE_TOKENS = 128  # for one line
_TOKENS_PER_WORD = 3  # room for long words and other scripts; the prompt keeps the length
_MAX_WORDS = 5_000
_MAX_ROUNDS = 12
_SHARE = 4  # of the context, that an answer may take at most


@dataclass(frozen=True, slots=True)
class Summarize:
    """A summary of each document: one line, or about `words` words of prose.

    The value: ``summary``; ``read``, the share of the document's characters the model has read (1.0
    unless `allow_partial` left something out); ``pieces`` of the document and ``rounds`` of
    summaries; ``skipped``, the [start, end) that were left out.
    """

    name: ClassVar[str] = "summarize"
    VERSION: ClassVar[int] = 1

    words: int | None = None  # None: one line
    overlap: int = 1  # sentences of a piece that the next one repeats
    allow_partial: bool = False

    def __post_init__(self) -> None:
        if self.words is not None and not 5 <= self.words <= _MAX_WORDS:
            raise InvalidParameterError(
                f"a summary has between 5 and {_MAX_WORDS:,} words, not {self.words}"
            )
        if not 0 <= self.overlap <= 20:
            raise InvalidParameterError("overlap is up to 20 sentences")

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        return {
            "words": self.words,
            "overlap": self.overlap,
            "allow_partial": self.allow_partial,
            "prompts": prompts.VERSION,
            "chunker": CHUNKER,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        return cls(spec["words"], spec["overlap"], spec["allow_partial"])

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Summaries. All pieces of all documents of a round are asked as one batch."""
        trees = [_Tree(document.text) for document in documents]
        for tree in trees:
            self._cut(asker, tree, tree.text, self.overlap)
        while waiting := [tree for tree in trees if tree.pieces]:
            conversations = [
                self._question(piece.text, len(tree.pieces) > 1)
                for tree in waiting
                for piece in tree.pieces
            ]
            replies = iter(asker.chat(conversations, max_tokens=self._room(asker)))
            for tree in waiting:
                self._take(asker, tree, [next(replies) for _ in tree.pieces])
        return [tree.answer() for tree in trees]

    def _question(self, text: str, of_several: bool) -> prompts.Messages:
        if self.words is None:
            return prompts.summarize(text)
        # A part may take all the words there are: what matters is for the last round to decide.
        return prompts.summarize_in_words(text, self.words, part=of_several)

    def _room(self, asker: Asker) -> int:
        """Tokens an answer may take."""
        wanted = _LINE_TOKENS if self.words is None else self.words * _TOKENS_PER_WORD + 32
        return max(16, min(wanted, asker.context_length // _SHARE))

    def _cut(self, asker: Asker, tree: _Tree, text: str, overlap: int) -> None:
        try:
            question = self._question("", True)
            tree.pieces = chunks_for(asker, text, question, self._room(asker), overlap=overlap)
        except FreeholdError as error:
            tree.fail(error)

    def _take(self, asker: Asker, tree: _Tree, replies: Sequence[Reply]) -> None:
        """The summaries of a round: the last one, or the text of the next round."""
        lines: list[str] = []
        first = tree.rounds == 0
        for piece, reply in zip(tree.pieces, replies, strict=True):
            tree.usage += reply.usage
            try:
                lines.append(self._line(reply))
            except FreeholdError as error:
                if not (self.allow_partial and first and len(tree.pieces) > 1):
                    tree.fail(_placed(error, piece, len(tree.pieces)))
                    return
                tree.skipped.append((piece.start + piece.repeated, piece.end))
        if not lines:
            tree.fail(AnswerError("no piece of the document could be summarised"))
            return
        if first:
            tree.num_pieces = len(tree.pieces)
        tree.rounds += 1
        before, tree.pieces = sum(len(piece.text) for piece in tree.pieces), []
        if len(lines) == 1:
            tree.summary = lines[0]
            return
        joined = "\n".join(lines) if self.words is None else "\n\n".join(lines)
        if tree.rounds >= _MAX_ROUNDS or len(joined) >= before:
            tree.fail(AnswerError("the summaries of the pieces do not get shorter"))
            return
        self._cut(asker, tree, joined, 0)

    def _line(self, reply: Reply) -> str:
        text = reply.whole()
        line = " ".join(text.split()) if self.words is None else text.strip()
        if not line:
            raise AnswerError("the answer is empty")
        return line


class _Tree:
    """How far one document has come."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pieces: list[Chunk] = []  # of this round, to be asked
        self.num_pieces = 0  # of the document
        self.rounds = 0
        self.skipped: list[tuple[int, int]] = []
        self.usage: Usage = NOTHING_USED
        self.summary: str | None = None
        self.error: FreeholdError | None = None

    def fail(self, error: FreeholdError) -> None:
        self.error, self.pieces = error, []

    def answer(self) -> Answer[Any]:
        if self.error is not None:
            return Answer(None, error=self.error, usage=self.usage)
        left_out = sum(end - start for start, end in self.skipped)
        value = {
            "summary": self.summary,
            "read": 1.0 - left_out / max(1, len(self.text)),
            "pieces": self.num_pieces,
            "rounds": self.rounds,
            "skipped": [list(span) for span in self.skipped],
        }
        return Answer(value, self.summary or "", usage=self.usage)


def _placed(error: FreeholdError, piece: Chunk, count: int) -> FreeholdError:
    if count == 1:
        return error
    where = f"characters {piece.start:,} to {piece.end:,}"
    return type(error)(f"{where}: {error.message}", hint=error.hint)


TASK = Summarize


def summarize(
    llm: LLM | Asker, documents: Iterable[Document | str], progress: Progress | None = None,
    **options: Any,
) -> list[Answer[Any]]:  # fmt: skip
    """A summary of every document; options are `Summarize`'s."""
    from freehold.documents import tasks

    return tasks.run(Summarize(**options), llm, documents, progress)
