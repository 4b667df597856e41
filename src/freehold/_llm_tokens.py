# SPDX-License-Identifier: Apache-2.0
"""What one model's callers give as prompts, as token ids, and ids as what they stand for.

Knows a tokenizer, which may be absent, and the rows of the model. Knows nothing of conversations
and computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold._llm_inputs import common_prefix, is_single
from freehold.chat.tokenizer import Tokenizer
from freehold.engine.measuring import Measurement, Pooling
from freehold.errors import InvalidParameterError, TokenizerError
from freehold.types import Prompt


class Tokens:
    """The tokens of the model at `path`, which has `vocab_size` rows for them."""

    def __init__(self, path: str, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self._path = path
        self.known = tokenizer  # or None, where only ids are spoken
        self.vocab_size = vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError when the model came without one."""
        if self.known is None:
            raise TokenizerError(
                f"{self._path}: the model has no tokenizer",
                hint="pass token ids instead of text, or use a file with a vocabulary",
            )
        return self.known

    def ids(self, prompt: Prompt) -> list[int]:
        """Text gets the begin token the tokenizer asks for; ids are checked."""
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        ids = [int(token) for token in prompt]
        if any(not 0 <= token < self.vocab_size for token in ids):
            bad = next(token for token in ids if not 0 <= token < self.vocab_size)
            raise InvalidParameterError(
                f"token id {bad} lies outside the vocabulary of {self.vocab_size}"
            )
        return ids

    def to_score(self, prompt: Prompt, continuation: Prompt | None) -> tuple[list[int], int]:
        """All ids, and the first of them that is to be scored; see `LLM.score`."""
        ids = self.ids(prompt)
        first = 1
        if continuation is not None:
            if isinstance(prompt, str) and isinstance(continuation, str):
                joined = self.ids(prompt + continuation)
                first = common_prefix(ids, joined)
                ids = joined
            else:
                first = len(ids)
                ids = ids + self._continuation(continuation)
        if first < 1 or first >= len(ids):
            raise InvalidParameterError("there is no token to score after the first")
        return ids, first

    def to_pool(self, texts: Prompt | Sequence[Prompt], pooling: Pooling) -> list[Measurement]:
        """What makes each of the texts one vector."""
        if pooling not in ("mean", "last"):
            raise InvalidParameterError(f"pooling must be mean or last, not {pooling!r}")
        prompts: list[Any] = [texts] if is_single(texts) else list(texts)
        return [Measurement(self.ids(prompt), pooling) for prompt in prompts]

    def _continuation(self, text: Prompt) -> list[int]:
        if isinstance(text, str):
            return self.tokenizer.encode(text, add_special=False)
        return self.ids(text)

    def endings(self) -> tuple[int, ...]:
        """Tokens that end an answer. Raises InvalidParameterError where the files name none."""
        found = tuple(sorted(t for t in self.tokenizer.eos_ids if 0 <= t < self.vocab_size))
        if not found:
            raise InvalidParameterError("the model's files name no token that ends an answer")
        return found

    def text(self, token_id: int) -> str:
        """What a token looks like in print: its text, or ``<id>`` without a tokenizer."""
        if self.known is None or token_id >= self.known.vocab_size:
            return f"<{token_id}>"
        return self.known.piece(token_id, skip_special=False).decode("utf-8", "replace")

    def bytes_of(self, token_id: int) -> bytes:
        """Bytes of a token; rows of the embedding beyond the vocabulary stand for none."""
        tokenizer = self.tokenizer
        return tokenizer.token_bytes(token_id) if token_id < tokenizer.vocab_size else b""
