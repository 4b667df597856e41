# SPDX-License-Identifier: Apache-2.0
"""The training stream: examples as ids, in batches of like length, at a position that can be kept.

A chunk is a few thousand examples, drawn from its own seed; within it rows of like length share
a batch and the batches are shuffled. A `Position` names a batch, so a stream can be opened there
again. Knows no network and no optimiser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from freehold.documents import prompts
from recipes.seedling.example import Example
from recipes.seedling.settings import SPECIAL_TOKENS, TURN_END, TURN_START, Budget
from recipes.seedling.tokenizer import encode_examples

IntArray = npt.NDArray[np.int64]
Row = tuple[list[int], int, str]  # ids, how many are asked, task
# seed and count to examples; the training split of the corpus
Source = Callable[[int, int], Iterator[Example]]
DRILL = "drill"
# Lines of a drill and tokens of a line, at most, for each of its lessons. Copying is found within
# a hundred steps where there are few places to copy from, and hardly at all in long drills; once
# found it carries over.
LESSONS = ((3, 4), (5, 6), (8, 8))


@dataclass(frozen=True)
class Position:
    """A batch of the stream: which chunk, and which batch of it comes next."""

    chunk: int = 0
    batch: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows of like length."""

    ids: IntArray  # [rows, time], padded at the end
    asked: IntArray  # [rows] leading tokens that are the question
    lengths: IntArray  # [rows]
    tasks: tuple[str, ...]
    position: Position  # of the batch after this one

    @property
    def tokens(self) -> int:
        """Tokens without padding."""
        return int(self.lengths.sum())

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answers, ends included."""
        return int((self.lengths - self.asked).sum())


@dataclass(frozen=True)
class Phase:
    """What the stream is made of at a time."""

    max_tokens: int
    drill_rate: float  # 1: nothing but drills
    lesson: int = len(LESSONS) - 1


def phase_at(budget: Budget, progress: float) -> Phase:
    """Drills first, then short examples, then all; `progress` runs from 0 to 1."""
    if progress < budget.drill_share:
        return Phase(budget.short_tokens, 1.0, int(len(LESSONS) * progress / budget.drill_share))
    if progress < budget.drill_share + budget.short_share:
        return Phase(budget.short_tokens, budget.drill_rate)
    return Phase(budget.max_tokens, budget.drill_rate)


def drill(random: np.random.Generator, tokenizer: Tokenizer, lesson: int) -> Row:
    """Lines of random tokens; answered with the same lines in another order.

    Nothing but finding and copying helps here, so a young network learns to look back sooner
    than documents would teach it, and learns it for every token of the vocabulary.
    """
    most, longest = LESSONS[lesson]
    vocab = tokenizer.get_vocab_size() - len(SPECIAL_TOKENS)
    newline, start, end, user, assistant = (
        tokenizer.encode(text, add_special_tokens=False).ids
        for text in ("\n", TURN_START, TURN_END, "user", "assistant")
    )
    lines = [
        random.integers(0, vocab, int(random.integers(2, longest + 1))).tolist() + newline
        for _ in range(int(random.integers(2, most + 1)))
    ]
    order = random.permutation(len(lines))
    asked = [*start, *user, *newline, *(token for line in lines for token in line)]
    asked += [*end, *newline, *start, *assistant, *newline]
    answered = [token for i in order for token in lines[i]]
    return asked + answered + end, len(asked), DRILL


# Words of the vocabulary, and what may stand between a label and its value.
_WORD = re.compile(r"[A-Za-z]{2,}")
_MARKS = (": ", " ", " - ", " = ", "\t", " | ", "=", " (", ': "', "\n", " # ", " ~ ")


def vocabulary_words(tokenizer: Tokenizer) -> list[str]:
    """The letters of all tokens that are nothing else, in a fixed order."""
    found = (token.removeprefix("Ġ") for token in tokenizer.get_vocab())
    return sorted({word for word in found if _WORD.fullmatch(word)})


def spelling(random: np.random.Generator, words: Sequence[str]) -> Example:
    """Labelled values made of pieces of the vocabulary, some of them to be given as JSON.

    After a space a word is another token than after a quotation mark or a bracket. This is where
    the two are met for all words, not only for those that documents happen to hold.
    """

    def some(most: int) -> str:
        count = int(random.integers(1, most + 1))
        picked = [words[i] for i in random.integers(0, len(words), 2 * count)]
        glued = random.random(count) < 0.4
        made = [
            a + b.lower() if g else a for a, b, g in zip(*[iter(picked)] * 2, glued, strict=True)
        ]
        return " ".join(made)

    fields = {some(2): some(4) for _ in range(int(random.integers(2, 7)))}
    mark = _MARKS[int(random.integers(len(_MARKS)))]
    text = "\n".join(f"{label}{mark}{value}" for label, value in fields.items())
    asked = [str(each) for each in random.permutation(list(fields))][: int(random.integers(1, 5))]
    answer = json.dumps({label: fields[label] for label in asked}, ensure_ascii=False)
    return Example("extract", DRILL, tuple(prompts.extract(text, asked)), answer)


def _rows(
    source: Source, tokenizer: Tokenizer, budget: Budget, phase: Phase, chunk: int
) -> list[Row]:
    random = np.random.default_rng([budget.seed, chunk, 1])
    count = budget.chunk_examples
    drills = round(count * phase.drill_rate)
    spelled = 0 if drills == count else round(drills * budget.spelling_share)
    rows = [drill(random, tokenizer, phase.lesson) for _ in range(drills - spelled)]
    if drills == count:
        return rows
    words = vocabulary_words(tokenizer)
    made = [spelling(random, words) for _ in range(spelled)]
    rows += [(ids, asked, DRILL) for ids, asked in encode_examples(tokenizer, made)]
    examples = list(source(budget.seed * 1_000_000 + chunk, count - drills))
    for example, (ids, asked) in zip(examples, encode_examples(tokenizer, examples), strict=True):
        if len(ids) <= phase.max_tokens:
            rows.append((ids, asked, example.task))
    return rows


def _batch(rows: list[Row], position: Position) -> Batch:
    lengths = np.array([len(ids) for ids, _, _ in rows], dtype=np.int64)
    ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for row, (each, _, _) in zip(ids, rows, strict=True):
        row[: len(each)] = each
    asked = np.array([count for _, count, _ in rows], dtype=np.int64)
    return Batch(ids, asked, lengths, tuple(task for _, _, task in rows), position)


def chunk_batches(
    source: Source, tokenizer: Tokenizer, budget: Budget, phase: Phase, chunk: int
) -> list[Batch]:
    """All batches of one chunk, in the order they are trained on."""
    rows = _rows(source, tokenizer, budget, phase, chunk)
    random = np.random.default_rng([budget.seed, chunk, 2])
    random.shuffle(rows)
    rows.sort(key=lambda row: len(row[0]))
    groups: list[list[Row]] = []
    while rows:  # from the longest down: padding goes by the longest row
        group = [rows.pop()]
        while rows and (len(group) + 1) * len(group[0][0]) <= budget.micro_tokens:
            group.append(rows.pop())
        groups.append(group)
    order = random.permutation(len(groups))
    return [_batch(groups[i], Position(chunk, n + 1)) for n, i in enumerate(order)]


class Stream:
    """An endless sequence of batches from a position on."""

    def __init__(
        self, source: Source, tokenizer: Tokenizer, budget: Budget, position: Position
    ) -> None:
        self._source, self._tokenizer, self._budget = source, tokenizer, budget
        self.position = position
        self._batches: list[Batch] = []
        self._chunk = -1
        self._phase: Phase | None = None

    @property
    def phase(self) -> Phase | None:
        """What the chunk at hand was made with; kept with a checkpoint, as time decides it."""
        return self._phase

    def restore(self, phase: Phase | None) -> None:
        """Make the chunk at hand again as it was made before."""
        if phase is not None:
            self._open(phase)

    def _open(self, phase: Phase) -> None:
        self._phase, self._chunk = phase, self.position.chunk
        self._batches = chunk_batches(
            self._source, self._tokenizer, self._budget, phase, self._chunk
        )

    def take(self, phase: Phase) -> Batch:
        """The next batch; a chunk that begins is made for `phase`."""
        if self._chunk != self.position.chunk or self._phase != phase:
            if self._chunk == self.position.chunk:  # the phase changed: leave the rest of it
                self.position = Position(self._chunk + 1)
            self._open(phase)
        while self.position.batch >= len(self._batches):
            self.position = Position(self.position.chunk + 1)
            self._open(phase)
        batch = self._batches[self.position.batch]
        self.position = batch.position
        return batch
