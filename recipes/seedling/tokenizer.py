# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE over the training split, cut into pieces the way GGUF calls `qwen2`.

Digits stand alone, so that numbers are copied digit by digit. Knows the three special tokens and
the chat format; knows no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from freehold.chat.pretokenizers import pre_splitter
from recipes.seedling.example import Example
from recipes.seedling.settings import SPECIAL_TOKENS, TURN_END, TURN_START

SPLITTER = "qwen2"


def text_of(example: Example) -> list[str]:
    """What the tokenizer learns from an example."""
    return [*(message["content"] for message in example.messages), example.answer]


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A tokenizer of exactly `vocab` tokens, specials last."""
    splitter = pre_splitter(SPLITTER)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if splitter.nfc else None
    tokenizer.pre_tokenizer = splitter.build()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(specials)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write `tokenizer.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


def load_tokenizer(path: Path) -> Tokenizer:
    """Read what `save_tokenizer` wrote."""
    return Tokenizer.from_file(str(path))


def chat_prompt(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation up to the opening of the answer."""
    turns = "".join(f"{TURN_START}{m['role']}\n{m['content']}{TURN_END}\n" for m in messages)
    return f"{turns}{TURN_START}assistant\n"


def encode_examples(
    tokenizer: Tokenizer, examples: Sequence[Example]
) -> list[tuple[list[int], int]]:
    """Ids of each conversation with its answer and end, and how many of them are asked."""
    prompts = [chat_prompt(example.messages) for example in examples]
    answers = [example.answer + TURN_END for example in examples]
    asked = tokenizer.encode_batch_fast(prompts, add_special_tokens=False)
    answered = tokenizer.encode_batch_fast(answers, add_special_tokens=False)
    return [(a.ids + b.ids, len(a.ids)) for a, b in zip(asked, answered, strict=True)]
