# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities as OpenAI's plain completions tell them: parallel lists over tokens.

Knows where in the text each token begins. Chat's form is `format.logprob_content`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.chat.detokenizer import Detokenizer
from freehold.llm import LLM
from freehold.types import TokenLogprob

_LEAST = -9999.0  # what stands for the logarithm of nothing, which JSON cannot say


class TextLogprobs:
    """The lists of one answer, made piece by piece as its tokens come.

    Offsets count characters from the beginning of the prompt, whether or not it is repeated. A
    token that goes on inside a character has that character's offset; control tokens take no room.
    """

    def __init__(self, llm: LLM, prompt: Sequence[int], text: str | None, num_top: int) -> None:
        """`text` is the prompt as it was given, None where it was given as ids."""
        self._llm = llm
        self._prompt = prompt
        self._num_top = num_top
        self._position = 0
        self._detokenizer = Detokenizer(llm.tokenizer)
        offsets = [self._advance(token) for token in prompt]
        self.prompt_text = llm.tokenizer.decode(prompt, skip_special=True) if text is None else text
        # What a tokenizer does not keep, white space say, is in the text all the same.
        self._prompt_offsets = [min(at, len(self.prompt_text)) for at in offsets]
        self._position = len(self.prompt_text)
        self._detokenizer = Detokenizer(llm.tokenizer, continues=True)

    def prompt(self, entries: Sequence[TokenLogprob | None]) -> dict[str, Any]:
        """Of the prompt's tokens; nothing comes before the first, so it has no probability."""
        return self._lists(self._prompt, entries, self._prompt_offsets)

    def answer(self, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Of the answer's next tokens."""
        ids = [entry.token_id for entry in entries]
        return self._lists(ids, entries, [self._advance(token) for token in ids])

    def _lists(
        self, ids: Sequence[int], entries: Sequence[TokenLogprob | None], offsets: list[int]
    ) -> dict[str, Any]:
        return {
            "tokens": [self._text(token) for token in ids],
            "token_logprobs": [None if e is None else max(e.logprob, _LEAST) for e in entries],
            "top_logprobs": [self._top(e) for e in entries] if self._num_top else None,
            "text_offset": offsets,
        }

    def _top(self, entry: TokenLogprob | None) -> dict[str, float] | None:
        """The likeliest and the one that came, which may be one more."""
        if entry is None:
            return None
        best: dict[str, float] = {}
        for token, logprob in (*entry.top, (entry.token_id, entry.logprob)):
            best.setdefault(self._text(token), max(logprob, _LEAST))
        return best

    def _text(self, token: int) -> str:
        """A token's text, or ``bytes:\\xNN…`` where it is no whole character."""
        tokenizer = self._llm.tokenizer
        if token >= tokenizer.vocab_size:
            return ""
        piece = tokenizer.piece(token, skip_special=False)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

    def _advance(self, token: int) -> int:
        """Where a token begins; the text then goes on behind it."""
        tokenizer = self._llm.tokenizer
        at = self._position
        if token < tokenizer.vocab_size:
            pending, piece = self._detokenizer.pending, tokenizer.token_bytes(token)
            if pending and piece and not 0x80 <= piece[0] < 0xC0:
                at += 1  # behind the mark for a character that never became whole
            self._position += len(self._detokenizer.push(token))
        return at


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pieces of the same answer as one."""
    first, *rest = parts
    result = {key: value if value is None else list(value) for key, value in first.items()}
    for part in rest:
        for key, value in part.items():
            if value is not None:
                result[key] += value
    return result
