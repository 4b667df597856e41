# SPDX-License-Identifier: Apache-2.0
"""Languages small enough to list, with the pattern that describes each, and tokens to spell them.

The list of words is worked out from the parts of the pattern, by no code of the grammar library: so
it can say which tokens a mask must allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from freehold.engine.structured import TokenVocabulary

PIECES = (b"a", b"b", b"c", b"ab", b"bc", b"abc", b"aa")
EOS = len(PIECES)
MAX_WORDS = 150


@dataclass(frozen=True)
class Language:
    """A pattern and all texts that match it."""

    pattern: str
    words: frozenset[bytes]


def longest_first(pieces: Sequence[bytes]) -> Callable[[bytes], list[int]]:
    """A tokenizer that takes the longest piece that fits, again and again."""
    order = sorted((piece, i) for i, piece in enumerate(pieces) if piece)
    order.sort(key=lambda item: -len(item[0]))

    def encode(text: bytes) -> list[int]:
        ids: list[int] = []
        while text:
            piece, token = next(item for item in order if text.startswith(item[0]))
            ids.append(token)
            text = text[len(piece) :]
        return ids

    return encode


def vocabulary(pieces: Sequence[bytes] = PIECES, ends: int = 1) -> TokenVocabulary:
    """Tokens of these pieces, and behind them those that end an answer."""
    names = [f"<end{i}>".encode() for i in range(ends)]
    eos = range(len(pieces), len(pieces) + ends)
    return TokenVocabulary([*pieces, *names], eos, list(eos), longest_first(pieces))


def text_of(tokens: Sequence[int], pieces: Sequence[bytes] = PIECES) -> bytes:
    """What tokens spell; ends stand for nothing."""
    return b"".join(pieces[t] for t in tokens if t < len(pieces))


def allowed_after(text: bytes, words: Iterable[bytes], pieces: Sequence[bytes]) -> set[int]:
    """By definition: tokens that keep a word in reach, and the end where `text` is one."""
    rests = [word[len(text) :] for word in words if word.startswith(text)]
    allowed = {i for i, piece in enumerate(pieces) if any(r.startswith(piece) for r in rests)}
    return allowed | ({len(pieces)} if b"" in rests else set())


def _product(left: Language, right: Language) -> Language:
    words = {a + b for a in left.words for b in right.words}
    return Language(left.pattern + right.pattern, frozenset(words))


def _either(left: Language, right: Language) -> Language:
    return Language(f"({left.pattern}|{right.pattern})", left.words | right.words)


def _repeated(inner: Language, least: int, more: int) -> Language:
    words: set[bytes] = set()
    row = {b""}
    for count in range(least + more + 1):
        if count >= least:
            words |= row
        row = {a + b for a in row for b in inner.words}
        if len(row) > 4 * MAX_WORDS:
            break
    return Language(f"({inner.pattern}){{{least},{least + more}}}", frozenset(words))


def languages() -> st.SearchStrategy[Language]:
    """Patterns of a few words up to some letters, with at least one word that is not empty."""
    letters = st.sampled_from("abc").map(lambda c: Language(c, frozenset([c.encode()])))
    sets = st.just(Language("[ab]", frozenset([b"a", b"b"])))
    found = st.recursive(
        letters | sets,
        lambda inner: st.one_of(
            st.builds(_product, inner, inner),
            st.builds(_either, inner, inner),
            st.builds(_repeated, inner, st.integers(0, 2), st.integers(0, 1)),
        ),
        max_leaves=7,
    )
    return found.filter(lambda x: len(x.words) <= MAX_WORDS and any(x.words))
