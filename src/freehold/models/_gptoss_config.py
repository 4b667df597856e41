# SPDX-License-Identifier: Apache-2.0
"""Keys of gpt-oss, the constants that are in no file, and its tensors as GGUF names them.

Sources: transformers 5.23 and llama.cpp of October 2026 for keys and names, OpenAI's own
implementation for the ramp of YaRN, which runs between fractional dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.errors import UnsupportedModelError
from freehold.formats.derived_tensor import DerivedTensor
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._moe_config import MAX_FFN, expert_count
from freehold.models._turned_experts import PickedColumns, picked_stack, turned_stack
from freehold.models.base import ModelConfig, MoeConfig
from freehold.ops import RawTensor, RoutingSpec

_ALPHA, _LIMIT = 1.702, 7.0  # of the activation; part of what "swiglu_oai" means
_YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
# What a config.json that leaves a key out means.
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 201088, "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 36,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 150000.0,
    "num_local_experts": 128, "num_experts_per_tok": 4,
}  # fmt: skip
_LAYER_NAMES = {
    "self_attn.sinks": "attn_sinks",
    "post_attention_layernorm": "post_attention_norm",
    "mlp.router": "ffn_gate_inp",
}
_EVEN, _ODD, _ALL = slice(0, None, 2), slice(1, None, 2), slice(None)


# -- Hugging Face ----------------------------------------------------------------------------------


def _hf_keys(keys: Fields) -> Fields:
    """`keys` with absent ones filled in."""
    values = {**_HF_DEFAULTS, **{k: v for k, v in keys.values.items() if v is not None}}
    if "rope_parameters" not in values and "rope_scaling" not in values:
        values["rope_parameters"] = _YARN
    if "layer_types" not in values:
        layers = keys.integer("num_hidden_layers", _HF_DEFAULTS["num_hidden_layers"], high=4096)
        kinds = ("sliding_attention", "full_attention")
        values["layer_types"] = [kinds[i % 2] for i in range(layers)]
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
    if not keys.boolean("attention_bias", True):
        raise UnsupportedModelError(
            f"{where} has no biases in its attention (attention_bias), which gpt-oss has"
        )
    for key, usual in (("swiglu_alpha", _ALPHA), ("swiglu_limit", _LIMIT)):
        if keys.number(key, usual) != usual:
            raise UnsupportedModelError(f"{where} sets {key}, which is {usual:g} here")
    result = config_from_hf(architecture, keys.values, tensors, where)
    count = expert_count(keys, "num_local_experts", result.num_layers)
    moe = _moe(count, keys.integer("num_experts_per_tok", high=count), result.ffn_size)
    return replace(result, activation="swiglu_oai", moe=moe)


def _moe(count: int, used: int, ffn: int) -> MoeConfig:
    # The softmax over the chosen logits alone is that over all of them, divided by its sum.
    return MoeConfig(count, ffn, RoutingSpec(top_k=used, normalise=True), biases=True)


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """Gate and up, which alternate, apart; experts turned where they are stored input first."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, suffix = name.rpartition(".")
        blk, _, part = stem.rpartition(".")
        if part == "ffn_gate_up_exps":
            for half, kind in ((_EVEN, "gate"), (_ODD, "up")):
                result[f"{blk}.ffn_{kind}_exps.{suffix}"] = _experts(tensor, suffix, half, keys)
        elif part == "ffn_down_exps":
            result[name] = _experts(tensor, suffix, _ALL, keys)
        else:
            result[name] = tensor
    return result


def _experts(tensor: RawTensor, suffix: str, picked: slice, keys: Fields) -> RawTensor:
    if suffix == "bias":
        return tensor if picked == _ALL or not tensor.shape else PickedColumns(tensor, picked)
    # Widths may be equal, so the shape does not tell; but quantised ones are stored output first.
    stack = picked_stack if isinstance(tensor, DerivedTensor) else turned_stack
    return stack(tensor, picked, keys.where)


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    ffn = keys.integer("expert_feed_forward_length", high=MAX_FFN)
    shared = {k: v for k, v in metadata.items() if not k.startswith(f"{keys.prefix}expert_")}
    shared[f"{keys.prefix}feed_forward_length"] = ffn
    shared.setdefault(f"{keys.prefix}attention.sliding_window_pattern", 2)
    keys.integer("attention.sliding_window", low=0)  # no usual one
    result = config_from_gguf(architecture, shared, tensors, where)
    count = expert_count(keys, "expert_count", result.num_layers)
    used = keys.integer("expert_used_count", high=count)
    return replace(result, activation="swiglu_oai", moe=_moe(count, used, ffn))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {"attention.sliding_window": config.sliding_window}
    if config.full_attention_layers == frozenset(range(1, config.num_layers, 2)):
        # A number where one will do: not every reader takes the list of flags.
        keys["attention.sliding_window_pattern"] = 2
    return keys


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    gguf_keys=_gguf_keys,
    hf_tensors=_hf_tensors,
    layer_names=_LAYER_NAMES,
)
