# SPDX-License-Identifier: Apache-2.0
"""A vocabulary for models with random weights: byte-level BPE whose tokens are known by sight.

Every two-letter word of `LETTERS` with a space before it is one token, so that `words` writes a
text of as many tokens as are asked for, for every engine that reads the file.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

LETTERS = "abcdefghijklmnop"
PAIRS = ["".join(pair) for pair in itertools.product(LETTERS, repeat=2)]
SPACE = "Ġ"  # how byte-level BPE spells a space
CONTROL_TOKENS = 256
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def words(count: int, seed: int | str) -> str:
    """A text of exactly `count` tokens, different for each seed."""
    rng = random.Random(seed)
    return "".join(" " + rng.choice(PAIRS) for _ in range(count))


def metadata(vocab_size: int) -> dict[str, Any]:
    """The tokenizer's keys of a GGUF file."""
    plain = _byte_letters()
    merges: list[tuple[str, str]] = [(pair[0], pair[1]) for pair in PAIRS]
    merges += [(SPACE, pair) for pair in PAIRS]
    longer = itertools.chain(
        itertools.product(PAIRS, repeat=2),
        ((SPACE + first, second) for first, second in itertools.product(PAIRS, repeat=2)),
    )
    room = vocab_size - len(plain) - len(merges) - CONTROL_TOKENS
    if room < 0:
        raise SystemExit(f"a vocabulary of {vocab_size} tokens is too small for words")
    merges += itertools.islice(longer, room)
    tokens = [*plain, *(left + right for left, right in merges)]
    spare = vocab_size - len(tokens)
    tokens += ["<|begin|>", "<|end|>", *(f"<|reserved_{i}|>" for i in range(spare - 2))]
    control = 3
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (vocab_size - spare) + [control] * spare,
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
        "tokenizer.ggml.bos_token_id": vocab_size - spare,
        "tokenizer.ggml.eos_token_id": vocab_size - spare + 1,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _byte_letters() -> list[str]:
    """One printable letter per byte: itself where it prints, else one from 256 on."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = itertools.count(0x100)
    return [chr(byte) if byte in keep else chr(next(others)) for byte in range(256)]
