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
        return log_softmax(tiny_models.reference_logits(self.model, ids))

    def logprobs_of_many(self, sequences: list[list[int]]) -> list[np.ndarray]:
        """The same of several at once. What pads them stands behind them, where none looks."""
        import torch

        longest = max(map(len, sequences))
        padded = [[*ids, *[0] * (longest - len(ids))] for ids in sequences]
        with torch.no_grad():
            logits = self.model(torch.tensor(padded)).logits.numpy()
        return [log_softmax(rows[: len(ids)]) for rows, ids in zip(logits, sequences, strict=True)]

    def continuation(self, prompt: list[int], ids: list[int]) -> np.ndarray:
        """Log-likelihood of each of `ids` behind the prompt: float64 [len(ids)]."""
        rows = self.logprobs([*prompt, *ids])[len(prompt) - 1 : -1]
        return rows[np.arange(len(ids)), ids]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row by row: float64 [rows, vocab]."""
    logits = logits.astype(np.float64)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


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
