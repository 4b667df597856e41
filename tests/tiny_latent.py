# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the DeepSeek line beside `tiny_models`: cases, and GGUF files of both ages.

Files are written with the `gguf` package: with a matrix per head for keys and values and sizes of
the cached vector, as today, or with the joint matrix and sizes of a head, as the first were.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models
from freehold import quants
from tiny_models import Case

_SIZES = {
    "num_key_value_heads": 4, "kv_lora_rank": 48, "q_lora_rank": 40, "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16, "v_head_dim": 20, "moe_intermediate_size": 32,
    "num_experts_per_tok": 3, "n_routed_experts": 8, "first_k_dense_replace": 1,
    "attn_implementation": "eager",
}  # fmt: skip
_WIDE = {
    "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "kv_lora_rank": 256,
    "q_lora_rank": 256, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
    "moe_intermediate_size": 256, "n_routed_experts": 4, "num_experts_per_tok": 4,
}  # fmt: skip


def _yarn(**values: Any) -> dict[str, Any]:
    return {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 4.0,
            "beta_slow": 1.0, "original_max_position_embeddings": 16, **values,
        }
    }  # fmt: skip


_V2_YARN = _yarn(mscale=0.707, mscale_all_dim=0.707)
_V3 = {**_SIZES, "n_shared_experts": 1, "n_group": 4, "topk_group": 2,
       "routed_scaling_factor": 2.5}  # fmt: skip
CASES: dict[str, Case] = {
    "v2-lite": Case(
        "DeepseekV2",
        {**_SIZES, "q_lora_rank": None, "topk_method": "greedy", "n_shared_experts": 2, **_V2_YARN},
    ),
    "v2-grouped": Case(
        "DeepseekV2",
        {**_SIZES, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
         "n_shared_experts": 2, "routed_scaling_factor": 3.0, **_V2_YARN},
    ),
    "v2-bias-no-yarn": Case(
        "DeepseekV2", {**_SIZES, "topk_method": "greedy", "n_shared_experts": 1,
                       "attention_bias": True, "first_k_dense_replace": 0},
    ),
    "v3": Case("DeepseekV3", {**_V3, "num_mtp_layers": 0, **_yarn(mscale=1.0, mscale_all_dim=1.0)}),
    "v3-wide": Case(
        "DeepseekV3", {**_V3, **_WIDE, "n_group": 1, "topk_group": 1, "num_mtp_layers": 0}
    ),
    "mistral4": Case(
        "Mistral4",
        {**_SIZES, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
         **_yarn(mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.3)},
    ),
    "v3.2": Case(
        "DeepseekV32",
        {**_V3, "index_topk": 64, "index_head_dim": 32, "index_n_heads": 4,
         **_yarn(mscale=1.0, mscale_all_dim=1.0)},
    ),
    # Seven heads: that all score zero, which ties keys, is then rare.
    "v3.2-sparse": Case(
        "DeepseekV32",
        {**_V3, "index_topk": 9, "index_head_dim": 32, "index_n_heads": 7,
         **_yarn(mscale=1.0, mscale_all_dim=1.0)},
    ),
}  # fmt: skip
ARCHITECTURES = {"deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2",
                 "deepseek_v32": "deepseek32", "mistral4": "mistral4"}  # fmt: skip
_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.o_proj": "attn_output", "mlp.gate": "ffn_gate_inp",
    "self_attn.indexer.wq_b": "indexer.attn_q_b", "self_attn.indexer.wk": "indexer.attn_k",
    "self_attn.indexer.k_norm": "indexer.k_norm",
    "self_attn.indexer.weights_proj": "indexer.proj",
    **{f"mlp.{p}_proj": f"ffn_{p}" for p in ("gate", "up", "down")},
    **{f"mlp.shared_experts.{p}_proj": f"ffn_{p}_shexp" for p in ("gate", "up", "down")},
}  # fmt: skip


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter and every bias of a choice random."""
    import torch

    model = tiny_models.build(CASES[case], seed, **more)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
    return model


def gguf_tensors(model: Any, old: bool = False, flat: bool = False) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, keys and values of the latent apart or joint; `flat`
    adds them apart to joint ones, the heads one below the other."""
    config = model.config
    nope, heads = config.qk_nope_head_dim, config.num_attention_heads
    plain = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array, (stem, _, suffix) = value.numpy(), name.rpartition(".")
        if stem in plain:
            tensors[f"{plain[stem]}.{suffix}"] = array
            continue
        _, _, layer, part = name.split(".", 3)
        blk, (part, _, suffix) = f"blk.{layer}.", part.rpartition(".")
        if suffix == "gate_up_proj":
            for half, gguf_part in zip(np.split(array, 2, axis=1), ("gate", "up"), strict=True):
                tensors[f"{blk}ffn_{gguf_part}_exps.weight"] = half
        elif suffix == "down_proj":
            tensors[f"{blk}ffn_down_exps.weight"] = array
        elif suffix == "e_score_correction_bias":
            tensors[f"{blk}exp_probs_b.bias"] = array
        elif part != "self_attn.kv_b_proj":
            tensors[f"{blk}{_NAMES[part]}.{suffix}"] = array
        else:
            both = array.reshape(heads, -1, array.shape[1])
            keys, values = both[:, :nope].transpose(0, 2, 1), both[:, nope:]
            if old:
                tensors[f"{blk}attn_kv_b.weight"] = array
            if flat:
                keys, values = (part.reshape(-1, part.shape[-1]) for part in (keys, values))
            if flat or not old:
                tensors[f"{blk}attn_k_b.weight"] = keys
                tensors[f"{blk}attn_v_b.weight"] = values
    return tensors


