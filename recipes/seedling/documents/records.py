# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Records with labels that mean nothing: they teach that a field is found by its label.

Labels are made words or everyday nouns, values all that `values` makes and plain words too: a copy
is spelled with the tokens of the place it goes to, and each word has to be met to be known in both.
The question names them as the record does or with underscores. They are for
training alone, and carry no summary and no class.
"""

from __future__ import annotations

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.pools import NOUN_TRAIN
from recipes.seedling.values import Draw

_NOUNS = "number name date code total id type place size weight colour group rate level owner email".split()


def record(draw: Draw) -> Document:
    """Four to nine labelled values in one arrangement."""
    rng = draw.rng
    makers = (
        draw.person, draw.company, draw.city, draw.date, draw.amount, draw.product, draw.phone, draw.email, draw.word, lambda: _words(draw),
        lambda: draw.identifier(("A", "K", "NO", "X")), lambda: str(rng.randint(1, 5000)), lambda: rng.choice(("yes", "no", "open", "closed", "new", "paid")),
    )  # fmt: skip
    facts: dict[str, str] = {}
    pairs: list[layout.Pair] = []
    names: dict[str, tuple[str, ...]] = {}
    for _ in range(rng.randint(4, 9)):
        label = draw.word(1, 2).lower() if draw.chance(0.5) else rng.choice(NOUN_TRAIN)
        if rng.random() < 0.5:
            label = _two(draw, label, rng.choice(_NOUNS))
        elif rng.random() < 0.15:
            label = f"{label} {draw.word(1, 2).lower()}"
        if label in facts:
            continue
        value = rng.choice(makers)()
        facts[label] = value
        spoken = label.replace("(", "").replace(")", "")
        names[label] = (spoken.replace(" ", "_"), spoken.replace(" ", "_"), spoken)
        pairs.append((layout.cased(draw, label), value))
    missing = draw.word(1, 2).lower()
    names[missing] = (missing,)
    facts.pop(missing, None)
    if draw.chance(0.3):
        text = " ".join(common.framed_value(draw, label.lower(), value) for label, value in pairs)
    else:
        text = layout.block(draw, pairs)
    return Document("record", text, facts, tuple(names), names=names)


def _two(draw: Draw, word: str, noun: str) -> str:
    """Both in one label, in one of the ways in which people join them."""
    pattern = draw.rng.choice(
        (
            "{0} {1}",
            "{0} {1}",
            "{0} {1}",
            "{1} of the {0}",
            "{1} of {0}",
            "the {0} {1}",
            "{0} ({1})",
        )
    )
    return pattern.format(word, noun)


def _words(draw: Draw) -> str:
    """One to four everyday nouns."""
    words = draw.rng.sample(NOUN_TRAIN, draw.rng.randint(1, 4))
    text = " ".join(words)
    if draw.chance(0.3):
        text = f"{draw.rng.choice(('a', 'the', 'an', 'no', 'our'))} {text}"
    return text if draw.chance(0.6) else text.capitalize()
