# SPDX-License-Identifier: Apache-2.0
"""Keys of Llama 4, the constants that are in no file, and its tensors as GGUF names them.

In GGUF `attention.sliding_window` is a switch: 0 turns off chunks, layers without rotation and the
temperature; absent, or any other number, means chunks of 8192. Nothing there names another chunk or
temperature; freehold writes the keys `attention.chunk_size`, `attention.temperature_scale` and
`attention.temperature_length` where a model departs from the usual.

Sources: transformers 5.23, llama.cpp of October 2026.
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
from freehold.models._turned_experts import picked_stack, turned_stack
from freehold.models.base import ModelConfig, MoeConfig
from freehold.models.rope import QueryTemperature
from freehold.ops import RawTensor, RoutingSpec

_CHUNK = 8192
_PERIOD = 4  # the last of so many layers sees everything and rotates nothing
_TEMPERATURE = QueryTemperature(scale=0.1, length=8192, offset=1, nope_only=True)
_WITHOUT_QK_NORM = 128  # experts of Maverick, whose queries and keys are not normed
# What a config.json that leaves a key out means.
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192,
    "intermediate_size_mlp": 16384, "num_hidden_layers": 48, "num_attention_heads": 40,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "num_experts_per_tok": 1,
    "num_local_experts": 16, "interleave_moe_layer_step": 1, "no_rope_layer_interval": _PERIOD,
    "attention_chunk_size": _CHUNK,
}  # fmt: skip
_LAYER_NAMES = {
    "feed_forward.router": "ffn_gate_inp",
    **{
        f"feed_forward.{prefix}{part}_proj": f"ffn_{part}{suffix}"
        for prefix, suffix in (("", ""), ("shared_expert.", "_shexp"))
        for part in ("gate", "up", "down")
    },
}


# -- Hugging Face ----------------------------------------------------------------------------------


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms, absent ones filled in; the experts' width is `expert_size` then."""
    values = {**_HF_DEFAULTS, **{k: v for k, v in keys.values.items() if v is not None}}
    values["expert_size"] = values["intermediate_size"]
    values["intermediate_size"] = values["intermediate_size_mlp"]
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
    nested = {**config, "text_config": keys.values} if config.get("text_config") else keys.values
    result = config_from_hf(architecture, nested, tensors, where)
    layers = result.num_layers
    unrotated, full = _unrotated(keys, layers), _full(keys, layers)
    chunked = len(full) < layers
    temperature = replace(
        _TEMPERATURE,
        scale=keys.number("attn_scale", _TEMPERATURE.scale, zero=True, high=1e3),
        length=keys.integer("floor_scale", _TEMPERATURE.length),
    )
    tuned = keys.get("attn_temperature_tuning")
    if not isinstance(tuned, int | None):  # published files have true, or 4
        raise keys.bad("attn_temperature_tuning", "true or false")
    tempered = tuned != 0 and temperature.scale > 0 and bool(unrotated)
    return replace(
        result,
        rope=replace(result.rope, interleaved=True),
        chunk=keys.integer("attention_chunk_size") if chunked else 0,
        full_attention_layers=full if chunked else frozenset(),
        nope_layers=unrotated,
        query_temperature=temperature if tempered else None,
        qk_norm_after_rope=keys.boolean("use_qk_norm", True),
        moe=_hf_moe(keys, layers),
    )


def _unrotated(keys: Fields, layers: int) -> frozenset[int]:
    """Layers without rotation: zeros of `no_rope_layers`, or every n-th."""
    flags = keys.get("no_rope_layers")
    if not flags:  # published files have an empty list
        period = keys.integer("no_rope_layer_interval", high=1 << 16)
        return frozenset(range(period - 1, layers, period))
    if not isinstance(flags, list) or len(flags) < layers or set(flags[:layers]) - {0, 1}:
        raise keys.bad("no_rope_layers", f"a list of {layers} ones and zeros")
    return frozenset(i for i in range(layers) if not flags[i])


def _full(keys: Fields, layers: int) -> frozenset[int]:
    """Layers that see more than their chunk: those without rotation where no key names them."""
    kinds = keys.get("layer_types")
    if kinds is None:
        return _unrotated(keys, layers)
    known = {"full_attention", "chunked_attention"}
    if not isinstance(kinds, list) or len(kinds) != layers or not all(k in known for k in kinds):
        raise keys.bad("layer_types", f"a list of {layers} out of {' and '.join(sorted(known))}")
    return frozenset(i for i, kind in enumerate(kinds) if kind == "full_attention")


def _hf_moe(keys: Fields, layers: int) -> MoeConfig | None:
    named = keys.get("moe_layers")
    if named is None:
        sparse = _every(keys.integer("interleave_moe_layer_step", low=0), layers)
    elif isinstance(named, list) and all(type(i) is int for i in named):
        sparse = frozenset(named)
    else:
        raise keys.bad("moe_layers", "a list of layer numbers")
    return _moe(keys, "num_local_experts", "num_experts_per_tok", "expert_size", sparse, layers)


