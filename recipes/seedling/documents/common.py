# SPDX-License-Identifier: Apache-2.0
"""What several kinds of documents share: labelled pairs, letters made of sentences, lines of orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recipes.seedling import layout
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

Prose = Mapping[tuple[str, ...], Phrases]

GREETINGS = Phrases(
    ("Dear [customer|Sir or Madam|team|all],", "Hello,", "Hi[| there],", "Good [morning|day],", "Dear {person},", "Hello {person},", "To whom it may concern,"),
    ("Dear accounts team,", "Greetings {person},", "Good afternoon,", "Dear Ms or Mr {person},"),
)  # fmt: skip
CLOSINGS = Phrases(
    ("[Kind|Best|Warm] regards", "Yours [sincerely|faithfully|truly]", "Thanks[| a lot]", "Best[| wishes]", "Thank you", "Regards,", "Sincerely,", "Cheers"),
    ("With kind greetings", "Many thanks and regards", "Yours", "All the best"),
)  # fmt: skip


def pairs(
    draw: Draw, labels: Mapping[str, Phrases], facts: Mapping[str, str], concepts: Sequence[str]
) -> list[layout.Pair]:
    """Labels and values of those `concepts` that `facts` has."""
    return [
        (layout.cased(draw, labels[concept].pick(draw.rng, draw.split)), facts[concept])
        for concept in concepts
        if concept in facts
    ]


def sentences(
    draw: Draw,
    prose: Prose,
    facts: Mapping[str, str],
    groups: Sequence[tuple[str, ...]],
    noise: Phrases,
) -> str:
    """A sentence for each group of concepts; a group that is not complete falls apart."""
    rng = draw.rng
    said: list[str] = []
    for group in groups:
        present = tuple(concept for concept in group if concept in facts)
        whole = present == group and group in prose
        for part in [group] if whole else [(concept,) for concept in present]:
            said.append(fill(prose[part].pick(rng, draw.split), facts))
        if draw.chance(0.08):
            said.append(noise.pick(rng, draw.split))
    if len(said) > 1 and draw.chance(0.3):
        cut = rng.randint(1, len(said) - 1)
        return " ".join(said[:cut]) + "\n\n" + " ".join(said[cut:])
    return " ".join(said)


def framed(draw: Draw, body: str, signature: str | None) -> str:
    """`body` between a greeting and a closing, each of which may be missing."""
    rng = draw.rng
    parts = [body.strip()]
    if draw.chance(0.75):
        greeting = GREETINGS.pick(rng, draw.split)
        parts.insert(0, fill(greeting, {"person": draw.last_name()}))
    if signature is not None:
        closing = f"{CLOSINGS.pick(rng, draw.split)}\n" if draw.chance(0.85) else ""
        parts.append(f"{closing}{signature}")
    elif draw.chance(0.4):
        parts.append(CLOSINGS.pick(rng, draw.split))
    return rng.choice(("\n\n", "\n")).join(parts)


def order_lines(draw: Draw, count: int) -> tuple[list[layout.Item], int]:
    """`count` lines and their sum in cents."""
    rng = draw.rng
    bare = rng.random() < 0.5
    rows: list[layout.Item] = []
    sum_ = 0
    for _ in range(count):
        quantity = rng.choice((1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 50, 100, rng.randint(1, 200)))
        price = draw.cents(200, 60_000)
        sum_ += quantity * price
        write = draw.money.write
        rows.append((draw.product(), str(quantity), write(price, bare), write(quantity * price, bare)))
    return rows, sum_
