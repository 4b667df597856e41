# SPDX-License-Identifier: Apache-2.0
"""`tokenizer.json`, run by the `tokenizers` library that defines it.

Knows which parts of the file decide the vocabulary, the spelling of bytes and the tokens put
round a text. Control tokens are switched off in the library and cut out by `Tokenizer`, so that
a caller can allow them in one part of a text and not in another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer

from freehold.chat.bpe import is_library_error, library_encode
from freehold.chat.spm import SPACE, byte_value
from freehold.chat.vocab import MAX_VOCAB, TokenKind
from freehold.errors import TokenizerError, UnsupportedModelError


@dataclass(frozen=True)
class AddedToken:
    """One entry of `added_tokens`."""

    id: int
    text: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


def parse_added_token(entry: Any, token_id: Any, *, where: str) -> AddedToken:
    """An added token out of its JSON object, or TokenizerError."""
    text = entry.get("content") if isinstance(entry, Mapping) else None
    if not isinstance(text, str) or not text or isinstance(token_id, bool):
        raise TokenizerError(f"{where} holds an added token without text")
    if not isinstance(token_id, int) or not 0 <= token_id < MAX_VOCAB:
        raise TokenizerError(f"{where} gives the token {text!r:.60} the id {token_id!r:.40}")
    return AddedToken(
        token_id,
        text,
        special=bool(entry.get("special", False)),
        lstrip=bool(entry.get("lstrip", False)),
        rstrip=bool(entry.get("rstrip", False)),
    )


def _parts(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every typed object inside a component, itself included."""
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            if "type" in item:
                yield item
            stack += item.values()
        elif isinstance(item, list):
            stack += item


def _has(node: Any, kind: str) -> bool:
    return any(part["type"] == kind for part in _parts(node))


def _library(data: Mapping[str, Any] | str) -> Any:
    text = data if isinstance(data, str) else json.dumps(data)
    try:
        return LibraryTokenizer.from_str(text)
    except BaseException as error:
        if is_library_error(error):
            raise TokenizerError(f"tokenizer.json cannot be used: {str(error)[:200]}") from error
        raise


class JsonEncoder:
    """Plain text → ids through the library, and what the file says about its vocabulary."""

    def __init__(self, text: str, data: Mapping[str, Any]) -> None:
        model = data.get("model")
        kind = model.get("type", "BPE") if isinstance(model, Mapping) else None
        if kind != "BPE":
            raise UnsupportedModelError(
                f"tokenizer.json holds a {kind!r:.40} model; freehold runs BPE models"
            )
        assert isinstance(model, Mapping)
        self._library = _library(text)
        self._library.encode_special_tokens = True
        self._library.no_truncation()  # a training-time setting that would cut text silently
        self._library.no_padding()
        self._library.model.dropout = None
        self._lock = threading.Lock()
        self._later_split = self._without_prefix(data)
        self._first_split = self._library.pre_tokenizer
        self.added = self._added(data)
        self.texts, self.kinds = self._vocabulary(model)
        self.spelling, self.strips_leading_space = _decoding(data)
        self.unk_token: str | None = model.get("unk_token")

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a stretch of text; the space prefix may go to the `first` one only."""
        if self._later_split is None:
            return library_encode(self._library, text)
        with self._lock:
            self._library.pre_tokenizer = self._first_split if first else self._later_split
            return library_encode(self._library, text)

    def surroundings(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids the file's post-processor puts before and after a text."""
        plain = library_encode(self._library, "a")
        full = library_encode(self._library, "a", surrounded=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start]), tuple(full[start + len(plain) :])
        return (), ()

    def _without_prefix(self, data: Mapping[str, Any]) -> Any:
        """The splitter with "prefix the first word" turned off; None if it has no such rule."""
        splitter = data.get("pre_tokenizer")
        if not any(part.get("prepend_scheme") == "first" for part in _parts(splitter)):
            return None
        changed = json.loads(json.dumps(splitter))
        for part in _parts(changed):
            if part.get("prepend_scheme") == "first":
                part["prepend_scheme"] = "never"  # type: ignore[index]
        empty = {"type": "BPE", "vocab": {}, "merges": []}
        return _library(
            {"added_tokens": [], "pre_tokenizer": changed, "model": empty}
        ).pre_tokenizer

    def _added(self, data: Mapping[str, Any]) -> list[AddedToken]:
        entries = data.get("added_tokens") or []
        if not isinstance(entries, list):
            raise TokenizerError("tokenizer.json: added_tokens is no list")
        return [
            parse_added_token(e, e.get("id") if isinstance(e, Mapping) else None,
                              where="tokenizer.json")
            for e in entries
        ]  # fmt: skip

    def _vocabulary(self, model: Mapping[str, Any]) -> tuple[list[str], bytearray]:
        vocab: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        if not vocab:
            raise TokenizerError("tokenizer.json has an empty vocabulary")
        size = max(vocab.values()) + 1
        if size > MAX_VOCAB:
            raise TokenizerError(f"tokenizer.json has ids up to {size}, beyond {MAX_VOCAB}")
        texts = [""] * size
        for token, token_id in vocab.items():
            if texts[token_id]:
                raise TokenizerError(f"tokenizer.json gives two tokens the id {token_id}")
            texts[token_id] = token
        kinds = bytearray([TokenKind.NORMAL]) * size
        if model.get("byte_fallback"):
            for i, token in enumerate(texts):
                if len(token) == 6 and byte_value(token) is not None:
                    kinds[i] = TokenKind.BYTE
        for added in self.added:
            token_id = vocab[added.text]  # the library's numbering is the one it encodes with
            if token_id != added.id:
                raise TokenizerError(
                    f"tokenizer.json gives the token {added.text!r:.60} the id {added.id}, "
                    f"but its place in the vocabulary is {token_id}"
                )
            kinds[token_id] = TokenKind.CONTROL if added.special else TokenKind.USER_DEFINED
        unknown = model.get("unk_token")
        if isinstance(unknown, str) and unknown in vocab:
            kinds[vocab[unknown]] = TokenKind.UNKNOWN
        return texts, kinds


def _decoding(data: Mapping[str, Any]) -> tuple[str, bool]:
    """(spelling, whether decoding takes a leading space away)."""
    decoder = data.get("decoder")
    if _has(decoder, "ByteLevel") or _has(data.get("pre_tokenizer"), "ByteLevel"):
        return "bytes", False
    strips = any(
        (part["type"] == "Strip" and part.get("content") == " " and part.get("start", 0) > 0)
        or (
            part["type"] == "Metaspace"
            and part.get("prepend_scheme", "always") != "never"
            and part.get("add_prefix_space", True)
        )
        for part in _parts(decoder)
    )
    spaced = any(
        part["type"] == "Metaspace"
        or (part["type"] == "Replace" and part.get("pattern") == {"String": SPACE})
        for part in _parts(decoder)
    )
    if not spaced:
        raise UnsupportedModelError(
            "tokenizer.json joins tokens in a way freehold does not know; "
            "it reads byte-level and SentencePiece-style decoders"
        )
    return "spm", strips
