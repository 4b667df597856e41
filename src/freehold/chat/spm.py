# SPDX-License-Identifier: Apache-2.0
"""SentencePiece BPE: merge the best-scored neighbouring pair, leftmost first, until none is left.

Knows pieces, scores, `▁`, byte pieces and user-defined pieces. Knows no file format and no
control tokens: the caller cuts those out first.

The `tokenizers` BPE is not used here because it cannot be exact. It ranks *pairs*, whereas
SentencePiece scores the *merged piece*: "aaa" reached as (a, aa) or (aa, a) has one score and the
leftmost wins, and pieces of equal score are taken from the left as well. A ranked list must put
one pair before the other, and then decides differently on runs such as "aaaaa".

Reference: Kudo & Richardson 2018, https://arxiv.org/abs/1808.06226 (BPE mode of the library).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from freehold.chat.matcher import LiteralMatcher
from freehold.chat.vocab import TokenKind, Vocabulary
from freehold.errors import TokenizerError

SPACE = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORDS = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_CACHE_WORDS = 65_536
_CACHE_WORD_LENGTH = 48  # characters; longer words are rarely seen again


def byte_value(text: str) -> int | None:
    """The byte a piece `<0xNN>` stands for."""
    match = _BYTE_PIECE.fullmatch(text)
    return None if match is None else int(match[1], 16)


class SpmEncoder:
    """Text without control tokens → ids. O(n log n) in the length of the longest word."""

    def __init__(
        self,
        vocab: Vocabulary,
        *,
        add_space_prefix: bool = True,
        remove_extra_whitespaces: bool = False,
        escape_whitespaces: bool = True,
    ) -> None:
        if vocab.scores is None:
            raise TokenizerError("a SentencePiece vocabulary needs scores, and the file has none")
        self.add_space_prefix = add_space_prefix
        self._remove_extra = remove_extra_whitespaces
        self._escape = escape_whitespaces
        self._ids: dict[str, int] = {}
        self._cost: dict[str, float] = {}  # negated score: smaller is merged first
        self._unused: set[str] = set()
        self._byte_ids: list[int | None] = [None] * 256
        user_defined = []
        for i, (text, kind) in enumerate(zip(vocab.texts, vocab.kinds, strict=True)):
            if kind == TokenKind.BYTE:
                value = byte_value(text)
                if value is None:
                    raise TokenizerError(f"byte token {i} is written {text!r:.40}, not <0xNN>")
                self._byte_ids[value] = i
            elif text and kind in (TokenKind.NORMAL, TokenKind.USER_DEFINED, TokenKind.UNUSED):
                self._ids[text] = i
                self._cost[text] = -vocab.scores[i]
                if kind == TokenKind.USER_DEFINED:
                    user_defined.append(text)
                elif kind == TokenKind.UNUSED:
                    self._unused.add(text)
        self._unk_id = vocab.unk_id
        self._byte_fallback = all(i is not None for i in self._byte_ids)
        if not self._byte_fallback and self._unk_id is None:
            raise TokenizerError("the vocabulary has neither all 256 byte tokens nor an unknown")
        self._user_defined = LiteralMatcher(user_defined)
        # No merge can cross a gap that lies inside no piece. Where no piece holds a space behind
        # another character, words are independent, and caching them is exact.
        self._by_word = not any(SPACE in piece.lstrip(SPACE) for piece in self._ids)
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a stretch of text that starts the input or follows a control token."""
        del first  # both places get the space prefix
        text = self._normalize(text)
        ids: list[int] = []
        for piece, frozen in self._stretches(text):
            if frozen:
                ids.append(self._ids[piece])
            elif self._by_word:
                for word in _WORDS.findall(piece):
                    ids += self._encode_word(word)
            else:
                ids += self._segment(piece)
        if not self._byte_fallback:
            ids = [
                token_id
                for k, token_id in enumerate(ids)
                if token_id != self._unk_id or k == 0 or ids[k - 1] != token_id
            ]
        return ids

    def _normalize(self, text: str) -> str:
        if self._remove_extra:
            text = re.sub(" +", " ", text.lstrip(" "))
        if text and self.add_space_prefix:
            text = " " + text
        if self._escape:
            text = text.replace(" ", SPACE)
        # The library trims the end after escaping, so a written ▁ goes as well.
        return text.rstrip(SPACE if self._escape else " ") if self._remove_extra else text

    def _stretches(self, text: str) -> Iterator[tuple[str, bool]]:
        """Cut at user-defined pieces: (stretch, whether it is one)."""
        position = 0
        for start, end in self._user_defined.finditer(text):
            if start > position:
                yield text[position:start], False
            yield text[start:end], True
            position = end
        if position < len(text):
            yield text[position:], False

    def _encode_word(self, word: str) -> tuple[int, ...]:
        known = self._cache.get(word)
        if known is not None:
            return known
        ids = tuple(self._segment(word))
        if len(word) <= _CACHE_WORD_LENGTH:
            if len(self._cache) >= _CACHE_WORDS:
                self._cache.clear()
            self._cache[word] = ids
        return ids

    def _segment(self, text: str) -> list[int]:
        pieces, origins = self._merge(text)
        ids: list[int] = []
        stack = pieces[::-1]
        while stack:
            piece = stack.pop()
            if piece in self._unused and piece in origins:
                left, right = origins[piece]  # an unused piece is only a step: undo it
                stack += (right, left)
                continue
            token_id = self._ids.get(piece)
            if token_id is not None:
                ids.append(token_id)
            elif self._byte_fallback:
                ids += [self._byte_ids[b] for b in piece.encode()]  # type: ignore[misc]
            else:
                assert self._unk_id is not None
                ids.append(self._unk_id)
        return ids

    def _merge(self, text: str) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """The final pieces, and for unused pieces the pair each was made of."""
        cost = self._cost
        pieces = list(text)
        count = len(pieces)
        following = list(range(1, count + 1))
        preceding = list(range(-1, count - 1))
        heap: list[tuple[float, int, int, str]] = []  # cost, left, right, merged
        for i in range(count - 1):
            merged = pieces[i] + pieces[i + 1]
            if merged in cost:
                heap.append((cost[merged], i, i + 1, merged))
        heapify(heap)
        origins: dict[str, tuple[str, str]] = {}
        while heap:
            _, left, right, merged = heappop(heap)
            # Stale entries: one side is gone or has grown. Lengths tell, as pieces only grow.
            if not pieces[left] or not pieces[right]:
                continue
            if len(pieces[left]) + len(pieces[right]) != len(merged):
                continue
            if merged in self._unused:
                origins[merged] = (pieces[left], pieces[right])
            pieces[left] = merged
            pieces[right] = ""
            after = following[right]
            following[left] = after
            if after < count:
                preceding[after] = left
                longer = merged + pieces[after]
                if longer in cost:
                    heappush(heap, (cost[longer], left, after, longer))
            before = preceding[left]
            if before >= 0:
                longer = pieces[before] + merged
                if longer in cost:
                    heappush(heap, (cost[longer], before, left, longer))
        return [p for p in pieces if p], origins