def write_gguf(
    model: Any, path: Path, qtype: str = "F32", old: bool = False, flat: bool = False
) -> Path:
    """The model as GGUF. Matrices in `qtype` but for routers, and rows too short for it."""
    config = model.config
    arch = ARCHITECTURES[config.model_type]
    writer = gguf.GGUFWriter(path, arch)
    tiny_models.add_sizes(writer, config)

    def put(key: str, value: Any) -> None:
        kind = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
                str: writer.add_string}  # fmt: skip
        kind[type(value)](f"{arch}.{key}", value)

    rank, rotated = config.kv_lora_rank, config.qk_rope_head_dim
    head = (config.qk_nope_head_dim + rotated, config.v_head_dim)
    writer.kv_data[0].pop(f"{arch}.attention.head_count_kv")
    put("attention.head_count_kv", config.num_attention_heads if old else 1)
    put("attention.key_length", head[0] if old else rank + rotated)
    put("attention.value_length", head[1] if old else rank)
    if not old:
        put("attention.key_length_mla", head[0])
        put("attention.value_length_mla", head[1])
    put("attention.kv_lora_rank", rank)
    if config.q_lora_rank:
        put("attention.q_lora_rank", config.q_lora_rank)
    put("rope.dimension_count", rotated)
    _put_rope(put, config.rope_parameters)
    _put_experts(put, config, old)
    if arch == "deepseek32":
        put("attention.indexer.head_count", config.index_n_heads)
        put("attention.indexer.key_length", config.index_head_dim)
        put("attention.indexer.top_k", config.index_topk)
    for name, array in gguf_tensors(model, old, flat).items():
        fits = array.shape[-1] % quants.get(qtype).block_size == 0
        if array.ndim < 2 or "ffn_gate_inp" in name or qtype == "F32" or not fits:
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
        else:
            rows = tiny_models.encoded(np.ascontiguousarray(array).reshape(-1, array.shape[-1]),
                                       qtype)  # fmt: skip
            data = rows.reshape(*array.shape[:-1], -1)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[qtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _put_rope(put: Any, rope: dict[str, Any]) -> None:
    put("rope.freq_base", float(rope["rope_theta"]))
    if rope["rope_type"] != "yarn":
        return
    put("rope.scaling.factor", float(rope["factor"]))
    put("rope.scaling.original_context_length", rope["original_max_position_embeddings"])
    put("rope.scaling.yarn_beta_fast", float(rope["beta_fast"]))
    put("rope.scaling.yarn_beta_slow", float(rope["beta_slow"]))
    put("rope.scaling.yarn_log_multiplier", 0.1 * rope["mscale_all_dim"])
    if "llama_4_scaling_beta" in rope:
        put("attention.temperature_scale", float(rope["llama_4_scaling_beta"]))
        put("attention.temperature_length", rope["original_max_position_embeddings"])
    put("rope.scaling.type", "yarn")


def _put_experts(put: Any, config: Any, old: bool) -> None:
    sigmoid = config.model_type in ("deepseek_v3", "deepseek_v32")
    put("expert_count", config.n_routed_experts)
    put("expert_used_count", config.num_experts_per_tok)
    put("expert_shared_count", config.n_shared_experts)
    put("expert_feed_forward_length", config.moe_intermediate_size)
    put("leading_dense_block_count", config.first_k_dense_replace)
    put("expert_weights_scale", float(config.routed_scaling_factor))
    if not old or sigmoid or config.norm_topk_prob:
        put("expert_weights_norm", bool(config.norm_topk_prob))
        put("expert_gating_func", 2 if sigmoid else 1)
    if (config.n_group or 1) > 1:
        put("expert_group_count", config.n_group)
        put("expert_group_used_count", config.topk_group)


def score_stretch(model: Any) -> float:
    """What YaRN multiplies the scores by."""
    rope = model.config.rope_parameters
    if rope["rope_type"] != "yarn":
        return 1.0
    return (1.0 + 0.1 * rope["mscale_all_dim"] * math.log(rope["factor"])) ** 2
