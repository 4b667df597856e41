# SPDX-License-Identifier: Apache-2.0
"""Tiny random DeepSeek V4 beside `tiny_models`: cases with every kind of layer, and GGUF files.

Files are written with the `gguf` package under the names and keys of published files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models
from tiny_models import Case

_KINDS = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention",
          "compressed_sparse_attention"]  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32,
         "beta_fast": 4.0, "beta_slow": 1.0}  # fmt: skip
_SIZES: dict[str, Any] = {
    "num_hidden_layers": 4, "num_key_value_heads": 1, "moe_intermediate_size": 32, "head_dim": 32,
    "q_lora_rank": 24, "num_experts_per_tok": 2, "n_routed_experts": 6, "layer_types": _KINDS,
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
    "sliding_window": 7, "o_groups": 2, "o_lora_rank": 16, "index_n_heads": 7,
    "index_head_dim": 16, "index_topk": 64, "qk_rope_head_dim": 8, "swiglu_limit": 1.5,
    "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"], "rope_parameters": _YARN,
}  # fmt: skip
CASES: dict[str, Case] = {
    "v4": Case("DeepseekV4", _SIZES),
    # Rates that no block of the cache is a multiple of; no YaRN; a table behind the first layer.
    "v4-odd-rates": Case(
        "DeepseekV4",
        {**_SIZES, "rope_parameters": None, "hc_mult": 3, "hc_sinkhorn_iters": 4,
         "compress_rates": {"compressed_sparse_attention": 3, "heavily_compressed_attention": 11},
         "layer_types": _KINDS[2:] + _KINDS[:2],
         "mlp_layer_types": ["moe", "hash_moe", "moe", "moe"]},
    ),
    # Seven heads: that all score zero, which ties entries, is then rare.
    "v4-sparse": Case("DeepseekV4", {**_SIZES, "index_topk": 3}),
    "v4-sigmoid": Case("DeepseekV4", {**_SIZES, "scoring_func": "sigmoid", "hidden_size": 96}),
}  # fmt: skip


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter, table and bias of a choice random."""
    import torch

    model = tiny_models.build(CASES[case], seed, **more)
    generator = torch.Generator().manual_seed(seed + 1)
    experts = model.config.n_routed_experts
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.2)
            elif name.endswith("tid2eid"):
                rows = [torch.randperm(experts, generator=generator)[: buffer.shape[1]]
                        for _ in range(buffer.shape[0])]  # fmt: skip
                buffer.copy_(torch.stack(rows))
        for name, parameter in model.named_parameters():
            if name.endswith(("position_bias", "base", "sinks")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


_NAMES = {
    "self_attn.sinks": "attn_sinks", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_norm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_proj": "attn_kv", "self_attn.kv_norm": "attn_kv_a_norm",
    "self_attn.o_a_proj": "attn_output_a", "self_attn.o_b_proj": "attn_output_b",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.compressor.indexer.q_b_proj": "indexer.attn_q_b",
    "self_attn.compressor.indexer.scorer.weights_proj": "indexer.proj",
    "mlp.gate": "ffn_gate_inp", "mlp.gate.tid2eid": "ffn_gate_tid2eid",
    **{f"self_attn.compressor.{theirs}": f"attn_compressor_{ours}"
       for theirs, ours in (("kv_proj", "kv"), ("gate_proj", "gate"), ("position_bias", "ape"),
                            ("kv_norm", "norm"))},
    **{f"self_attn.compressor.indexer.{theirs}": f"indexer_compressor_{ours}"
       for theirs, ours in (("kv_proj", "kv"), ("gate_proj", "gate"), ("position_bias", "ape"),
                            ("kv_norm", "norm"))},
    **{f"{half}_hc.{part}": f"hc_{half}_{part}"
       for half in ("attn", "ffn") for part in ("fn", "base", "scale")},
    **{f"mlp.shared_experts.{p}_proj": f"ffn_{p}_shexp" for p in ("gate", "up", "down")},
}  # fmt: skip
_GLOBAL = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    **{f"model.hc_head.hc_{part}": f"output_hc_{part}.weight" for part in ("fn", "base", "scale")},
}  # fmt: skip


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names."""
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name in _GLOBAL:
            tensors[_GLOBAL[name]] = array
            continue
        _, _, layer, part = name.split(".", 3)
        blk = f"blk.{layer}."
        if part.endswith("gate_up_proj"):
            for half, kind in zip(np.split(array, 2, axis=1), ("gate", "up"), strict=True):
                tensors[f"{blk}ffn_{kind}_exps.weight"] = half
        elif part.endswith("experts.down_proj"):
            tensors[f"{blk}ffn_down_exps.weight"] = array
        elif part.endswith("e_score_correction_bias"):
            tensors[f"{blk}exp_probs_b.bias"] = array
        elif part.endswith("tid2eid"):
            tensors[f"{blk}ffn_gate_tid2eid.weight"] = array.astype(np.int32)
        else:
            tensors[f"{blk}{_NAMES[part.removesuffix('.weight')]}.weight"] = array
    return tensors


def write_gguf(model: Any, path: Path, **changes: Any) -> Path:
    """The model as GGUF in F32; `changes` are keys, the architecture left out, None = none."""
    config = model.config
    writer = gguf.GGUFWriter(path, "deepseek4")
    kinds = {"sliding_attention": 0, **config.compress_rates}
    yarn = config.rope_parameters["compress"]
    layers = config.num_hidden_layers
    keys: dict[str, Any] = {
        "block_count": layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": 1,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.key_length": config.head_dim, "attention.value_length": config.head_dim,
        "attention.q_lora_rank": config.q_lora_rank,
        "attention.output_lora_rank": config.o_lora_rank,
        "attention.output_group_count": config.o_groups,
        "attention.sliding_window": config.sliding_window,
        # One more, of a layer that guesses further tokens.
        "attention.compress_ratios": [*(kinds[kind] for kind in config.layer_types), 0],
        "attention.compress_rope_freq_base": float(yarn["rope_theta"]),
        "attention.indexer.head_count": config.index_n_heads,
        "attention.indexer.key_length": config.index_head_dim,
        "attention.indexer.top_k": config.index_topk,
        "rope.dimension_count": config.qk_rope_head_dim, "rope.freq_base": float(config.rope_theta),
        "rope.scaling.type": "yarn", "rope.scaling.factor": yarn["factor"],
        "rope.scaling.original_context_length": yarn["original_max_position_embeddings"],
        "rope.scaling.yarn_beta_fast": yarn["beta_fast"],
        "rope.scaling.yarn_beta_slow": yarn["beta_slow"],
        "expert_count": config.n_routed_experts, "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size, "expert_shared_count": 1,
        "expert_weights_scale": config.routed_scaling_factor, "expert_weights_norm": True,
        "expert_gating_func": 4,
        "hash_layer_count": config.mlp_layer_types.count("hash_moe"),
        "hyper_connection.count": config.hc_mult,
        "hyper_connection.sinkhorn_iterations": config.hc_sinkhorn_iters,
        "hyper_connection.epsilon": config.hc_eps,
        "swiglu_clamp_exp": [config.swiglu_limit] * layers,
        "nextn_predict_layers": 1, **changes,
    }  # fmt: skip
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
           str: writer.add_string, list: writer.add_array}  # fmt: skip
    for key, value in keys.items():
        if value is not None:
            add[type(value)](f"deepseek4.{key}", value)
    for name, array in gguf_tensors(model).items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def transformers_names(model: Any) -> dict[str, np.ndarray]:
    """The weights under the names that the model's code has, experts joined."""
    return {name: np.ascontiguousarray(v.numpy()) for name, v in model.state_dict().items()}
