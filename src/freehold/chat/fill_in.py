# SPDX-License-Identifier: Apache-2.0
"""Filling in: the marks with which models are asked for what stands between two texts.

Knows which control tokens mark what comes before and after, and in which order they go. A model
whose vocabulary has no such marks was not taught to fill in, and nothing here pretends otherwise.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from freehold.chat.tokenizer import Tokenizer
from freehold.chat.vocab import TokenKind

# Marks by what follows them: the text before, the text after, the answer.
_MARKS = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
_GGUF_MARKS = tuple(f"tokenizer.ggml.fim_{name}_token_id" for name in ("pre", "suf", "mid"))
# A model that has filled in goes on with the next file, or with padding: the answer ends there.
_GGUF_ENDS = tuple(f"tokenizer.ggml.fim_{name}_token_id" for name in ("pad", "rep", "sep"))
_ENDS = (
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>", "<fim_pad>", "<fim-pad>",
    "<file_sep>", "<repo_name>", "<reponame>", "<filename>", "▁<EOT>",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FillIn:
    """A model's marks, as token ids. `ends` are tokens that end an answer besides the model's."""

    before: int
    after: int
    middle: int
    ends: tuple[int, ...]

    def ids(self, tokenizer: Tokenizer, before: str, after: str) -> list[int]:
        """The prompt whose continuation stands between the two texts, begin token included."""

        def plain(text: str) -> list[int]:
            exact = tokenizer.encode_exactly(text)
            return tokenizer.encode(text, add_special=False) if exact is None else exact

        begin = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        return [*begin, self.before, *plain(before), self.after, *plain(after), self.middle]


def load_fill_in(metadata: Mapping[str, Any], tokenizer: Tokenizer) -> FillIn | None:
    """The marks a model has: those its GGUF file names, else those its vocabulary holds."""
    vocab = tokenizer.vocabulary
    kinds = (TokenKind.CONTROL, TokenKind.USER_DEFINED)
    by_text = {vocab.texts[i]: i for i in vocab.ids_of(*kinds)}

    def named(key: str) -> int | None:
        value = metadata.get(key)
        if not isinstance(value, numbers.Integral) or not 0 <= int(value) < tokenizer.vocab_size:
            return None
        return int(value)

    marks = [found for key in _GGUF_MARKS if (found := named(key)) is not None]
    if len(marks) < len(_GGUF_MARKS):
        written = next((m for m in _MARKS if all(text in by_text for text in m)), None)
        if written is None:
            return None
        marks = [by_text[text] for text in written]
    ends = {found for key in _GGUF_ENDS if (found := named(key)) is not None}
    ends |= {by_text[text] for text in _ENDS if text in by_text}
    before, after, middle = marks
    return FillIn(before, after, middle, tuple(sorted({*ends, *marks})))
