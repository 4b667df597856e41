# SPDX-License-Identifier: Apache-2.0
"""Models of many families with real shapes and random weights, written as GGUF files.

A model is described by its vendor's config.json, smaller than the real one where that would be
large; its text is noise, its memory and speed are real. `plan_memory.py` and `plan_speed.py` load
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import random_vocabulary
from freehold.convert.huggingface import size_keys
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor, StoredTensor
from freehold.models.base import ModelConfig
from freehold.models.blocks import expected_of
from freehold.models.config import family_of, read_config
from freehold.planner.sizes import as_checkpoint
from freehold.quants import mixes
from random_tensors import RandomTensor


def _llama(layers: int, hidden: int, ffn: int, heads: int, kv: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": ffn, "num_attention_heads": heads, "num_key_value_heads": kv,
        "vocab_size": vocab, "max_position_embeddings": 131072, "tie_word_embeddings": True,
        "rope_theta": 500000.0,
    }  # fmt: skip


# Llama 3.2 1B, Qwen2.5 0.5B, Qwen3 0.6B, Gemma 3 270M and 1B, SmolLM2 135M; then one of each other
# kind of cache and feed-forward with fewer layers or experts than its vendor's.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": _llama(16, 2048, 8192, 32, 8, 128256),
    "smollm-135m": _llama(30, 576, 1536, 9, 3, 49152),
    "qwen2-0.5b": {**_llama(24, 896, 4864, 14, 2, 151936), "model_type": "qwen2"},
    "qwen3-0.6b": {**_llama(28, 1024, 3072, 16, 8, 151936), "model_type": "qwen3", "head_dim": 128},
    "gemma3-270m": {
        "model_type": "gemma3_text", "hidden_size": 640, "num_hidden_layers": 18,
        "intermediate_size": 2048, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768,
        "sliding_window": 512, "query_pre_attn_scalar": 256, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
    },
    "gemma3-1b": {
        "model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26,
        "intermediate_size": 6912, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768,
        "sliding_window": 512, "query_pre_attn_scalar": 256, "rope_theta": 1e6,
        "rope_local_base_freq": 1e4, "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": ((["sliding_attention"] * 5 + ["full_attention"]) * 5)[:26],
    },
    "mixtral-small": {
        **_llama(12, 1024, 3584, 16, 4, 32000), "model_type": "mixtral",
        "num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": False,
    },
    "qwen3moe-small": {
        **_llama(12, 1024, 3072, 16, 4, 151936), "model_type": "qwen3_moe", "head_dim": 128,
        "num_experts": 32, "num_experts_per_tok": 4, "moe_intermediate_size": 768,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
    "deepseek-small": {
        "model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 6,
        "intermediate_size": 10944, "num_attention_heads": 16, "num_key_value_heads": 16,
        "vocab_size": 102400, "max_position_embeddings": 32768, "tie_word_embeddings": False,
        "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 16,
        "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "n_shared_experts": 2,
        "first_k_dense_replace": 1, "routed_scaling_factor": 1.0, "topk_method": "greedy",
        "norm_topk_prob": False, "scoring_func": "softmax", "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6, "hidden_act": "silu",
    },
    "llama4-small": {
        "model_type": "llama4_text", "hidden_size": 1024, "num_hidden_layers": 8,
        "intermediate_size": 1024, "intermediate_size_mlp": 4096, "num_attention_heads": 16,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 202048,
        "max_position_embeddings": 65536, "attention_chunk_size": 2048, "num_local_experts": 8,
        "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "use_qk_norm": True,
        "tie_word_embeddings": False, "rope_theta": 500000.0, "hidden_act": "silu",
        "attn_temperature_tuning": True, "floor_scale": 8192, "attn_scale": 0.1,
    },
    "gpt-oss-small": {
        "model_type": "gpt_oss", "hidden_size": 1024, "num_hidden_layers": 10,
        "intermediate_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4,
        "head_dim": 64, "vocab_size": 201088, "max_position_embeddings": 32768,
        "sliding_window": 128, "num_local_experts": 16, "num_experts_per_tok": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 5, "tie_word_embeddings": False,
        "rope_theta": 150000.0, "hidden_act": "silu", "attention_bias": True,
        "swiglu_limit": 7.0, "rms_norm_eps": 1e-5,
    },
}  # fmt: skip


def write_model(folder: Path, shape: str, mix: str, *, words: bool = True) -> Path:
    """The file of a shape under a quantisation; made where it is not there yet. With `words` it has
    a vocabulary of its real size."""
    path = folder / f"{shape}-{mix}.gguf"
    if not path.is_file():
        checkpoint = as_checkpoint(SHAPES[shape], shape)
        config = read_config(checkpoint)
        keys: dict[str, Any] = {
            "general.architecture": config.architecture,
            "general.name": f"random {shape}",
            "tokenizer.ggml.model": "no_vocab",
            **size_keys(checkpoint, config),
        }
        if words:
            keys |= random_vocabulary.metadata(config.vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        write_gguf(path, keys, _tensors(family_of(checkpoint), config, mixes.get(mix)))
    return path


def _tensors(family: str, config: ModelConfig, mix: mixes.Mix) -> Iterator[StoredTensor]:
    model = mixes.ModelShape(
        config.architecture, config.num_layers, config.num_heads, config.num_kv_heads,
        config.num_experts, config.tied_embeddings,
    )  # fmt: skip
    for seed, (name, want) in enumerate(expected_of(family, config).items()):
        if not want.required:
            continue
        qtype = mixes.choose(mix, name, want.shape, model)
        shape = want.shape[1:] if name.endswith("ffn_gate_inp_shexp.weight") else want.shape
        if qtype == "F32" and (len(shape) == 1 or name.endswith(".bias")):  # norms and biases
            values = np.full(shape, name.endswith(".weight"), "<f4").reshape(-1).view("u1")
            yield LazyTensor(name, shape, qtype, lambda values=values: values)
        else:
            yield RandomTensor(name, qtype, shape, seed)
