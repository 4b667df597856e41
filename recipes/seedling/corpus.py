# SPDX-License-Identifier: Apache-2.0
"""The corpus: an endless row of examples, each made from its split, seed and number alone.

So a worker or a resumed run starts anywhere. `data_hash` is what the model card names.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count as from_number
from itertools import islice

from recipes.seedling import tasks as task_makers
from recipes.seedling.document import Document
from recipes.seedling.documents.contracts import contract
from recipes.seedling.documents.incidents import incident
from recipes.seedling.documents.invoices import invoice
from recipes.seedling.documents.orders import order
from recipes.seedling.documents.records import record
from recipes.seedling.documents.tickets import ticket
from recipes.seedling.example import Example, Split, Task
from recipes.seedling.values import Draw

MIXTURE: Mapping[Task, float] = {
    "extract": 0.45,
    "summarize": 0.20,
    "classify": 0.18,
    "code": 0.14,
    "chat": 0.03,
}
Maker = Callable[[Draw], Document]
EXTRACTED: tuple[tuple[Maker, float], ...] = (
    (invoice, 0.40), (order, 0.28), (record, 0.19), (ticket, 0.08), (contract, 0.07),
    (incident, 0.07),
)  # fmt: skip
# In training more of them are invoices; held-out documents stay what they were.
EXTRACTED_IN_TRAINING: tuple[tuple[Maker, float], ...] = (
    (invoice, 0.50), (order, 0.24), (record, 0.13), (ticket, 0.08), (contract, 0.07),
    (incident, 0.07),
)  # fmt: skip
SUMMARIZED: tuple[tuple[Maker, float], ...] = (
    (invoice, 0.22), (order, 0.24), (ticket, 0.24), (contract, 0.15), (incident, 0.15),
)  # fmt: skip
KINDS: tuple[tuple[Maker, float], ...] = (
    (invoice, 0.19), (order, 0.19), (ticket, 0.19), (contract, 0.19), (incident, 0.19),
    (task_makers.code_document, 0.05),
)  # fmt: skip
LONGEST = 1300  # characters of a prompt; a longer document is drawn again


def examples(
    split: Split,
    seed: int,
    count: int | None = None,
    tasks: Sequence[Task] | None = None,
    *,
    start: int = 0,
    mixture: Mapping[Task, float] = MIXTURE,
    canonical: float | None = None,
) -> Iterator[Example]:
    """Examples number `start` to `start + count` (endless when None) of `split` and `seed`.

    `tasks` restricts the mixture. `canonical` is the share of questions in the exact words of
    `freehold.documents.prompts`: 0.85 in training and 1 for held-out unless given.
    """
    chosen = {task: share for task, share in mixture.items() if tasks is None or task in tasks}
    if canonical is None:
        canonical = 0.85 if split == "train" else 1.0
    numbers = from_number(start)
    for number in numbers if count is None else islice(numbers, count):
        yield example(split, seed, number, chosen, canonical)


def example(
    split: Split, seed: int, number: int, mixture: Mapping[Task, float], canonical: float
) -> Example:
    """Example `number` alone."""
    rng = random.Random(f"seedling/{split}/{seed}/{number}")
    task = rng.choices(tuple(mixture), weights=tuple(mixture.values()))[0]
    while True:
        made = _make(task, Draw(rng, split), canonical)
        if sum(len(message["content"]) for message in made.messages) <= LONGEST:
            return made


def data_hash(seed: int, count: int, split: Split = "train") -> str:
    """SHA-256 over the canonical lines of the first `count` examples."""
    digest = hashlib.sha256()
    for made in examples(split, seed, count):
        digest.update(serialise(made).encode() + b"\n")
    return digest.hexdigest()


def serialise(made: Example) -> str:
    """One example as a line of JSON with sorted keys."""
    return json.dumps(
        {
            "task": made.task,
            "kind": made.kind,
            "messages": [dict(message) for message in made.messages],
            "answer": made.answer,
            "facts": dict(made.facts),
        },
        ensure_ascii=False,
        sort_keys=True,
    )


def _make(task: Task, draw: Draw, canonical: float) -> Example:
    if task == "extract":
        makers = EXTRACTED_IN_TRAINING if draw.train else EXTRACTED
        return task_makers.extract(draw, _document(draw, makers), canonical)
    if task == "code":
        return task_makers.code(draw, canonical)
    if task == "chat":
        return task_makers.chat(draw)
    if task == "summarize":
        return task_makers.summarize(draw, _document(draw, SUMMARIZED), canonical)
    if task == "classify":
        if draw.chance(0.72):
            return task_makers.classify_intent(draw, ticket(draw), canonical)
        return task_makers.classify_kind(draw, _document(draw, KINDS), canonical)
    raise ValueError(f"no maker for the task {task!r}")


def _document(draw: Draw, makers: tuple[tuple[Maker, float], ...]) -> Document:
    if not draw.train:
        makers = tuple(pair for pair in makers if pair[0] is not record)
    maker = draw.rng.choices([m for m, _ in makers], weights=[w for _, w in makers])[0]
    return maker(draw)
