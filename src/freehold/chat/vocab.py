# SPDX-License-Identifier: Apache-2.0
"""A vocabulary as stored: token texts, kinds, scores, the ids with a meaning of their own.

Knows how to read and check the `tokenizer.ggml.*` keys. Does not know how text is split or
merged (`spm.py`, `bpe.py`), nor what bytes a token stands for (`tokenizer.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from freehold.errors import TokenizerError

MAX_VOCAB = 16_000_000  # 60 times the largest vocabulary in use; a bound, not a wish
MAX_TOKEN_LENGTH = 65_536  # characters of one token
NO_ID = 0xFFFF_FFFF  # what converters write for "none" in an unsigned field

# Tokens that end a turn under a well-known name. Files often name only `eos` and leave these
# to the reader; a chat model that prints one has finished.
END_OF_TURN_TEXTS = frozenset(
    {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|eot|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|EOT|>",
        "<EOT>",
        "<end_of_turn>",
        "<turn|>",
        "<|tool_response>",  # Gemma 4, behind a call: what follows is the caller's
        "<eos>",
        "<|END_OF_TURN_TOKEN|>",
        "<|assistant_end|>",
        "<｜end▁of▁sentence｜>",
    }
)


class TokenKind(IntEnum):
    """`tokenizer.ggml.token_type`; SentencePiece uses the same numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL_KINDS = frozenset({TokenKind.CONTROL, TokenKind.UNKNOWN})


@dataclass(frozen=True)
class Vocabulary:
    """Token id → text and kind, checked.

    `texts` holds each non-empty text once; an empty text is a hole in the id range.
    """

    texts: list[str]
    kinds: bytes  # one TokenKind per token
    scores: Sequence[float] | None = None  # log-probabilities, only SentencePiece-style files
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    eos_ids: tuple[int, ...] = ()  # every token that ends generation, `eos_id` first
    add_bos: bool = False
    add_eos: bool = False
    # Texts after (or before) which a vendor's tokenizer swallows white space.
    rstrip: frozenset[str] = field(default_factory=frozenset)
    lstrip: frozenset[str] = field(default_factory=frozenset)

    def ids_of(self, *kinds: TokenKind) -> list[int]:
        """Ids of the given kinds in order."""
        wanted = set(kinds)
        return [i for i, kind in enumerate(self.kinds) if kind in wanted]

    def with_rstrip(self, names: Iterable[str]) -> Vocabulary:
        """Tokens behind which white space is swallowed."""
        return replace(self, rstrip=frozenset(names))

    def with_control(self, names: Iterable[str]) -> Vocabulary:
        """Tokens that count as control tokens, whatever the file calls them."""
        wanted, kinds = frozenset(names), bytearray(self.kinds)
        for i, text in enumerate(self.texts):
            if text in wanted and kinds[i] == TokenKind.USER_DEFINED:
                kinds[i] = TokenKind.CONTROL
        return replace(self, kinds=bytes(kinds))

    def with_end_ids(self, ids: Sequence[int]) -> Vocabulary:
        """Add end tokens found elsewhere (generation_config.json)."""
        for token_id in ids:
            check_id(token_id, len(self.texts), "eos_token_id")
        return replace(self, eos_ids=tuple(dict.fromkeys((*self.eos_ids, *ids))))


def check_id(token_id: Any, size: int, name: str) -> int:
    """A token id inside the vocabulary, or TokenizerError."""
    if isinstance(token_id, bool) or not isinstance(token_id, int):
        raise TokenizerError(f"{name} must be a whole number, not {token_id!r:.60}")
    if not 0 <= token_id < size:
        raise TokenizerError(f"{name} {token_id} lies outside the vocabulary of {size} tokens")
    return token_id


def check_texts(texts: Sequence[Any], *, where: str) -> list[str]:
    """Token texts as a list of distinct strings (empty ones are holes and may repeat)."""
    count = len(texts)
    if count == 0:
        raise TokenizerError(f"{where} is empty")
    if count > MAX_VOCAB:
        raise TokenizerError(f"{where} has {count} entries, more than the limit of {MAX_VOCAB}")
    result = list(texts)
    if not all(type(t) is str for t in result):
        raise TokenizerError(f"{where} holds something that is not text")
    if max(map(len, result)) > MAX_TOKEN_LENGTH:
        raise TokenizerError(f"{where} holds a token longer than {MAX_TOKEN_LENGTH} characters")
    distinct = set(result)
    holes = result.count("")
    if len(distinct) - (holes > 0) != count - holes:
        seen: set[str] = set()
        for text in result:
            if text and text in seen:
                raise TokenizerError(f"{where} holds the token {text!r:.80} twice")
            seen.add(text)
    return result


