# SPDX-License-Identifier: Apache-2.0
"""Keys of the models with latent attention, and the constants that are in no file.

Translates into the terms of the shared readers and adds what they do not know: the sizes of the
latent, how YaRN scales scores, the indexer. Files of GGUF's first years give a head's size as that
of its key and hold one joint matrix; today's give the size of the cached vector, and heads under
keys that end in ``_mla``.

Sources: DeepSeek V2, V3 and V3.2 and Mistral Small 4 as in transformers 5.23 and llama.cpp of
October 2026.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from freehold.errors import UnsupportedModelError
from freehold.models._deepseek_moe import deepseek_moe_keys, moe_from_gguf, moe_from_hf
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._latent_sizes import (
    IndexerConfig,
    LatentConfig,
    LatentModelConfig,
    with_latent,
)
from freehold.models._latent_tensors import latent_heads
from freehold.models.base import ModelConfig
from freehold.models.rope import QueryTemperature, yarn_magnitude
from freehold.ops import RawTensor

_NAMES = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b",
    "self_attn.indexer.wq_b": "indexer.attn_q_b",
    "self_attn.indexer.wk": "indexer.attn_k",
    "self_attn.indexer.k_norm": "indexer.k_norm",
    "self_attn.indexer.weights_proj": "indexer.proj",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
_BIAS = re.compile(r"model\.layers\.(\d{1,9})\.mlp\.gate\.e_score_correction_bias")
_IN_LAYER = re.compile(r"(?:blk|model\.layers)\.(\d{1,9})\..+")
_MAX_DIM, _MAX_RANK = 1 << 14, 1 << 16
_LATENT_EPS = 1e-6  # of the norms inside attention, in every file's code; no key says so
# The converters of this line write a tenth of `mscale_all_dim`.
_LOG_UNIT = 0.1
# Keys that other readers do not expect, or that mean something else here.
_TRANSLATED = (
    "attention.key_length", "attention.value_length", "attention.head_count_kv",
    "attention.kv_lora_rank", "attention.temperature_scale", "expert_count",
    "rope.scaling.yarn_log_multiplier",
)  # fmt: skip
# What a config.json that leaves a key out means.
_HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "deepseek2": {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
                  "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6},
    "deepseek32": {"kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
                   "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6,
                   "index_topk": 2048, "index_head_dim": 128, "index_n_heads": 64},
    "mistral4": {"kv_lora_rank": 256, "q_lora_rank": 1024, "qk_nope_head_dim": 64,
                 "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-6},
}  # fmt: skip


def latent_dialect(architecture: str) -> Dialect:
    """The dialect of "deepseek2", "deepseek32" or "mistral4"."""
    return Dialect(
        from_gguf=_from_gguf,
        from_hf=_from_hf,
        hf_keys=functools.partial(_hf_keys, architecture),
        gguf_keys=_gguf_keys,
        hf_tensors=_hf_tensors,
        gguf_tensors=_gguf_tensors,
        layer_names=_NAMES,
    )


# -- Hugging Face ----------------------------------------------------------------------------------


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(architecture, text_fields(config, where))
    nested = {**config, "text_config": keys.values} if config.get("text_config") else keys.values
    result = config_from_hf(architecture, nested, tensors, where)
    table = keys.table("rope_parameters") or Fields({}, where)
    kind = table.text("rope_type", table.text("type", "default"))
    mscale = 0.0 if kind == "default" else _number(table, "mscale_all_dim", 1e3)
    factor = table.number("factor", 1.0) if mscale else 1.0
    latent = LatentConfig(
        rank=keys.integer("kv_lora_rank", high=_MAX_RANK),
        query_rank=keys.integer("q_lora_rank", 0, low=0, high=_MAX_RANK),
        nope_dim=keys.integer("qk_nope_head_dim", high=_MAX_DIM),
        rotated_dim=2 * len(result.rope.inv_freq),
        value_dim=keys.integer("v_head_dim", high=_MAX_DIM),
        norm_eps=_LATENT_EPS,
        score_log_multiplier=_LOG_UNIT * mscale,
        indexer=_indexer(
            architecture, keys, "index_n_heads", "index_head_dim", "index_topk",
            2 * len(result.rope.inv_freq),
        ),
    )  # fmt: skip
    temperature = None
    if _number(table, "llama_4_scaling_beta", 1e3):
        length = table.integer("original_max_position_embeddings", result.context_length)
        temperature = QueryTemperature(table.number("llama_4_scaling_beta"), length)
    result = replace(
        result,
        rope=replace(result.rope, interleaved=keys.boolean("rope_interleave", True)),
        moe=moe_from_hf(keys, result.num_layers),
        query_temperature=temperature,
    )
    return _completed(result, latent, factor)


def _hf_keys(architecture: str, keys: Fields) -> Fields:
    """`keys` with absent ones filled in, in Llama's terms where Llama has any."""
    # An absent rank is a default, a null one means that queries come straight from the input.
    values = {**_HF_DEFAULTS[architecture], **keys.values}
    table = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(table, Mapping):
        raise keys.bad("rope_parameters" if values.get("rope_parameters") else "rope_scaling",
                       "a table")  # fmt: skip
    # Llama's head is here the rotated part of one, all of which is rotated.
    table = {k: v for k, v in table.items() if k != "partial_rotary_factor"}
    values |= {"rope_parameters": table, "head_dim": values.get("qk_rope_head_dim")}
    values["num_key_value_heads"] = values.get("num_attention_heads")
    for name in ("rope_scaling", "partial_rotary_factor", "layer_types"):
        values.pop(name, None)
    return replace(keys, values=values)


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    layers = keys.integer("num_hidden_layers", high=4096)
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        bias = _BIAS.fullmatch(name)
        renamed[f"blk.{int(bias[1])}.exp_probs_b.bias" if bias else name] = tensor
    heads = keys.integer("num_attention_heads", high=1 << 16)
    nope = keys.integer("qk_nope_head_dim", high=_MAX_DIM)
    return latent_heads(_within(renamed, layers), heads, nope, keys.where)


