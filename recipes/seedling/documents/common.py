# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""What several kinds of documents share: labelled pairs, letters made of sentences, lines of orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recipes.seedling import layout
from recipes.seedling.documents.chatter import chatter
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import BARE, Draw

Prose = Mapping[tuple[str, ...], Phrases]

GREETINGS = Phrases(
    ("Dear [customer|Sir or Madam|team|all],", "Hello,", "Hi[| there],", "Good [morning|day],", "Dear {person},", "Hello {person},", "To whom it may concern,"),
    ("Dear accounts team,", "Greetings {person},", "Good afternoon,", "Dear Ms or Mr {person},"),
)  # fmt: skip
CLOSINGS = Phrases(
    ("[Kind|Best|Warm] regards", "Yours [sincerely|faithfully|truly]", "Thanks[| a lot]", "Best[| wishes]", "Thank you", "Regards,", "Sincerely,", "Cheers"),
    ("With kind greetings", "Many thanks and regards", "Yours", "All the best"),
)  # fmt: skip


# Sentences for any label that is a noun: which word names the value counts, not the sentence.
FRAMES = Phrases(
    ("[The|Our|Your|Its|This] {label} [is|was|reads|:] {value}.", "{value} is [the|our|your] {label}.", "[As|For the] {label} [we have|we noted|there is|please take] {value}.", "[Please note|Note|Here is|See] the {label}[:|] {value}.",
     "[We wrote down|We have registered|Take|I see] {value} as [the |]{label}.", "[The document|It|This paper] [has|shows|names] {value} as [the |]{label}.", "[There is|With] the {label} {value}.", "{value} ({label})."),
    ("Under {label} you find {value}.", "{value} stands for the {label}.", "What we call {label} is {value}."),
)  # fmt: skip
# Words around a label and its value that say nothing about either: in training some sentences are
# made of them, so that what is read is the label and not the sentence.
_BEFORE = (
    "so", "now", "and", "yes", "again", "known", "that", "where", "what", "in", "by", "as", "whoever asks", "on file", "last", "here", "look", "all in all", "we think", "you see", "it says", "they put", "once more", "this time", "then", "well",
)  # fmt: skip
_BETWEEN = (
    "is", "was", "says", "goes", "being", "got", "came out as", "set to", "we say", "they told us", "stays", "should be", "equals", "comes to", "you read", "has been", "appears as", "-", "as", "given as",
)  # fmt: skip
SHORT_FRAMES = Phrases(
    ("{Label} {value}.", "{Label}: {value}."), ("({Label} {value})", "{Label} - {value}.")
)
_ENDS = (
    " by",
    " to",
    " on",
    " at",
    " from",
    " for",
    " of",
    "ed",
    "from",
    "to",
    "for",
    "on",
    " with",
    "since",
    "until",
    "why",
    "before",
    ".",
    "#",
)
MAIL_HEADS = (
    "From: {who} <{mail}>\nTo: {to}\nDate: {sent}\nSubject: {subject}", "From: {who} <{mail}>\nTo: {to}\nSubject: {subject}", "From: \"{who}\" <{mail}>\nTo: {to}\nDate: {sent}\nSubject: {subject}",
    "Subject: {subject}\nFrom: {who} <{mail}>", "From: {who} <{mail}>\nSubject: {subject}\nDate: {sent}", "Date: {sent}\nFrom: {who}\nSubject: {subject}",
)  # fmt: skip


def mail_head(draw: Draw, who: str, mail: str, subject: str) -> str:
    """The head of an e-mail, in training only; the day of sending is in none of the facts."""
    rng = draw.rng
    day = draw.day()
    sent = f"{day:%a, %d %b %Y} {draw.time()}:{rng.randint(10, 59)} {rng.choice(('+0200', '+0100', '-0500', '+0000'))}"
    to = rng.choice(("info", "orders", "support", "sales", "accounts", "office", "shop"))
    slots = {
        "who": who,
        "mail": mail,
        "to": f"{to}@{draw.word(1, 2).lower()}.example",
        "sent": sent,
    }
    return fill(rng.choice(MAIL_HEADS), slots | {"subject": subject})


def askable(
    names: Mapping[str, object], facts: Mapping[str, str], text: str, dated: str
) -> tuple[str, ...]:
    """The concepts of `names`; not `dated` when only the head of a mail has a date."""
    sent = text.startswith("Date: ") or "\nDate: " in text
    return tuple(name for name in names if name != dated or dated in facts or not sent)


def framed_value(draw: Draw, label: str, value: str) -> str:
    """A sentence that names `value` by `label` and says nothing else."""
    if draw.train and draw.chance(0.35):
        return _odd_sentence(draw, label, value)
    frames = SHORT_FRAMES if label.endswith(_ENDS) else FRAMES
    slots = {"label": label, "Label": label[0].upper() + label[1:], "value": value}
    said = fill(frames.pick(draw.rng, draw.split), slots)
    return said[0].upper() + said[1:] if not said.startswith(value) else said


