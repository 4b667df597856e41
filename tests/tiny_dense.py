# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the dense families beside Llama's: cases, and GGUF files of each.

Files are written with the `gguf` package, its table of tensor names included; keys are those that
llama.cpp's converter writes for the architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models
from tiny_models import Case

_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "beta_fast": 4.0,
         "beta_slow": 1.0, "original_max_position_embeddings": 16}  # fmt: skip
_MINISTRAL = {"head_dim": 32, "rope_parameters": {
    **_YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3}}  # fmt: skip
_LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
           "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
_GRANITE = {"embedding_multiplier": 2.5, "logits_scaling": 1.7, "residual_multiplier": 0.6,
            "attention_multiplier": 0.21}  # fmt: skip
CASES: dict[str, Case] = {
    "mistral3": Case("Ministral3", _MINISTRAL),
    "mistral3-tied-window": Case(
        "Ministral3", {**_MINISTRAL, "tie_word_embeddings": True, "sliding_window": 8}
    ),
    "smollm3": Case("SmolLM3", {"num_hidden_layers": 5, "tie_word_embeddings": True}),
    "smollm3-window": Case(  # no GGUF file can say so
        "SmolLM3",
        {"num_hidden_layers": 4, "no_rope_layers": [0, 1, 0, 1], "use_sliding_window": True,
         "sliding_window": 8, "attention_bias": True},
    ),
    "olmo2": Case("Olmo2", {"num_key_value_heads": 4}),
    "olmo2-gqa": Case("Olmo2", {"attention_bias": True}),
    "olmo3": Case(
        "Olmo3",
        {"num_hidden_layers": 5, "sliding_window": 8, "rope_parameters": {
            "full_attention": _YARN,
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    ),
    "olmo3-irregular": Case(
        "Olmo3",
        {"sliding_window": 8,
         "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ),
    "granite": Case("Granite", _GRANITE),
    "granite-tied": Case("Granite", {"tie_word_embeddings": True, "attention_bias": True,
                                     **_GRANITE}),
    "granite4": Case(
        "GraniteMoeHybrid",
        {"layer_types": ["full_attention"] * 3, "num_local_experts": 0,
         "shared_intermediate_size": 96, "position_embedding_type": "rope", **_GRANITE,
         "mamba_n_heads": 4, "mamba_expand": 2},
    ),
    "granite4-no-rotation": Case(
        "GraniteMoeHybrid",
        {"layer_types": ["full_attention"] * 3, "num_local_experts": 0,
         "shared_intermediate_size": 96, "tie_word_embeddings": True, **_GRANITE,
         "mamba_n_heads": 4, "mamba_expand": 2},
    ),
    "apertus": Case("Apertus", {"rope_parameters": _LLAMA3}),
    "apertus-bias": Case("Apertus", {"attention_bias": True, "num_key_value_heads": 4,
                                     "rope_parameters": {"rope_type": "default",
                                                         "rope_theta": 5000.0}}),
    "gptneox": Case("GPTNeoX"),
    "gptneox-in-turn": Case(
        "GPTNeoX",
        {"use_parallel_residual": False, "rope_parameters": {
            "rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}},
    ),
    "gptneox-no-bias-tied": Case(
        "GPTNeoX", {"attention_bias": False, "tie_word_embeddings": True}
    ),
}  # fmt: skip
# What GGUF has no words for.
SAFETENSORS_ONLY = ("smollm3-window",)
_ARCHITECTURES = {
    "ministral3": "mistral3", "olmo3": "olmo2", "gpt_neox": "gptneox",
    "granitemoehybrid": "granite",
}  # fmt: skip
_PERMUTED = ("mistral3", "smollm3", "granite")


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter random."""
    model = tiny_models.build(CASES[case], seed, **more)
    for name, buffer in model.named_buffers():
        if name.endswith("act_fn.beta"):  # as trained models hold it
            buffer.fill_(0.5)
    return model


def gguf_architecture(model: Any) -> str:
    kind = model.config.model_type
    return _ARCHITECTURES.get(kind, kind)


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under the names of the `gguf` package, rows in its converter's order."""
    config, arch = model.config, gguf_architecture(model)
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    heads = {
        "q_proj": config.num_attention_heads,
        "k_proj": getattr(config, "num_key_value_heads", None),
    }
    tensors: dict[str, np.ndarray] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if "act_fn" in name or (name in ("lm_head.weight", "embed_out.weight")
                                and config.tie_word_embeddings):  # fmt: skip
            continue
        projection = name.split(".")[-2]
        if arch in _PERMUTED and projection in heads:
            split = array.reshape(heads[projection], 2, -1, *array.shape[1:])
            array = split.swapaxes(1, 2).reshape(array.shape)
        if projection == "input_linear":  # gate above up
            blk = f"blk.{name.split('.')[2]}."
            tensors[blk + "ffn_gate.weight"], tensors[blk + "ffn_up.weight"] = np.split(array, 2)
            continue
        if projection == "output_linear":
            name = name.replace("shared_mlp.output_linear", "mlp.down_proj")
        if projection == "query_key_value":
            split = array.reshape(config.num_attention_heads, 3, -1, *array.shape[1:])
            array = np.concatenate([split[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        tensors[found] = array
    return tensors


def write_gguf(model: Any, path: Path, qtype: str = "F32") -> Path:
    """The model as GGUF; matrices in `qtype`, all else in F32."""
    config, arch = model.config, gguf_architecture(model)
    writer = gguf.GGUFWriter(path, arch)
    _add_keys(writer, model)
    if config.rope_parameters.get("rope_type") == "llama3":
        divisors = tiny_models._llama3_divisors(config.rope_parameters, _head_dim(config))
        writer.add_tensor("rope_freqs.weight", divisors)
    for name, array in gguf_tensors(model).items():
        if array.ndim == 2 and qtype != "F32":
            data = tiny_models.encoded(array, qtype)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[qtype])
        else:
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_keys(writer: gguf.GGUFWriter, model: Any) -> None:
    config, arch = model.config, gguf_architecture(model)
    head_dim = _head_dim(config)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if arch == "gptneox":
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_parallel_residual(config.use_parallel_residual)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        return
    tiny_models.add_sizes(writer, config)
    if head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if arch == "mistral3":
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])
    if arch in ("mistral3", "olmo2"):
        tiny_models.add_window(writer, config)
    if arch == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
        if getattr(config, "position_embedding_type", "rope") != "rope":
            writer.add_bool("granite.rope.scaling.finetuned", False)
    if arch == "apertus":
        layers = [layer.mlp.act_fn for layer in model.model.layers]
        writer.add_xielu_alpha_p([f.alpha_p.item() for f in layers])
        writer.add_xielu_alpha_n([f.alpha_n.item() for f in layers])
        writer.add_xielu_beta([f.beta.item() for f in layers])
        writer.add_xielu_eps([f.eps.item() for f in layers])