def _within(tensors: Tensors, layers: int) -> Tensors:
    """Without the layers behind the last, which guess more than one token at a time."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if (found := _IN_LAYER.fullmatch(name)) is None or int(found[1]) < layers
    }


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    layers = _gguf_layers(keys, tensors)
    rotated = keys.integer("rope.dimension_count", 64, low=2, high=_MAX_DIM)
    head_dim, value_dim = _gguf_head(keys)
    if head_dim <= rotated:
        raise keys.bad("rope.dimension_count", f"below the size of a head ({head_dim})")
    shared = {
        k: v for k, v in metadata.items() if k not in {keys.prefix + name for name in _TRANSLATED}
    }
    changes = {"attention.key_length": rotated, "rope.dimension_count": rotated,
               "block_count": layers}  # fmt: skip
    shared |= {keys.prefix + name: value for name, value in changes.items()}
    result = config_from_gguf(architecture, shared, tensors, where)
    logs = _number(keys, "rope.scaling.yarn_log_multiplier", 1e3)
    yarn = keys.text("rope.scaling.type", "none") == "yarn"
    factor = keys.number("rope.scaling.factor", 1.0) if yarn else 1.0
    magnitude = result.rope.magnitude
    if yarn and logs and "rope.scaling.yarn_attn_factor" not in keys:
        magnitude *= _magnitude(architecture, factor, logs) / yarn_magnitude(factor)
    straight = "blk.0.attn_q.weight" in tensors  # some files without such a rank name one
    latent = LatentConfig(
        rank=keys.integer("attention.kv_lora_rank", high=_MAX_RANK),
        query_rank=0 if straight else keys.integer("attention.q_lora_rank", 0, low=0,
                                                   high=_MAX_RANK),
        nope_dim=head_dim - rotated,
        rotated_dim=rotated,
        value_dim=value_dim,
        norm_eps=result.norm_eps,
        score_log_multiplier=logs if yarn else 0.0,
        indexer=_indexer(
            architecture, keys, "attention.indexer.head_count", "attention.indexer.key_length",
            "attention.indexer.top_k", rotated,
        ),
    )  # fmt: skip
    temperature = None
    if _number(keys, "attention.temperature_scale", 1e3):
        trained = keys.integer("rope.scaling.original_context_length", result.context_length)
        length = keys.integer("attention.temperature_length", trained)
        temperature = QueryTemperature(keys.number("attention.temperature_scale"), length)
    result = replace(
        result,
        rope=replace(result.rope, interleaved=True, magnitude=magnitude),
        moe=moe_from_gguf(keys, tensors, layers),
        query_temperature=temperature,
    )
    return _completed(result, latent, factor)


def _magnitude(architecture: str, factor: float, logs: float) -> float:
    """Of the rotation, in a file that names a multiplier and hence scales its scores: readers
    take `mscale` for 1, but DeepSeek V2's, which has its other value, too."""
    mscale_all = logs / _LOG_UNIT
    mscale = mscale_all if architecture == "deepseek2" else 1.0
    return yarn_magnitude(factor, mscale) / yarn_magnitude(factor, mscale_all)


