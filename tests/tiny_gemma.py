# SPDX-License-Identifier: Apache-2.0
"""Tiny random Gemma 3n and 4 beside `tiny_models`: cases, and GGUF files as published ones are.

Names of tensors come from the `gguf` package's own map, keys from its writer, so that both are
independent of freehold's converter.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import Any

import gguf
import numpy as np

import tiny_moe
from tiny_models import VOCAB, encoded

_SLIDING, _FULL = "sliding_attention", "full_attention"
_COMMON = {
    "vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 128, "sliding_window": 8,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "attn_implementation": "eager",
    "final_logit_softcapping": 3.0,
}  # fmt: skip
# Both kinds among the layers with keys of their own and among those without.
_SHARING = {
    "num_hidden_layers": 8, "num_kv_shared_layers": 3,
    "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL, _SLIDING, _FULL, _FULL],
}  # fmt: skip
_GEMMA4 = {**_COMMON, "global_head_dim": 64}
_NO_PLE = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": VOCAB}
_PLE = {"hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": VOCAB}
_EXPERTS = {
    "attention_k_eq_v": True, "num_global_key_value_heads": 1, "enable_moe_block": True,
    "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 32, "num_hidden_layers": 4,
    "layer_types": [_SLIDING, _FULL, _SLIDING, _FULL],
}  # fmt: skip
_WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 3,
         "layer_types": [_SLIDING, _FULL, _FULL]}  # fmt: skip
_GEMMA3N = {**_COMMON, **_PLE, "laurel_rank": 4}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4-small": ("Gemma4", {**_GEMMA4, **_PLE, **_SHARING, "use_double_wide_mlp": True}),
    "gemma4-experts": ("Gemma4", {**_GEMMA4, **_NO_PLE, **_EXPERTS}),
    "gemma4-plain": (
        "Gemma4",
        {**_GEMMA4, **_NO_PLE, "num_hidden_layers": 7, "final_logit_softcapping": None,
         "rope_parameters": {
             _FULL: {"rope_type": "proportional", "rope_theta": 5e4, "partial_rotary_factor": 0.5,
                     "factor": 4.0},
             _SLIDING: {"rope_type": "default", "rope_theta": 500.0}}},
    ),
    "gemma3n": (
        "Gemma3n",
        {**_GEMMA3N, **_SHARING,
         "activation_sparsity_pattern": [0.9, 0.5, 0.0, 0.0, 0.95, 0.2, 0.0, 0.0]},
    ),
    "gemma3n-three-streams": (
        "Gemma3n",
        {**_GEMMA3N, "num_hidden_layers": 5, "num_kv_shared_layers": 0, "altup_num_inputs": 3,
         "altup_active_idx": 1, "vocab_size_per_layer_input": VOCAB - 10,
         "intermediate_size": [96, 64, 96, 32, 96]},
    ),
    # Rows that every block of 256 fills.
    "gemma4-wide": ("Gemma4", {**_GEMMA4, **_NO_PLE, **_WIDE, "head_dim": 64,
                               "global_head_dim": 128}),
    "gemma3n-wide": ("Gemma3n", {**_GEMMA3N, **_WIDE, "head_dim": 64, "num_kv_shared_layers": 1,
                                 "hidden_size_per_layer_input": 256, "laurel_rank": 256,
                                 "activation_sparsity_pattern": [0.9, 0.0, 0.0]}),
}  # fmt: skip
SMALL = [name for name in CASES if not name.endswith("-wide")]


def build(case: str, seed: int = 0, **more: Any) -> Any:
    """The transformers model in float32, every parameter random."""
    import transformers

    kind, options = CASES[case]
    config = getattr(transformers, f"{kind}TextConfig")(**{**options, **more})
    return randomised(getattr(transformers, f"{kind}ForCausalLM")(config).eval().float(), seed)


def randomised(model: Any, seed: int = 0) -> Any:
    """`model` with every parameter drawn anew, and the buffers that files hold."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def normal(shape, spread):
        return torch.randn(shape, generator=generator) * spread

    with torch.no_grad():
        for name, values in model.state_dict(keep_vars=True).items():
            if values.ndim <= 1:
                # Scores are not scaled: queries and keys of size 1 would have them reach ±30.
                of_heads = name.endswith(("q_norm.weight", "k_norm.weight"))
                size = values.numel() ** -0.25 if of_heads else 1.0
                values.copy_(size * (1.0 + normal(values.shape, 0.25)))
            elif "embed_tokens" in name:
                values.copy_(normal(values.shape, values.shape[1] ** -0.5))
            else:
                gain = 8.0 if "modality_router" in name else 1.0  # its tanh is to bend
                values.copy_(normal(values.shape, gain * values.shape[-1] ** -0.5))
    return model


