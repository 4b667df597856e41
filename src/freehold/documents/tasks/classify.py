# SPDX-License-Identifier: Apache-2.0
"""Which of some labels a document has, and how sure the model is. Nothing is decoded.

One label: p = softmax(s / temperature + bias) over the labels, s being the log-probability of
answering with the label and nothing else. Several: every label is a question of its own, p its
chance of yes against no. Temperature and biases come from labelled examples (`calibration`).
A document longer than the context is read in pieces whose probabilities are averaged, each piece
counting as much as it is long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from freehold._llm_label_rule import EXACT, Precision
from freehold.documents import prompts
from freehold.documents.asking import JSON, NOTHING_USED, Answer, Asker, LabelScores, Progress
from freehold.documents.calibration import Calibration, fit, probabilities
from freehold.documents.chunks import Chunk, chunk, room_beside
from freehold.documents.document import Document
from freehold.errors import FreeholdError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

_YES_NO = ("yes", "no")
_MAX_LABELS = 20_000
_BLOCK = 32  # documents scored at a time, to calibrate


@dataclass(frozen=True, slots=True)
class Classify:
    """One of `labels` for each document, or with `multi_label` any number of them.

    The value: ``label`` (None where its probability is below `abstain_below`), ``probability``,
    ``probabilities`` by label, ``coverage``: how likely the model answers with any of the labels at
    all. With `multi_label`: ``labels`` that are likelier than `threshold`, ``probabilities``.

    Probabilities are within `tolerance` of what computing every label gives; the likeliest is the
    same, and of a document of one piece whether it is likely enough. Labels that make less of a
    difference are not computed to their ends. With 0 all are that count in any way.
    """

    name: ClassVar[str] = "classify"
    VERSION: ClassVar[int] = 1

    labels: tuple[str, ...]
    abstain_below: float = 0.0
    multi_label: bool = False
    threshold: float = 0.5
    calibration: Calibration | None = None
    tolerance: float = 0.01

    def __post_init__(self) -> None:
        given: Any = self.labels
        if isinstance(given, str) or not all(isinstance(label, str) for label in given):
            raise InvalidParameterError("labels are a list of words")
        object.__setattr__(self, "labels", tuple(label.strip() for label in given))
        least = 1 if self.multi_label else 2
        different = {label.casefold() for label in self.labels}
        if len(different) < len(self.labels) or not all(different) or len(different) < least:
            raise InvalidParameterError("labels must be two or more different words")
        if len(self.labels) > _MAX_LABELS or any("\n" in label for label in self.labels):
            raise InvalidParameterError(f"labels are up to {_MAX_LABELS:,} words of one line each")
        if self.tolerance >= 1.0:
            raise InvalidParameterError("tolerance is a probability, below 1")
        for name in ("abstain_below", "threshold", "tolerance"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidParameterError(f"{name} is a probability, between 0 and 1")
        if self.calibration is not None:
            self.calibration.check(2 if self.multi_label else len(self.labels))

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        return {
            "labels": list(self.labels),
            "abstain_below": self.abstain_below,
            "multi_label": self.multi_label,
            "threshold": self.threshold,
            "calibration": None if self.calibration is None else self.calibration.as_json(),
            "tolerance": self.tolerance,
            "prompts": prompts.VERSION,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        calibration = spec["calibration"]
        return cls(
            tuple(spec["labels"]), spec["abstain_below"], spec["multi_label"], spec["threshold"],
            None if calibration is None else Calibration.from_json(calibration),
            spec.get("tolerance", 0.0),  # before there was one, nothing was left out
        )  # fmt: skip

    def calibrated(self, calibration: Calibration) -> Self:
        """The same task with what was fitted."""
        return replace(self, calibration=calibration)

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Labels and their probabilities."""
        return [self._answer(scores) for scores in self.scores(asker, documents)]

    def scores(
        self, asker: Asker, documents: Sequence[Document], *, exact: bool = False
    ) -> list[_Scores]:
        """What the model says, before any calibration; as far as the tolerance asks, unless
        `exact`."""
        pieces: list[list[Chunk]] = [[] for _ in documents]
        errors: dict[int, FreeholdError] = {}
        try:
            room = self._room(asker)
        except FreeholdError as refused:
            errors = dict.fromkeys(range(len(documents)), refused)
        for number, document in enumerate(documents):
            if number in errors:
                continue
            try:
                pieces[number] = chunk(document.text, room, asker.count_text)
            except FreeholdError as refused:
                errors[number] = refused
        questions = list(self.labels) if self.multi_label else [""]
        conversations = [
            self._question(each.text, label)
            for chunks in pieces
            for each in chunks
            for label in questions
        ]
        labels = _YES_NO if self.multi_label else self.labels
        asked = asker.label_logprobs(conversations, labels, self._precision(exact))
        found: list[_Scores] = []
        at = 0
        for number, chunks in enumerate(pieces):
            rows = asked[at : at + len(chunks) * len(questions)]
            at += len(rows)
            error = errors.get(number) or next((row.error for row in rows if row.error), None)
            found.append(_Scores(chunks, rows, error))
        return found

    def _question(self, text: str, label: str) -> prompts.Messages:
        if self.multi_label:
            return prompts.has_label(text, label)
        return prompts.classify(text, self.labels)

    def _room(self, asker: Asker) -> int:
        """Tokens of a document that fit, so that no label is longer than what is left."""
        question = self._question("", self.labels[0] if len(self.labels) == 1 else "")
        labels: Sequence[str] = self.labels
        if self.multi_label:
            question = max((self._question("", label) for label in labels), key=asker.count)
            labels = _YES_NO
        longest = max(asker.count_text(label) for label in labels)
        return room_beside(asker, question, longest + 4)

    def _precision(self, exact: bool) -> Precision:
        if exact:
            return EXACT
        calibration = self.calibration or Calibration(1.0, ())
        return Precision(
            self.tolerance, calibration.temperature, calibration.biases, self.abstain_below
        )

    def _answer(self, scores: _Scores) -> Answer[Any]:
        usage = sum((row.usage for row in scores.rows), NOTHING_USED)
        if scores.error is not None:
            return Answer(None, error=scores.error, usage=usage)
        chances, coverage = self._chances(scores)
        by_label: dict[str, Any] = dict(zip(self.labels, chances, strict=True))
        value: dict[str, Any]
        if self.multi_label:
            chosen = [label for label, chance in by_label.items() if chance > self.threshold]
            value = {"labels": chosen, "probabilities": by_label}
        else:
            best = max(by_label, key=lambda label: by_label[label])
            value = {
                "label": best if by_label[best] >= self.abstain_below else None,
                "probability": by_label[best],
                "probabilities": by_label,
            }
        value["coverage"] = coverage
        if len(scores.chunks) > 1:
            value["pieces"] = len(scores.chunks)
        return Answer(value, usage=usage)

    def _chances(self, scores: _Scores) -> tuple[list[float], float]:
        """Probabilities by label and the coverage, averaged over the pieces."""
        total = sum(chunk.end - chunk.start for chunk in scores.chunks) or 1
        each = len(scores.rows) // len(scores.chunks)
        chances = [0.0] * len(self.labels)
        coverage = 0.0
        for number, piece in enumerate(scores.chunks):
            weight = (piece.end - piece.start) / total if len(scores.chunks) > 1 else 1.0
            rows = scores.rows[number * each : (number + 1) * each]
            found, covered = self._piece(rows)
            chances = [sum_ + weight * chance for sum_, chance in zip(chances, found, strict=True)]
            coverage += weight * covered
        return chances, min(1.0, coverage)

    def _piece(self, rows: Sequence[LabelScores]) -> tuple[list[float], float]:
        pairs = [probabilities(row.logprobs, self.calibration) for row in rows]
        if self.multi_label:
            return [found[0] for found, _ in pairs], min(covered for _, covered in pairs)
        return pairs[0]


