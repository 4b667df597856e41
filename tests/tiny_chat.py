# SPDX-License-Identifier: Apache-2.0
"""A chat model of a few thousand random weights: it loads, it answers, and it says nothing.

Its tokenizer has one token for each byte and one merge, so that any text goes in and out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, FFN, HEADS, KV_HEADS, LAYERS = 32, 64, 2, 1, 1


def byte_tokens() -> list[str]:
    """Bytes in the letters that byte-level vocabularies write them with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def write(
    path: Path, *, template: str | None = TEMPLATE, context: int = 2048,
    marks: Mapping[str, int] | None = None, numbers: Mapping[str, int] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """A GGUF file with random weights, byte tokens and ChatML; `marks` are more token ids by the
    names GGUF has for them, "fim_pre" say; `numbers` and `texts` are more keys."""
    rng = np.random.default_rng(5)
    tokens = [*byte_tokens(), "th", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(context)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL] * 3)
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(len(tokens) - 1)
    for name, token in (marks or {}).items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    for name, number in (numbers or {}).items():
        writer.add_uint32(name, number)
    for name, text in (texts or {}).items():
        writer.add_string(name, text)
    if template is not None:
        writer.add_chat_template(template)

    def tensor(name: str, *shape: int) -> None:
        spread = 1.0 if len(shape) == 1 else shape[-1] ** -0.5
        writer.add_tensor(name, (rng.standard_normal(shape) * spread).astype(np.float32))

    kv = KV_HEADS * HIDDEN // HEADS
    tensor("token_embd.weight", len(tokens), HIDDEN)
    tensor("output_norm.weight", HIDDEN)
    tensor("output.weight", len(tokens), HIDDEN)
    for layer in range(LAYERS):
        prefix = f"blk.{layer}."
        tensor(prefix + "attn_norm.weight", HIDDEN)
        tensor(prefix + "ffn_norm.weight", HIDDEN)
        tensor(prefix + "attn_q.weight", HIDDEN, HIDDEN)
        tensor(prefix + "attn_k.weight", kv, HIDDEN)
        tensor(prefix + "attn_v.weight", kv, HIDDEN)
        tensor(prefix + "attn_output.weight", HIDDEN, HIDDEN)
        tensor(prefix + "ffn_gate.weight", FFN, HIDDEN)
        tensor(prefix + "ffn_up.weight", FFN, HIDDEN)
        tensor(prefix + "ffn_down.weight", HIDDEN, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_hf_tokenizer(directory: Path, template: str | None = TEMPLATE) -> int:
    """The same tokenizer as Hugging Face files beside a model; returns the size of its
    vocabulary."""
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: i for i, token in enumerate([*byte_tokens(), "th", *names])}
    special = [
        {"id": vocabulary[name], "content": name, "special": True, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for name in names
    ]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    data = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": True},
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["t", "h"]]},
    }
    (directory / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    settings = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if template is not None:
        settings["chat_template"] = template
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(vocabulary)
