# SPDX-License-Identifier: Apache-2.0
"""Tiny random mixtures of experts beside `tiny_models`: cases, and GGUF files of both layouts.

Files are written with the `gguf` package: all experts of a layer in one tensor, as today, or one
tensor per expert, as Mixtral's first files were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models
from freehold import quants
from tiny_models import Case

_QWEN2 = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
          "shared_expert_intermediate_size": 64}  # fmt: skip
_QWEN3 = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 32,
          "head_dim": 32, "norm_topk_prob": True}  # fmt: skip
CASES: dict[str, Case] = {
    "mixtral": Case("Mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    "mixtral-window-one-expert": Case(
        "Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 1, "sliding_window": 8}
    ),
    "qwen2moe": Case("Qwen2Moe", _QWEN2),
    "qwen2moe-normalised": Case(
        "Qwen2Moe",
        {**_QWEN2, "norm_topk_prob": True, "mlp_only_layers": [1], "use_sliding_window": True,
         "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3moe": Case("Qwen3Moe", _QWEN3),
    "qwen3moe-every-other": Case(
        "Qwen3Moe",
        {**_QWEN3, "norm_topk_prob": False, "decoder_sparse_step": 2, "attention_bias": True,
         "num_experts_per_tok": 16, "tie_word_embeddings": True, "use_sliding_window": True,
         "sliding_window": 8},
    ),
    # Rows that every block of 256 fills; and all experts at work, so that what rounding does to
    # the router moves a result a little and never swaps an expert.
    "mixtral-wide": Case(
        "Mixtral",
        {"num_local_experts": 4, "num_experts_per_tok": 4, "hidden_size": 256,
         "intermediate_size": 256, "num_hidden_layers": 2},
    ),
}  # fmt: skip
_PARTS = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter random."""
    return tiny_models.build(CASES[case], seed, **more)


def gguf_architecture(model: Any) -> str:
    kind = model.config.model_type
    return {"mixtral": "llama", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"}[kind]


def gguf_tensors(model: Any, one_by_one: bool = False) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, experts in one tensor a layer or in one each."""
    config, arch = model.config, gguf_architecture(model)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    plain = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    tensors: dict[str, np.ndarray] = {}

    def add_experts(blk: str, part: str, array: np.ndarray) -> None:
        if one_by_one:
            for index, matrix in enumerate(array):
                tensors[f"{blk}{_PARTS[part]}.{index}.weight"] = matrix
        else:
            tensors[f"{blk}{_PARTS[part]}_exps.weight"] = array

    for name, value in model.state_dict().items():
        array = value.numpy()
        stem, _, suffix = name.rpartition(".")
        if stem in plain:
            if not (stem == "lm_head" and config.tie_word_embeddings):
                tensors[f"{plain[stem]}.{suffix}"] = array
            continue
        _, _, layer, part = name.split(".", 3)
        blk = f"blk.{layer}."
        if part == "mlp.experts.gate_up_proj":
            for half, projection in zip(np.split(array, 2, axis=1), _PARTS, strict=False):
                add_experts(blk, projection, half)
        elif part == "mlp.experts.down_proj":
            add_experts(blk, "down_proj", array)
        elif part == "mlp.gate.weight":
            tensors[f"{blk}ffn_gate_inp.weight"] = array
        elif part == "mlp.shared_expert_gate.weight":
            tensors[f"{blk}ffn_gate_inp_shexp.weight"] = array[0]  # a vector
        elif part.startswith("mlp.shared_expert."):
            tensors[f"{blk}{_PARTS[part.split('.')[2]]}_shexp.weight"] = array
        else:
            part = part.rpartition(".")[0]
            projection = part.rpartition(".")[2]
            if arch == "llama" and projection in heads:
                split = array.reshape(heads[projection], 2, -1, *array.shape[1:])
                array = split.swapaxes(1, 2).reshape(array.shape)
            tensors[f"{blk}{tiny_models._NAMES[part]}.{suffix}"] = array
    return tensors


def encoded(array: np.ndarray, qtype: str) -> np.ndarray:
    """Stored bytes, one row per row, of two dimensions or three."""
    rows = array.reshape(-1, array.shape[-1])
    return tiny_models.encoded(rows, qtype).reshape(*array.shape[:-1], -1)


def write_gguf(
    model: Any, path: Path, qtype: str = "F32", one_by_one: bool = False, **expert_types: str
) -> Path:
    """The model as GGUF. Matrices in `qtype` but for routers, which are F32 everywhere."""
    config, arch = model.config, gguf_architecture(model)
    writer = gguf.GGUFWriter(path, arch)
    head_dim = model.model.layers[0].self_attn.head_dim
    tiny_models.add_sizes(writer, config)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_expert_count(getattr(config, "num_local_experts", None) or config.num_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    if arch != "llama":
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
        if config.norm_topk_prob != (arch == "qwen3moe"):  # else taken for granted
            writer.add_expert_weights_norm(config.norm_topk_prob)
    if arch == "qwen2moe":
        writer.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    tiny_models.add_window(writer, config)
    for name, array in gguf_tensors(model, one_by_one).items():
        kind = expert_types.get(name.split(".")[3] if name.count(".") == 4 else "", qtype)
        if array.ndim < 2 or "ffn_gate_inp" in name or kind == "F32":
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
        else:
            data = encoded(array, kind)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def through(model: Any, qtype: str) -> Any:
    """`model` after encoding and decoding every matrix that `write_gguf` puts in `qtype`."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("mlp.gate.weight", "_gate.weight")):
                rows = parameter.numpy().reshape(-1, parameter.shape[-1])
                decoded = quants.get(qtype).decode(tiny_models.encoded(rows, qtype).ravel())
                parameter.copy_(torch.from_numpy(decoded.reshape(parameter.shape)))
    return model
