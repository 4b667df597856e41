# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE (and its raw UTF-8 cousin) on the `tokenizers` library.

Knows how to hand a vocabulary and merges to the library and to keep user-defined tokens whole.
Control tokens are cut out by the caller and cannot be produced from text here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, normalizers

from freehold.chat.beginnings import Beginnings
from freehold.chat.matcher import LiteralMatcher
from freehold.chat.pretokenizers import PreSplitter
from freehold.chat.vocab import MAX_VOCAB, TokenKind, Vocabulary
from freehold.errors import TokenizerError

MAX_MERGES = 4 * MAX_VOCAB
# What a template prints between messages, over and over: a call of the library costs more than
# such a text.
_SHORT, _KEPT = 16, 1024  # characters, texts
# Behind a letter and before these every byte-level splitter cuts, whatever else the text holds.
_WORD_END = re.compile("(?<=[A-Za-z])[ ,.!?]")


def _byte_characters() -> list[str]:
    """The printable character each byte is written as (the GPT-2 convention).

    Printable Latin-1 stands for itself; the other bytes take U+0100 onwards in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


BYTE_CHARACTERS = _byte_characters()
_TO_LATIN1 = {ord(c): b for b, c in enumerate(BYTE_CHARACTERS)}
# Bytes that occur in no UTF-8 text, so a vocabulary may lack them.
_NEVER_IN_UTF8 = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


def bytes_of(text: str) -> bytes | None:
    """What a byte-level token spells, None if a character in it stands for no byte."""
    if any(ord(c) not in _TO_LATIN1 for c in text):
        return None
    return text.translate(_TO_LATIN1).encode("latin-1")


def parse_merges(raw: Sequence[Any], *, where: str) -> list[tuple[str, str]]:
    """Merge lines "left right" (or pairs) as pairs."""
    if len(raw) > MAX_MERGES:
        raise TokenizerError(f"{where} has {len(raw)} entries, more than {MAX_MERGES}")
    if all(type(entry) is str for entry in raw):
        # Hundreds of thousands of lines: the ordinary shape first, in one go.
        pairs: list[Any] = [tuple(entry.split(" ")) for entry in raw]
        if set(map(len, pairs)) <= {2} and all(map(all, pairs)):
            return pairs
    merges: list[tuple[str, str]] = []
    for i, entry in enumerate(raw):
        if isinstance(entry, str):
            cut = entry.find(" ", 1)  # a raw-UTF-8 vocabulary may merge a leading space
            pair = (entry[:cut], entry[cut + 1 :]) if cut > 0 else ("", "")
        elif isinstance(entry, Sequence) and len(entry) == 2:
            pair = (entry[0], entry[1])
        else:
            pair = ("", "")
        if not pair[0] or not pair[1]:
            raise TokenizerError(f"{where} entry {i} is no pair of tokens: {entry!r:.80}")
        merges.append(pair)
    return merges


def library_encode(library: LibraryTokenizer, text: str, *, surrounded: bool = False) -> list[int]:
    """The library's ids, with or without tokens put round them; failures are TokenizerError."""
    try:
        ids: list[int] = library.encode(text, add_special_tokens=surrounded).ids
    except BaseException as error:
        if is_library_error(error):
            raise TokenizerError(f"the text cannot be tokenised: {str(error)[:200]}") from None
        raise
    return ids


def is_library_error(error: BaseException) -> bool:
    """Whether this is an error of the library's own: a Rust panic is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class BpeEncoder:
    """Text without control tokens → ids."""

    def __init__(
        self, vocab: Vocabulary, merges: list[tuple[str, str]], splitter: PreSplitter
    ) -> None:
        self._library = LibraryTokenizer(_model(vocab, merges, splitter))
        self._library.pre_tokenizer = splitter.build()
        if not splitter.byte_level:
            self._library.normalizer = normalizers.Replace(" ", "▁")
        elif splitter.nfc:
            self._library.normalizer = normalizers.NFC()
        self._short: dict[str, list[int]] = {}
        self._split = self._merged
        if splitter.byte_level:
            self._split = Beginnings(self._merged, _WORD_END).encode
        user_defined = {vocab.texts[i]: i for i in vocab.ids_of(TokenKind.USER_DEFINED)}
        user_defined.pop("", None)
        self._user_ids = user_defined
        self._user_defined = LiteralMatcher(user_defined)
        self._absent = frozenset[int]()
        if splitter.byte_level and vocab.unk_id is None:
            known = set(vocab.texts)
            self._absent = frozenset(
                b
                for b, char in enumerate(BYTE_CHARACTERS)
                if char not in known and b not in _NEVER_IN_UTF8
            )

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a stretch of text."""
        del first  # position changes nothing in this family
        if self._absent and not self._absent.isdisjoint(text.encode()):
            bad = min(self._absent & set(text.encode()))
            raise TokenizerError(f"the vocabulary has no token for the byte 0x{bad:02x}")
        ids: list[int] = []
        position = 0
        for start, end in self._user_defined.finditer(text):
            if start > position:
                ids += self._split(text[position:start])
            ids.append(self._user_ids[text[start:end]])
            position = end
        if position < len(text):
            ids += self._split(text[position:])
        return ids

    def _merged(self, text: str) -> list[int]:
        if len(text) > _SHORT:
            return library_encode(self._library, text)
        found = self._short.get(text)
        if found is None:
            found = library_encode(self._library, text)
            if len(self._short) < _KEPT:
                self._short[text] = found
        return found.copy()


def _model(vocab: Vocabulary, merges: list[tuple[str, str]], splitter: PreSplitter) -> models.BPE:
    """The library's model. Control tokens stay out, so that no text can spell one."""
    hidden = {TokenKind.CONTROL, TokenKind.UNKNOWN}
    tokens = {
        text: i
        for i, (text, kind) in enumerate(zip(vocab.texts, vocab.kinds, strict=True))
        if text and kind not in hidden
    }
    options: dict[str, Any] = {"ignore_merges": splitter.ignore_merges}
    if vocab.unk_id is not None:
        unknown = vocab.texts[vocab.unk_id]
        tokens[unknown] = vocab.unk_id
        options["unk_token"] = unknown
    if not splitter.byte_level:
        options.update(byte_fallback=True, fuse_unk=True)
    try:
        return models.BPE(tokens, merges, **options)
    except Exception as error:
        for left, right in merges:
            missing = next((t for t in (left, right, left + right) if t not in tokens), None)
            if missing is not None:
                raise TokenizerError(
                    f"the merge of {left!r:.40} and {right!r:.40} needs the token "
                    f"{missing!r:.60}, which the vocabulary does not have as text"
                ) from None
        raise TokenizerError(f"the vocabulary and its merges do not fit: {error}") from error