# -- GGUF -------------------------------------------------------------------------------------


def gguf_architecture(model: Any) -> str:
    return str(model.config.model_type.removesuffix("_text"))


def gguf_tensors(model: Any) -> dict[str, np.ndarray]:
    """The model's weights under GGUF names, as llama.cpp's converter arranges them."""
    config = model.config
    kind = getattr(gguf.MODEL_ARCH, gguf_architecture(model).upper())
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    tensors: dict[str, np.ndarray] = {}
    stacks: dict[str, list[np.ndarray]] = {}
    for name, value in model.state_dict().items():
        array = value.numpy()
        if name == "lm_head.weight":
            assert config.tie_word_embeddings
            continue
        if name.startswith("model.altup_"):
            stacks.setdefault(name.rsplit(".", 2)[0], []).append(array)
            continue
        layer = name.split(".")[2] if name.startswith("model.layers.") else ""
        if name.endswith("router.scale"):
            tensors[f"blk.{layer}.ffn_gate_inp.scale"] = array
        elif name.endswith("per_expert_scale"):
            tensors[f"blk.{layer}.ffn_down_exps.scale"] = array
        else:
            found = names.get_name(name.removesuffix(".weight"))
            assert found is not None, name
            if "embed_tokens_per_layer" in name and len(array) < config.vocab_size:
                more = np.repeat(array[:1], config.vocab_size - len(array), axis=0)
                array = np.concatenate([array, more])
            tensors[f"{found}.weight"] = array
    for stem, arrays in stacks.items():
        tensors[f"{names.get_name(stem)}.weight"] = np.stack(arrays)
    return tensors


def write_gguf(model: Any, path: Path, qtype: str = "F32") -> Path:
    """The model as GGUF; what is multiplied in `qtype`, all else in F32."""
    arch = gguf_architecture(model)
    writer = gguf.GGUFWriter(path, arch)
    _add_keys(writer, model)
    kind = gguf.GGMLQuantizationType[qtype]
    tensors = gguf_tensors(model)
    if arch == "gemma4":
        tensors["rope_freqs.weight"] = _divisors(model)
    for name, array in tensors.items():
        kept = any(part in name for part in ("ffn_gate_inp", "altup_", "laurel", "model_proj"))
        if array.ndim < 2 or qtype == "F32" or kept or array.shape[-1] % 32:
            writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
        else:
            encode = tiny_moe.encoded if array.ndim == 3 else encoded
            writer.add_tensor(name, encode(array, qtype), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_keys(writer: gguf.GGUFWriter, model: Any) -> None:
    config, arch = model.config, gguf_architecture(model)
    layers = config.num_hidden_layers
    writer.add_block_count(layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length([layer.mlp.intermediate_size for layer in model.model.layers])
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == _SLIDING for kind in config.layer_types])
    writer.add_shared_kv_layers(config.num_kv_shared_layers)
    writer.add_embedding_length_per_layer_input(config.hidden_size_per_layer_input)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope[_FULL]["rope_theta"])
    writer.add_float32(f"{arch}.rope.freq_base_swa", rope[_SLIDING]["rope_theta"])
    if config.final_logit_softcapping:
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "gemma3n":
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_altup_active_idx(config.altup_active_idx)
        writer.add_altup_num_inputs(config.altup_num_inputs)
        shares = config.activation_sparsity_pattern
        writer.add_activation_sparsity_scale(
            [NormalDist().inv_cdf(s) if s else -float("inf") for s in shares]
        )
        return
    wide = model.model.layers[config.layer_types.index(_FULL)].self_attn.head_dim
    narrow = model.model.layers[config.layer_types.index(_SLIDING)].self_attn.head_dim
    for suffix, dim in (("", wide), ("_swa", narrow)):
        for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            writer.add_uint32(f"{arch}.{key}{suffix}", dim)
    counts = [config.per_layer_config[i].num_key_value_heads for i in range(layers)]
    writer.add_head_count_kv(counts if len(set(counts)) > 1 else counts[0])
    if config.enable_moe_block:
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.top_k_experts)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _divisors(model: Any) -> np.ndarray:
    """The stretching of what rotates, and a number that stops the rest."""
    rope = model.config.rope_parameters[_FULL]
    wide = model.model.layers[model.config.layer_types.index(_FULL)].self_attn.head_dim
    turned = int(wide * rope["partial_rotary_factor"] / 2)
    values = [rope.get("factor", 1.0)] * turned + [1e30] * (wide // 2 - turned)
    return np.array(values, dtype=np.float32)