def _odd_sentence(draw: Draw, label: str, value: str) -> str:
    """A sentence nobody would write, with the label before its value or behind it."""
    rng = draw.rng
    words = [*rng.sample(_BEFORE, rng.randint(0, 2)), rng.choice(("the", "our", "your", "", "a"))]
    between = rng.choice(_BETWEEN)
    if draw.chance(0.3):
        made = f"{value} {between} {' '.join(words)} {label}"
    else:
        made = f"{' '.join(words)} {label} {between} {value}"
    made = " ".join(made.split())
    return (made if made.startswith(value) else made[0].upper() + made[1:]) + "."


def _greeting(draw: Draw) -> str:
    """A line before the letter; in training some begin with a word that nobody says."""
    if draw.train and draw.chance(0.25):
        word = draw.word(1, 2)
        return draw.rng.choice((f"{word} {{person}},", f"{word},", f"{word} {draw.word(1, 2).lower()} {{person}},"))  # fmt: skip
    return GREETINGS.pick(draw.rng, draw.split)


def _closing(draw: Draw) -> str:
    if draw.train and draw.chance(0.25):
        return draw.rng.choice(("With ", "All ", "")) + draw.word(1, 2) + draw.rng.choice((" regards", " wishes", "", ","))  # fmt: skip
    return CLOSINGS.pick(draw.rng, draw.split)


def pairs(
    draw: Draw, labels: Mapping[str, Phrases], facts: Mapping[str, str], concepts: Sequence[str]
) -> list[layout.Pair]:
    """Labels and values of those `concepts` that `facts` has."""
    made: list[layout.Pair] = []
    bare = draw.money.style == BARE and draw.chance(0.6)
    for concept in concepts:
        if concept in facts:
            label = layout.cased(draw, labels[concept].pick(draw.rng, draw.split))
            if bare and concept in ("total", "subtotal", "tax", "fee"):
                label += (
                    f" ({draw.money.code})"
                    if draw.split == "train" or draw.chance(0.5)
                    else f" in {draw.money.code}"
                )
            made.append((label, facts[concept]))
    return made


def sentences(
    draw: Draw,
    prose: Prose,
    facts: Mapping[str, str],
    groups: Sequence[tuple[str, ...]],
    noise: Phrases,
    labels: Mapping[str, Phrases],
) -> str:
    """A sentence for each group of concepts; a group that is not complete falls apart.

    In some texts most sentences are frames around a label: they widen the ways of saying it.
    """
    rng = draw.rng
    said: list[str] = []
    plain = 0.6 if draw.chance(0.25) else 0.0
    for group in groups:
        present = tuple(concept for concept in group if concept in facts)
        whole = present == group and group in prose
        framed = [c for c in present if c in labels and plain and draw.chance(plain)]
        for concept in framed:
            said.append(framed_value(draw, labels[concept].pick(rng, draw.split), facts[concept]))
        if framed:
            whole = False
            present = tuple(concept for concept in present if concept not in framed)
        for part in [group] if whole else [(concept,) for concept in present]:
            if part in prose:
                said.append(fill(prose[part].pick(rng, draw.split), facts))
            else:
                label = labels[part[0]].pick(rng, draw.split)
                said.append(framed_value(draw, label, facts[part[0]]))
        if draw.chance(0.08):
            said.append(noise.pick(rng, draw.split))
        if draw.train and draw.chance(0.04):
            said.append(chatter(draw))
    if len(said) > 1 and draw.chance(0.3):
        cut = rng.randint(1, len(said) - 1)
        return " ".join(said[:cut]) + "\n\n" + " ".join(said[cut:])
    return " ".join(said)


def framed(draw: Draw, body: str, signature: str | None) -> str:
    """`body` between a greeting and a closing, each of which may be missing."""
    rng = draw.rng
    parts = [body.strip()]
    if draw.chance(0.75):
        parts.insert(0, fill(_greeting(draw), {"person": draw.last_name()}))
    if signature is not None:
        closing = f"{_closing(draw)}\n" if draw.chance(0.85) else ""
        parts.append(f"{closing}{signature}")
    elif draw.chance(0.4):
        parts.append(_closing(draw))
    if draw.chance(0.25):
        parts = [layout.wrapped(draw, part) for part in parts]
    return rng.choice(("\n\n", "\n")).join(parts)


def order_lines(draw: Draw, count: int) -> tuple[list[layout.Item], int]:
    """`count` lines and their sum in cents."""
    rng = draw.rng
    bare = rng.random() < 0.5
    rows: list[layout.Item] = []
    sum_ = 0
    for _ in range(count):
        quantity = rng.choice(
            (1, 1, 2, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 50, 100, rng.randint(1, 200))
        )
        price = draw.cents(200, 60_000)
        sum_ += quantity * price
        write = draw.money.write
        rows.append(
            (draw.product(), str(quantity), write(price, bare), write(quantity * price, bare))
        )
    return rows, sum_