def _gguf_head(keys: Fields) -> tuple[int, int]:
    """Dimensions of a head's query and value."""
    suffix = "_mla" if "attention.key_length_mla" in keys else ""
    return (
        keys.integer(f"attention.key_length{suffix}", high=_MAX_DIM),
        keys.integer(f"attention.value_length{suffix}", high=_MAX_DIM),
    )


def _gguf_layers(keys: Fields, tensors: Mapping[str, RawTensor]) -> int:
    """`block_count` without the layers, counted by some writers, that guess further tokens."""
    layers = keys.integer("block_count", high=4096)
    more = keys.integer("nextn_predict_layers", 0, low=0, high=layers - 1)
    present = {int(found[1]) for name in tensors if (found := _IN_LAYER.fullmatch(name))}
    while more and present:
        last = layers - 1
        if last in present and f"blk.{last}.nextn.eh_proj.weight" not in tensors:
            break
        layers, more = last, more - 1  # there, or taken away by `_gguf_tensors`
    return layers


def _gguf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    tensors = _within(tensors, _gguf_layers(keys, tensors))
    head_dim, _ = _gguf_head(keys)
    rotated = keys.integer("rope.dimension_count", 64, low=2, high=_MAX_DIM)
    heads = keys.integer("attention.head_count", high=1 << 16)
    return latent_heads(tensors, heads, max(1, head_dim - rotated), keys.where)


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` reads the same."""
    assert isinstance(config, LatentModelConfig)
    latent = config.latent
    if not config.rope.interleaved:
        raise UnsupportedModelError(
            "GGUF has no key for latent attention that rotates halves (rope_interleave = false)"
        )
    keys: dict[str, Any] = {
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": latent.rank,
        "attention.key_length": latent.rank + latent.rotated_dim,
        "attention.value_length": latent.rank,
        "attention.key_length_mla": latent.nope_dim + latent.rotated_dim,
        "attention.value_length_mla": latent.value_dim,
    }
    if latent.query_rank:
        keys["attention.q_lora_rank"] = latent.query_rank
    logs = latent.score_log_multiplier
    if logs:
        keys["rope.scaling.yarn_log_multiplier"] = logs
        implied = config.architecture == "deepseek2" or bool(np.isclose(logs, _LOG_UNIT))
        if implied and np.isclose(config.rope.magnitude, 1.0):
            keys["rope.scaling.yarn_attn_factor"] = None
    if config.query_temperature is not None:
        keys["attention.temperature_scale"] = config.query_temperature.scale
        keys["attention.temperature_length"] = config.query_temperature.length
    if latent.indexer is not None:
        keys["attention.indexer.head_count"] = latent.indexer.num_heads
        keys["attention.indexer.key_length"] = latent.indexer.head_dim
        keys["attention.indexer.top_k"] = latent.indexer.top_k
    return keys | (deepseek_moe_keys(config.moe) if config.moe is not None else {})


# -- both ------------------------------------------------------------------------------------------


def _completed(config: ModelConfig, latent: LatentConfig, factor: float) -> ModelConfig:
    head_dim = latent.nope_dim + latent.rotated_dim
    stretch = yarn_magnitude(factor, latent.score_log_multiplier / _LOG_UNIT)
    config = replace(
        config, head_dim=head_dim, num_kv_heads=1, attention_scale=head_dim**-0.5 * stretch**2
    )
    return with_latent(config, latent)


def _indexer(
    architecture: str, keys: Fields, heads: str, dim: str, count: str, rotated: int
) -> IndexerConfig | None:
    if architecture != "deepseek32":
        return None
    return IndexerConfig(
        num_heads=keys.integer(heads, high=1 << 12),
        head_dim=keys.integer(dim, low=rotated, high=_MAX_DIM),
        top_k=keys.integer(count),
    )


def _number(keys: Fields, name: str, high: float) -> float:
    """0 where it is absent or 0."""
    return keys.number(name, 0.0, zero=True, high=high)