@dataclass(frozen=True, slots=True)
class _Scores:
    chunks: list[Chunk]
    rows: list[LabelScores]  # of a piece one, or one per label
    error: FreeholdError | None


TASK = Classify


def classify(
    llm: LLM | Asker, documents: Iterable[Document | str], labels: Sequence[str],
    progress: Progress | None = None, **options: Any,
) -> list[Answer[Any]]:  # fmt: skip
    """A label of `labels` for every document, with probabilities; options are `Classify`'s."""
    from freehold.documents import tasks

    return tasks.run(Classify(tuple(labels), **options), llm, documents, progress)


def fitted(
    task: Classify, asker: Asker, documents: Sequence[Document], truths: Sequence[str],
    progress: Progress | None = None,
) -> Calibration:  # fmt: skip
    """Temperature and biases for `task` from documents and their labels; with `multi_label` a
    truth holds labels with ``;`` between them. Raises InvalidParameterError for unknown labels."""
    known = {label.casefold(): number for number, label in enumerate(task.labels)}
    right: list[set[int]] = []
    for document, truth in zip(documents, truths, strict=True):
        names = truth.split(";") if task.multi_label else [truth]
        numbers = [known.get(name.strip().casefold(), -1) for name in names if name.strip()]
        if -1 in numbers or (not task.multi_label and len(numbers) != 1):
            raise InvalidParameterError(
                f"{document.name} is labelled {truth[:60]!r}, which is none of the labels"
            )
        right.append(set(numbers))
    rows: list[tuple[float, ...]] = []
    answers: list[int] = []
    for start in range(0, len(documents), _BLOCK):
        block = documents[start : start + _BLOCK]
        for number, scores in enumerate(task.scores(asker, block, exact=True), start):
            if scores.error is not None:
                raise scores.error
            if len(scores.chunks) > 1:
                continue  # what pieces say is averaged after calibration, not before
            rows += [row.logprobs for row in scores.rows]
            if task.multi_label:
                answers += [0 if label in right[number] else 1 for label in range(len(task.labels))]
            else:
                answers += right[number]
        if progress is not None:
            progress(min(start + _BLOCK, len(documents)), len(documents))
    return fit(rows, answers)
