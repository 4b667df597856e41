# SPDX-License-Identifier: Apache-2.0
"""Write a GGUF file with the shapes and quantisation of a real model and random weights.

Its text is noise and its speed is real. It has no tokenizer, so feed it token ids, unless `--words`
gives it one (`random_vocabulary.py`).

    python make_model.py --shape llama-1b --mix Q4_K_M --out llama-1b-Q4_K_M.gguf
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import random_vocabulary
from common import progress
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor, StoredTensor
from freehold.quants import mixes
from random_tensors import RandomTensor


@dataclass(frozen=True, slots=True)
class Sizes:
    """Dimensions of a Llama-shaped decoder."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool


SHAPES = {
    "llama-1b": Sizes(16, 2048, 8192, 32, 8, 64, 128256, True),  # Llama 3.2 1B
    "llama-3b": Sizes(28, 3072, 8192, 24, 8, 128, 128256, True),  # Llama 3.2 3B
    "llama-8b": Sizes(32, 4096, 14336, 32, 8, 128, 128256, False),  # Llama 3.1 8B
    "nano": Sizes(2, 256, 512, 4, 2, 64, 1024, True),  # to try a script
}


def metadata(name: str, sizes: Sizes, mix: mixes.Mix) -> dict[str, Any]:
    return {
        "general.architecture": "llama",
        "general.name": f"random {name}",
        "general.file_type": mix.file_type,
        "general.quantization_version": 2,
        "llama.block_count": sizes.layers,
        "llama.context_length": 131072,
        "llama.embedding_length": sizes.hidden,
        "llama.feed_forward_length": sizes.ffn,
        "llama.attention.head_count": sizes.heads,
        "llama.attention.head_count_kv": sizes.kv_heads,
        "llama.attention.key_length": sizes.head_dim,
        "llama.attention.value_length": sizes.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": sizes.head_dim,
        "llama.rope.freq_base": 500000.0,
        "llama.vocab_size": sizes.vocab,
        "tokenizer.ggml.model": "no_vocab",
    }


def tensors(sizes: Sizes, mix: mixes.Mix) -> Iterator[StoredTensor]:
    """All tensors in file order, types as the mix chooses them."""
    model = mixes.ModelShape(
        "llama", sizes.layers, sizes.heads, sizes.kv_heads, tied_embeddings=sizes.tied
    )
    seed = 0

    def matrix(name: str, rows: int, columns: int) -> StoredTensor:
        nonlocal seed
        seed += 1
        return RandomTensor(name, mixes.choose(mix, name, (rows, columns), model),
                            (rows, columns), seed)  # fmt: skip

    def ones(name: str) -> StoredTensor:
        return LazyTensor(
            name, (sizes.hidden,), "F32", lambda: np.ones(sizes.hidden, np.float32).view(np.uint8)
        )

    attention, kv = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    yield matrix("token_embd.weight", sizes.vocab, sizes.hidden)
    yield ones("output_norm.weight")
    if not sizes.tied:
        yield matrix("output.weight", sizes.vocab, sizes.hidden)
    for i in range(sizes.layers):
        layer = f"blk.{i}."
        yield ones(layer + "attn_norm.weight")
        yield matrix(layer + "attn_q.weight", attention, sizes.hidden)
        yield matrix(layer + "attn_k.weight", kv, sizes.hidden)
        yield matrix(layer + "attn_v.weight", kv, sizes.hidden)
        yield matrix(layer + "attn_output.weight", sizes.hidden, attention)
        yield ones(layer + "ffn_norm.weight")
        yield matrix(layer + "ffn_gate.weight", sizes.ffn, sizes.hidden)
        yield matrix(layer + "ffn_up.weight", sizes.ffn, sizes.hidden)
        yield matrix(layer + "ffn_down.weight", sizes.hidden, sizes.ffn)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", required=True, choices=SHAPES)
    parser.add_argument("--mix", required=True, help=", ".join(mixes.names()))
    parser.add_argument("--words", action="store_true", help="with a vocabulary and a template")
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    sizes, mix, out = SHAPES[args.shape], mixes.get(args.mix), Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    keys = metadata(args.shape, sizes, mix)
    if args.words:
        keys |= random_vocabulary.metadata(sizes.vocab)
    write_gguf(out, keys, tensors(sizes, mix))
    progress(f"wrote {out}: {out.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