def _every(step: int, layers: int) -> frozenset[int]:
    """The last of every `step` layers; none for 0."""
    return frozenset(range(step - 1, layers, step)) if step else frozenset()


def _moe(
    keys: Fields, count_key: str, used_key: str, width_key: str, sparse: frozenset[int], layers: int
) -> MoeConfig | None:
    dense = frozenset(range(layers)) - sparse
    if len(dense) == layers:
        return None
    count = expert_count(keys, count_key, layers)
    width = keys.integer(width_key, high=MAX_FFN)
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=width,
        routing=RoutingSpec(keys.integer(used_key, high=count), False, scoring="sigmoid"),
        shared_ffn_size=width,
        shared_is_gated=False,
        dense_layers=dense,
        weigh_input=True,
    )


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """Experts turned that are stored input first, which all unquantised ones are."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith(("ffn_gate_up_exps.weight", "ffn_down_exps.weight")):
            result[name] = tensor
            continue
        stack = picked_stack if isinstance(tensor, DerivedTensor) else turned_stack
        if name.endswith("ffn_down_exps.weight"):
            result[name] = stack(tensor, slice(None), keys.where)
            continue
        width = tensor.shape[1 if isinstance(tensor, DerivedTensor) else -1] // 2
        for kind, half in (("gate", slice(width)), ("up", slice(width, None))):
            result[name.replace("gate_up", kind)] = stack(tensor, half, keys.where)
    return result


# -- GGUF ------------------------------------------------------------------------------------------

_OWN = ("sliding_window", "sliding_window_pattern", "chunk_size", "temperature_scale",
        "temperature_length")  # fmt: skip


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    own = {f"{keys.prefix}attention.{name}" for name in _OWN}
    own |= {f"{keys.prefix}{name}" for name in ("interleave_moe_layer_step", "expert_gating_func")}
    shared = {
        k: v
        for k, v in metadata.items()
        if k not in own and not k.startswith(f"{keys.prefix}expert_")
    }
    result = config_from_gguf(architecture, shared, tensors, where)
    layers = result.num_layers
    experts = keys.integer("expert_count", 0, low=0)
    step = keys.integer("interleave_moe_layer_step", 1, low=0) if experts else 0
    result = replace(
        result,
        qk_norm_after_rope=experts != _WITHOUT_QK_NORM,
        moe=_moe(keys, "expert_count", "expert_used_count", "expert_feed_forward_length",
                 _every(step, layers), layers),
    )  # fmt: skip
    if keys.integer("attention.sliding_window", 1, low=0) == 0:
        return result  # MobileLLM: rotation and full attention everywhere
    period = keys.integer("attention.sliding_window_pattern", _PERIOD, high=1 << 16)
    scale = keys.number("attention.temperature_scale", _TEMPERATURE.scale, zero=True, high=1e3)
    length = keys.integer("attention.temperature_length", _TEMPERATURE.length)
    unrotated = _every(_PERIOD, layers)
    temperature = replace(_TEMPERATURE, scale=scale, length=length)
    return replace(
        result,
        chunk=keys.integer("attention.chunk_size", _CHUNK),
        full_attention_layers=_every(period, layers),
        nope_layers=unrotated,
        query_temperature=temperature if scale and unrotated else None,
    )


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` reads the same, and llama.cpp as well as it can.

    Raises UnsupportedModelError for what GGUF cannot say."""
    layers, moe = config.num_layers, config.moe
    sparse = frozenset(range(layers)) - moe.dense_layers if moe else frozenset()
    step = min(sparse, default=-1) + 1
    _need(sparse == _every(step, layers), "another choice of layers with experts than every n-th")
    keys: dict[str, Any] = {"interleave_moe_layer_step": step}
    if moe is None:
        keys["expert_feed_forward_length"] = config.ffn_size  # no reader goes without
    normed = config.num_experts != _WITHOUT_QK_NORM
    _need(config.qk_norm_after_rope == normed, "normed queries and keys for 128 experts alone")
    if not config.chunk and not config.nope_layers:
        return keys | {"attention.sliding_window": 0}
    full = config.full_attention_layers
    period = min(full, default=layers) + 1
    _need(
        config.chunk > 0 and full == _every(period, layers)
        and config.nope_layers == _every(_PERIOD, layers),
        "another choice of layers without chunks and rotation than every n-th",
    )  # fmt: skip
    usual = _every(_PERIOD, layers)
    if full != usual:
        keys["attention.sliding_window_pattern"] = period
    if config.chunk != _CHUNK:
        keys["attention.chunk_size"] = config.chunk
    if config.nope_layers and config.query_temperature != _TEMPERATURE:
        temperature = config.query_temperature
        keys["attention.temperature_scale"] = temperature.scale if temperature else 0.0
        if temperature:
            keys["attention.temperature_length"] = temperature.length
    return keys


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise UnsupportedModelError(f"GGUF has no key for a Llama 4 with {what}")


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    gguf_keys=_gguf_keys,
    hf_tensors=_hf_tensors,
    layer_names=_LAYER_NAMES,
)
