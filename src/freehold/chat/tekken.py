# SPDX-License-Identifier: Apache-2.0
"""`tekken.json`, the vocabulary file of Mistral's own checkpoints.

The file lists byte strings by rank: a piece of text is merged by joining, again and again, the
neighbours whose joint string has the lowest rank, the leftmost of equals. Ids of special tokens
come first, so a string's id is its rank plus their number. Knows nothing about chats.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, pre_tokenizers

from freehold.chat.bpe import BYTE_CHARACTERS, is_library_error
from freehold.chat.vocab import MAX_TOKEN_LENGTH, MAX_VOCAB, TokenKind, Vocabulary, check_texts
from freehold.errors import TokenizerError

MAX_PATTERN_LENGTH = 4096
_CACHED_PIECES = 65_536
# What the numbers before 1000 mean in files too old to say so.
_OLD_SPECIALS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
    "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
)  # fmt: skip


class RankEncoder:
    """Text without control tokens → ids, by ranks of byte strings."""

    def __init__(self, ranks: Mapping[bytes, int], pattern: str, offset: int) -> None:
        self._ranks = ranks  # in order of rank
        self.pattern = pattern  # that cuts text into pieces
        self._offset = offset
        self._longest = max(map(len, ranks))
        self._cache: dict[str, list[int]] = {}
        try:
            self._splitter = pre_tokenizers.Split(Regex(pattern), "isolated")
        except BaseException as error:
            if is_library_error(error):
                raise TokenizerError(
                    f"tekken.json: the pattern is none: {str(error)[:200]}"
                ) from None
            raise

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a stretch of text."""
        del first  # position changes nothing in this family
        try:
            pieces = self._splitter.pre_tokenize_str(text)
        except BaseException as error:
            if is_library_error(error):
                raise TokenizerError(f"the text cannot be split: {str(error)[:200]}") from None
            raise
        ids: list[int] = []
        for piece, _ in pieces:
            found = self._cache.get(piece)
            if found is None:
                found = [rank + self._offset for rank in self._merge(piece.encode())]
                if len(self._cache) < _CACHED_PIECES and len(piece) <= 64:
                    self._cache[piece] = found
            ids += found
        return ids

    def merges(self) -> list[tuple[bytes, bytes]]:
        """What byte-pair merging in this order joins last in each token, tokens in order of rank:
        the list that GGUF and tokenizer.json keep. A token that no two others make up is not in
        it; it is found only where it is a whole piece."""
        strings, pairs = list(self._ranks), []
        for token, rank in self._ranks.items():
            parts = self._merge(token, below=rank) if len(token) > 1 else []
            if len(parts) == 2:
                pairs.append((strings[parts[0]], strings[parts[1]]))
        return pairs

    def _merge(self, piece: bytes, below: int | None = None) -> list[int]:
        """Ranks of the strings a piece is joined into; where `below` is given, by strings of lower
        ranks alone. Takes n·log n."""
        ranks, size = self._ranks, len(piece)
        if below is None and (whole := ranks.get(piece)) is not None:
            return [whole]
        # Strings are spans; `after[i]` is the end of the one that starts at i.
        after = list(range(1, size + 1))
        before = list(range(-1, size))
        heap: list[tuple[int, int, int, int]] = []

        def offer(left: int, middle: int) -> None:
            end = after[middle]
            if end - left <= self._longest:
                rank = ranks.get(piece[left:end])
                if rank is not None and (below is None or rank < below):
                    heapq.heappush(heap, (rank, left, middle, end))

        for i in range(size - 1):
            offer(i, i + 1)
        while heap:
            _, left, middle, end = heapq.heappop(heap)
            if after[left] != middle or after[middle] != end:
                continue  # one of the two was joined to something else
            after[left] = end
            after[middle] = -1
            if end < size:
                before[end] = left
                offer(left, end)
            if left:
                offer(before[left], left)
        found, at = [], 0
        while at < size:
            found.append(ranks[piece[at : after[at]]])
            at = after[at]
        return found


def tekken(data: Mapping[str, Any]) -> tuple[Vocabulary, RankEncoder]:
    """Vocabulary and encoder of the file's JSON object; TokenizerError names what is wrong."""
    config = data.get("config")
    if not isinstance(config, Mapping):
        raise TokenizerError("tekken.json has no config")
    size = _number(config, "default_vocab_size")
    special = _number(config, "default_num_special_tokens")
    pattern = config.get("pattern")
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN_LENGTH:
        raise TokenizerError(f"tekken.json: the pattern is no text: {pattern!r:.60}")
    if special > size:
        raise TokenizerError(f"tekken.json has {special} special tokens out of {size}")
    texts, kinds = _specials(data.get("special_tokens"), special)
    ranks = _ranks(data.get("vocab"), size - special)
    texts += ["".join(map(BYTE_CHARACTERS.__getitem__, token)) for token in ranks]
    kinds += bytes([TokenKind.NORMAL]) * len(ranks)

    def named(text: str) -> int | None:
        return texts.index(text) if text in texts[:special] else None

    vocab = Vocabulary(
        texts=check_texts(texts, where="tekken.json"),
        kinds=bytes(kinds),
        bos_id=named("<s>"),
        eos_id=named("</s>"),
        unk_id=named("<unk>"),
        pad_id=named("<pad>"),
    )
    return vocab, RankEncoder(ranks, pattern, special)


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_VOCAB:
        raise TokenizerError(f"tekken.json: {name} is no number of tokens: {value!r:.60}")
    return value


def _specials(listed: Any, count: int) -> tuple[list[str], bytearray]:
    texts = [f"<SPECIAL_{i}>" for i in range(count)]
    kinds = bytearray([TokenKind.CONTROL]) * count
    if listed is None:
        texts[: len(_OLD_SPECIALS)] = _OLD_SPECIALS[:count]
    elif not isinstance(listed, list):
        raise TokenizerError("tekken.json: special_tokens is no list")
    for entry in listed or ():
        rank = entry.get("rank") if isinstance(entry, Mapping) else None
        text = entry.get("token_str") if isinstance(entry, Mapping) else None
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < count:
            raise TokenizerError(f"tekken.json has a special token of the rank {rank!r:.40}")
        if not isinstance(text, str) or not text:
            raise TokenizerError(f"tekken.json: the special token {rank} has no text")
        texts[rank] = text
    for i, text in enumerate(texts):
        if text == "<unk>":
            kinds[i] = TokenKind.UNKNOWN
    return texts, kinds


def _ranks(listed: Any, count: int) -> dict[bytes, int]:
    """Byte strings in order of rank; the file may list more than are in use."""
    if not isinstance(listed, list) or len(listed) < count:
        raise TokenizerError(f"tekken.json: vocab does not list {count} tokens")
    ranks: dict[bytes, int] = {}
    for i, entry in enumerate(listed[:count]):
        raw = entry.get("token_bytes") if isinstance(entry, Mapping) else None
        if not isinstance(raw, str) or len(raw) > 2 * MAX_TOKEN_LENGTH or entry.get("rank") != i:
            raise TokenizerError(f"tekken.json: the entry {i} of vocab is no token of that rank")
        try:
            token = base64.b64decode(raw, validate=True)
        except (binascii.Error, ValueError):
            raise TokenizerError(f"tekken.json: the token {i} is no base64") from None
        if not token or token in ranks:
            raise TokenizerError(f"tekken.json: the token {i} is empty or there twice")
        ranks[token] = i
    missing = next((b for b in range(256) if bytes([b]) not in ranks), None)
    if missing is not None:
        raise TokenizerError(f"tekken.json has no token for the byte 0x{missing:02x}")
    return ranks
