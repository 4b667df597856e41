# SPDX-License-Identifier: Apache-2.0
"""A small grammar of wordings: `[a|b|]` is a choice (it nests), `{slot}` a place for a value.

Every wording of the corpus is written as a `Phrases`: one tuple for training, one for held-out
text. Which of the two is read depends on the split alone, so a held-out wording cannot reach the
training text. Knows nothing of documents, values or tasks.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from recipes.seedling.example import Split

_SLOT = re.compile(r"\{(\w+)\}(\.?)")
# A sequence of pieces; a piece is literal text or a tuple of alternative sequences.
_Sequence = tuple["str | tuple[_Sequence, ...]", ...]


@dataclass(frozen=True)
class Phrases:
    """Wordings of one thing, a tuple for each split."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def of(self, split: Split) -> tuple[str, ...]:
        """The wordings of `split`."""
        return self.train if split == "train" else self.heldout

    def pick(self, rng: random.Random, split: Split) -> str:
        """One wording with its choices made and its slots still open."""
        return expand(rng, rng.choice(self.of(split)))


def expand(rng: random.Random, template: str) -> str:
    """`template` with every `[a|b]` decided."""
    if "[" not in template:
        return template
    return "".join(_walk(rng, _parse(template)))


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with its `{slots}` replaced; a slot without a value is a mistake of the template.

    A value that ends with a full stop (Inc.) ends the sentence with it, as people write.
    """
    if "{" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        word = values[match[1]]
        return word if word.endswith(".") else word + match[2]

    return _SLOT.sub(value, text)


def slots(text: str) -> tuple[str, ...]:
    """Names of the open slots, in order of appearance."""
    return tuple(match[1] for match in _SLOT.finditer(text))


def every(template: str) -> Iterator[str]:
    """All decided forms of `template`."""
    yield from _forms(_parse(template))


def _walk(rng: random.Random, sequence: _Sequence) -> Iterator[str]:
    for piece in sequence:
        if isinstance(piece, str):
            yield piece
        else:
            yield from _walk(rng, piece[int(rng.random() * len(piece))])


def _forms(sequence: _Sequence) -> Iterator[str]:
    choices = [
        (piece,) if isinstance(piece, str) else tuple(f for alt in piece for f in _forms(alt))
        for piece in sequence
    ]
    for parts in product(*choices):
        yield "".join(parts)


@cache
def _parse(template: str) -> _Sequence:
    sequence, end = _parse_sequence(template, 0)
    if end != len(template):
        raise ValueError(f"unbalanced bracket in the template {template!r}")
    return sequence


def _parse_sequence(template: str, at: int) -> tuple[_Sequence, int]:
    pieces: list[str | tuple[_Sequence, ...]] = []
    literal = ""
    while at < len(template) and template[at] not in "|]":
        if template[at] == "[":
            if literal:
                pieces.append(literal)
                literal = ""
            alternatives: list[_Sequence] = []
            while True:
                alternative, at = _parse_sequence(template, at + 1)
                alternatives.append(alternative)
                if at >= len(template):
                    raise ValueError(f"unbalanced bracket in the template {template!r}")
                if template[at] == "]":
                    break
            pieces.append(tuple(alternatives))
        else:
            literal += template[at]
        at += 1
    if literal:
        pieces.append(literal)
    return tuple(pieces), at
