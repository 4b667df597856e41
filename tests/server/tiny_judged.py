# SPDX-License-Identifier: Apache-2.0
"""A tiny model that both freehold and transformers open, and what transformers says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tiny_chat
import tiny_models
from budgets import limit

CONTEXT = 512
END = 259  # <|im_end|>


@dataclass
class Judged:
    """The files, and the model in transformers' hands."""

    path: Path
    model: Any
    tolerance: float  # of a log-probability: what two logits may be off by

    def logprobs(self, ids: list[int]) -> np.ndarray:
        """log softmax after every token: float64 [len(ids), vocab]."""
        logits = tiny_models.reference_logits(self.model, ids).astype(np.float64)
        top = logits.max(axis=1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))

    def continuation(self, prompt: list[int], ids: list[int]) -> np.ndarray:
        """Log-likelihood of each of `ids` behind the prompt: float64 [len(ids)]."""
        rows = self.logprobs([*prompt, *ids])[len(prompt) - 1 : -1]
        return rows[np.arange(len(ids)), ids]


def write(directory: Path) -> Judged:
    """A Llama of random weights with a tokenizer of bytes, in `directory`."""
    model = tiny_models.build(
        tiny_models.CASES["llama-gqa"], seed=7, vocab_size=260, max_position_embeddings=CONTEXT,
        bos_token_id=257, eos_token_id=END, pad_token_id=257,
    )  # fmt: skip
    model.save_pretrained(directory)
    tiny_chat.write_hf_tokenizer(directory)
    largest = np.abs(tiny_models.reference_logits(model, tiny_models.prompt())).max()
    return Judged(directory, model, 2 * limit("cpu", "logits", "F32") * float(largest))
