# SPDX-License-Identifier: Apache-2.0
"""Mistral's own files: ``consolidated*.safetensors`` beside ``params.json``, shown as if they were
Hugging Face's.

Knows both spellings of keys and tensor names, and that these files keep the two dimensions that are
rotated together side by side (``rotary_pairs``), where Hugging Face's have them half a head apart.
No weight is read or moved.

Source: mistral-inference's arguments and the files of Mistral 7B v0.3 to Ministral 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.strict_json import describe
from freehold.formats.tensor_view import TensorView

PARAMS_NAME = "params.json"
PREFIX = "consolidated"
_HINT = "use the model's Hugging Face files (config.json) or a GGUF file"
_CONTEXT = 32_768  # of the models whose params.json does not say
_KEYS = {
    "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads", "head_dim": "head_dim",
    "hidden_dim": "intermediate_size", "norm_eps": "rms_norm_eps", "vocab_size": "vocab_size",
    "rope_theta": "rope_theta", "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings",
}  # fmt: skip
_REQUIRED = ("dim", "n_layers", "n_heads", "hidden_dim", "norm_eps", "vocab_size")
_GLOBAL = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attention_norm": "input_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.gate": "block_sparse_moe.gate",
}
_SUFFIX = {
    "weight": "weight", "qscale_weight": "weight_scale_inv", "qscale_act": "activation_scale",
}  # fmt: skip
_IN_LAYER = re.compile(r"layers\.(\d{1,9})\.(.+)")
_EXPERT = re.compile(r"feed_forward\.(experts\.\d{1,9}\.w[123])")
_VISION = re.compile(
    r"(vision_encoder|vision_language_adapter|patch_merger|pre_mm_projector_norm)\..+"
)


def config_from_params(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`params.json` in the words of config.json. Raises MalformedFileError naming a key, and
    UnsupportedModelError for models that are known from Hugging Face's files alone."""
    for key in _REQUIRED:
        if params.get(key) is None:
            raise MalformedFileError(f"{where}: {key} is missing")
    for key in ("q_lora_rank", "kv_lora_rank"):
        if params.get(key) is not None:
            raise UnsupportedModelError(f"{where} has latent attention ({key})", hint=_HINT)
    config = {ours: params[key] for key, ours in _KEYS.items() if params.get(key) is not None}
    config.setdefault("tie_word_embeddings", False)
    context = params.get("max_position_embeddings") or params.get("max_seq_len") or _CONTEXT
    config |= {
        "model_type": "mistral",
        "max_position_embeddings": context,
        "rotary_pairs": "adjacent",
    }
    return (
        config | _experts(params, where) | _rotation(params, where) | _quantization(params, where)
    )


def _part(params: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any] | None:
    value = params.get(key)
    if value is not None and not isinstance(value, dict):
        raise MalformedFileError(f"{where}: {key} must be an object, not {describe(value)}")
    return value


def _experts(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    moe = _part(params, "moe", where)
    if moe is None:
        return {}
    if moe.keys() - {"num_experts", "num_experts_per_tok"}:
        raise UnsupportedModelError(
            f"{where} has experts of another kind than Mixtral's (moe)", hint=_HINT
        )
    return {
        "model_type": "mixtral",
        "num_local_experts": moe.get("num_experts"),
        "num_experts_per_tok": moe.get("num_experts_per_tok"),
    }


def _rotation(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`rope_parameters`, where there is more to say than the base."""
    yarn, growth = _part(params, "yarn", where), _part(params, "llama_4_scaling", where)
    rope: dict[str, Any] = {"rope_type": "default"}
    if yarn is not None:
        rope = {"rope_type": "yarn", "factor": yarn.get("factor")}
        for key, ours in (("beta", "beta_fast"), ("alpha", "beta_slow")):
            if yarn.get(key) is not None:
                rope[ours] = yarn[key]
        if yarn.get("apply_scale") is False:  # cosine and sine keep their magnitude
            rope |= {"mscale": 1.0, "mscale_all_dim": 1.0}
    if growth is not None:
        rope["llama_4_scaling_beta"] = growth.get("beta")
    lengths = {
        table["original_max_position_embeddings"]
        for table in (yarn, growth)
        if table is not None and isinstance(table.get("original_max_position_embeddings"), int)
    }
    if len(lengths) > 1:
        raise UnsupportedModelError(
            f"{where}: yarn and llama_4_scaling start from different lengths", hint=_HINT
        )
    if yarn is None and growth is None:
        return {}
    if lengths:
        rope["original_max_position_embeddings"] = lengths.pop()
    if params.get("rope_theta") is not None:
        rope["rope_theta"] = params["rope_theta"]
    family = {} if growth is None else {"model_type": "ministral3"}
    return {"rope_parameters": rope} | family


def _quantization(params: Mapping[str, Any], where: str) -> dict[str, Any]:
    settings = _part(params, "quantization", where)
    if settings is None:
        return {}
    if settings.get("qformat_weight") != "fp8_e4m3":
        raise UnsupportedModelError(
            f"{where}: weights quantised as {describe(settings.get('qformat_weight'))}", hint=_HINT
        )
    return {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}}


def renamed(tensors: Mapping[str, TensorView], where: str) -> dict[str, TensorView]:
    """The language model's tensors under Hugging Face's names. A name that follows no known pattern
    stays, for the loader to complain of."""
    result: dict[str, TensorView] = {}
    for name, view in tensors.items():
        if _VISION.fullmatch(name):
            continue
        found = _hf_name(name)
        if found in result:
            raise MalformedFileError(f"{where}: {name[:100]!r} is there twice")
        result[found] = replace(view, name=found)
    return result


def _hf_name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if suffix not in _SUFFIX:
        return name
    if stem in _GLOBAL:
        return f"{_GLOBAL[stem]}.{_SUFFIX[suffix]}"
    match = _IN_LAYER.fullmatch(stem)
    if match is None:
        return name
    part, expert = _LAYER.get(match[2]), _EXPERT.fullmatch(match[2])
    if expert:
        part = f"block_sparse_moe.{expert[1]}"
    return f"model.layers.{match[1]}.{part}.{_SUFFIX[suffix]}" if part else name