def check_kinds(kinds: Sequence[Any] | None, count: int, *, where: str) -> bytes:
    """Token kinds as bytes; missing means all NORMAL."""
    if kinds is None:
        return bytes([TokenKind.NORMAL]) * count
    if len(kinds) != count:
        raise TokenizerError(f"{where} has {len(kinds)} entries for {count} tokens")
    try:
        result = bytes(int(k) for k in kinds)
    except (ValueError, TypeError):
        raise TokenizerError(f"{where} holds a value that is no token type") from None
    if max(result) > TokenKind.BYTE:
        raise TokenizerError(f"{where} holds the unknown token type {max(result)}")
    # 0 is "undefined" in the SentencePiece schema; readers take it as an ordinary token.
    return result.replace(b"\0", bytes([TokenKind.NORMAL]))


def check_scores(scores: Sequence[Any], count: int, *, where: str) -> list[float]:
    """Scores as finite floats, one per token."""
    if len(scores) != count:
        raise TokenizerError(f"{where} has {len(scores)} entries for {count} tokens")
    try:
        result = [float(s) for s in scores]
    except (ValueError, TypeError, OverflowError):
        raise TokenizerError(f"{where} holds something that is not a number") from None
    if not all(map(math.isfinite, result)):
        raise TokenizerError(f"{where} holds a score that is not finite")
    return result


def gguf_array(metadata: Mapping[str, Any], key: str) -> Sequence[Any] | None:
    """An array value as a plain sequence, None when absent."""
    value = metadata.get(key)
    if value is None:
        return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise TokenizerError(f"{key} must be an array, not {type(value).__name__}")
    return value


def gguf_id(metadata: Mapping[str, Any], key: str, size: int) -> int | None:
    """A token id stored under `key`, None when absent or written as "none"."""
    value = metadata.get(key)
    if value is None or value in (NO_ID, -1):
        return None
    return check_id(value, size, key)


def gguf_flag(metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    """A boolean stored under `key`."""
    value = metadata.get(key, default)
    if not isinstance(value, (bool, int)):
        raise TokenizerError(f"{key} must be true or false, not {value!r:.60}")
    return bool(value)


def vocabulary_from_gguf(
    metadata: Mapping[str, Any], *, default_bos: int | None, default_eos: int | None, add_bos: bool
) -> Vocabulary:
    """Read `tokenizer.ggml.*`. Defaults are what the tokenizer model means by silence."""
    prefix = "tokenizer.ggml."
    raw = gguf_array(metadata, prefix + "tokens")
    if raw is None:
        raise TokenizerError(
            "the file has no tokenizer.ggml.tokens", hint="use a file with a vocabulary"
        )
    texts = check_texts(raw, where=prefix + "tokens")
    size = len(texts)
    types = gguf_array(metadata, prefix + "token_type")
    kinds = check_kinds(types, size, where=prefix + "token_type")
    raw_scores = gguf_array(metadata, prefix + "scores")
    scores = None
    if raw_scores is not None:
        scores = check_scores(raw_scores, size, where=prefix + "scores")

    def special(name: str, default: int | None = None) -> int | None:
        key = f"{prefix}{name}_token_id"
        if key in metadata:
            return gguf_id(metadata, key, size)
        return default if default is not None and default < size else None

    bos = special("bos", default_bos)
    eos = special("eos", default_eos)
    unk = special("unknown")
    if unk is None and TokenKind.UNKNOWN in kinds:
        unk = kinds.index(TokenKind.UNKNOWN)
    want_bos = gguf_flag(metadata, prefix + "add_bos_token", add_bos)
    want_eos = gguf_flag(metadata, prefix + "add_eos_token", False)
    if want_bos and bos is None and prefix + "add_bos_token" in metadata:
        raise TokenizerError(f"{prefix}add_bos_token is set but the file names no bos token")
    if want_eos and eos is None:
        raise TokenizerError(f"{prefix}add_eos_token is set but the file names no eos token")
    named = (eos, special("eot"), special("eom"))
    return Vocabulary(
        texts=texts,
        kinds=kinds,
        scores=scores,
        bos_id=bos,
        eos_id=eos,
        unk_id=unk,
        pad_id=special("padding"),
        eos_ids=end_ids(texts, kinds, [i for i in named if i is not None]),
        add_bos=want_bos and bos is not None,
        add_eos=want_eos,
    )


def end_ids(texts: Sequence[str], kinds: bytes, named: Sequence[int]) -> tuple[int, ...]:
    """The named end ids, then special tokens that end a turn by their well-known text."""
    extra = [
        i
        for i, text in enumerate(texts)
        if text in END_OF_TURN_TEXTS and kinds[i] in (TokenKind.CONTROL, TokenKind.USER_DEFINED)
    ]
    found = {texts[i] for i in extra}
    if "<|return|>" in found and "<|call|>" in found:
        # The channel format closes every message with <|end|> and goes on; only these two stop.
        extra = [i for i in extra if texts[i] != "<|end|>"]
    return tuple(dict.fromkeys((*named, *extra)))
