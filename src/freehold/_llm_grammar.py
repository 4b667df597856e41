# SPDX-License-Identifier: Apache-2.0
"""Where a tokenizer and the engine's grammars meet: one table of tokens, and what was compiled.

Knows which bytes the engine has to hear of each token. What an answer must look like is said by
`chat/answer_grammar.py`, and what that allows next by `engine/structured.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from freehold.chat.deep_stack import on_deep_stack
from freehold.chat.json_schema import schema_reason
from freehold.chat.tokenizer import Tokenizer
from freehold.engine.structured import Grammar, TokenVocabulary
from freehold.errors import ConstraintError

# Compiled grammars that are kept, by the length of their text: requests of one job share theirs. A
# grammar takes up to 300 times its text.
_KEPT_CHARACTERS = 1 << 20
_LONGEST = 128  # bytes of a token tried when text is spelled by hand


class GrammarCompiler:
    """Grammars over one model's tokens. May be shared between threads."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """`vocab_size`: rows of the model, which may be more or fewer than the tokenizer's."""
        self._tokenizer = tokenizer
        self._size = vocab_size
        self._vocabulary: TokenVocabulary | None = None
        self._by_bytes: dict[bytes, int] = {}
        self._known: OrderedDict[str, Grammar] = OrderedDict()
        self._kept = 0  # characters of their texts
        self._lock = threading.Lock()

    def compile(self, text: str) -> Grammar:
        """The grammar of llguidance's text for it; ConstraintError where it cannot be had."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = self._read_tokens()
            vocabulary, grammar = self._vocabulary, self._known.get(text)
        if grammar is None:  # outside the lock: a hard one delays nobody else's
            try:
                grammar = on_deep_stack(lambda: vocabulary.compile(text))
            except ConstraintError as error:
                raise ConstraintError(schema_reason(error.message)) from None
        with self._lock:
            if text not in self._known:
                self._kept += len(text)
            self._known[text] = grammar
            self._known.move_to_end(text)
            while self._kept > _KEPT_CHARACTERS and len(self._known) > 1:
                self._kept -= len(self._known.popitem(last=False)[0])
        return grammar

    def _read_tokens(self) -> TokenVocabulary:
        tokenizer, size = self._tokenizer, min(self._size, self._tokenizer.vocab_size)
        pieces = [tokenizer.piece(i, skip_special=False) for i in range(size)]
        special = {i for i in tokenizer.special_ids() if i < size}
        for i in range(size - 1, -1, -1):  # of two tokens that spell the same, the first
            if i not in special and pieces[i]:
                self._by_bytes[pieces[i]] = i
        pieces += [b""] * (self._size - size)
        ends = [i for i in tokenizer.eos_ids if i < size]
        return TokenVocabulary(pieces, special, ends, self._encode)

    def _encode(self, text: bytes) -> list[int]:
        try:
            ids = self._tokenizer.encode_exactly(text.decode())
        except UnicodeDecodeError:
            ids = None
        if ids is None or any(token >= self._size for token in ids):
            return self._spell(text)
        return ids

    def _spell(self, text: bytes) -> list[int]:
        """The longest token that fits, again and again."""
        ids: list[int] = []
        at = 0
        while at < len(text):
            for size in range(min(_LONGEST, len(text) - at), 0, -1):
                token = self._by_bytes.get(text[at : at + size])
                if token is not None:
                    ids.append(token)
                    at += size
                    break
            else:
                break  # not even a byte: what was spelled is still right
        return ids
