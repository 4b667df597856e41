# SPDX-License-Identifier: Apache-2.0
"""Gemma 4 from GGUF metadata, and back: keys that end in ``_swa``, and lists along the layers.

`_gemma3n_config` takes from here what both say alike. Sources: `_gemma4_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._fields import Fields
from freehold.models._gemma4_config import (
    GLOBAL_BASE,
    LOCAL_BASE,
    MAX_EXPERTS,
    MAX_HEAD_DIM,
    MAX_WIDTH,
    Gemma4Config,
    finished,
    widened,
)
from freehold.models._gguf_config import config_from_gguf
from freehold.models.base import ModelConfig, MoeConfig
from freehold.models.rope import RopeScaling, inverse_frequencies, plain_base
from freehold.ops import RawTensor, RopeSpec, RoutingSpec

_UNTURNED = 1e30  # GGUF divides a frequency by this where a pair shall not rotate


def gemma4_from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    layers = keys.integer("block_count", high=4096)
    if "attention.sliding_window_pattern" not in keys:
        raise keys.bad("attention.sliding_window_pattern", "")
    heads = keys.integer("attention.head_count", high=1 << 16)
    kv_heads = keys.integers("attention.head_count_kv", layers, heads, high=heads)
    ffn = keys.integers("feed_forward_length", layers, high=1 << 24)
    wide = keys.integer("attention.key_length", high=MAX_HEAD_DIM)
    narrow = keys.integer("attention.key_length_swa", wide, high=MAX_HEAD_DIM)
    for suffix, dim in (("", wide), ("_swa", narrow)):
        if keys.integer(f"attention.value_length{suffix}", dim) != dim:
            raise keys.bad(f"attention.value_length{suffix}", f"equal to the key's ({dim})")
    base = read_plain_gguf(architecture, metadata, keys, tensors, where, {
        "attention.key_length": narrow,
        "attention.value_length": narrow,
        "attention.head_count_kv": kv_heads[0],
        "feed_forward_length": ffn[0],
        "rope.dimension_count": narrow,
    })  # fmt: skip
    full = base.full_attention_layers if base.sliding_window else frozenset(range(layers))
    for i, count in enumerate(kv_heads):
        if heads % count:
            raise keys.bad("attention.head_count_kv", f"divisors of the {heads} heads (layer {i})")
    local = next((i for i in range(layers) if i not in full), 0)
    width = keys.integer("embedding_length_per_layer_input", 0, low=0, high=MAX_WIDTH)
    result = widened(
        base,
        Gemma4Config,
        num_kv_heads=kv_heads[local],
        rope=_gguf_global_rope(keys, tensors, wide),
        local_rope=gguf_local_rope(keys, narrow),
        moe=_gguf_experts(keys, tensors, layers),
        head_dims=tuple(wide if i in full else narrow for i in range(layers)),
        kv_heads=kv_heads,
        ffn_sizes=ffn,
        shared_layers=keys.integer("attention.shared_kv_layers", 0, low=0, high=layers - 1),
        keys_are_values=without_values(tensors, layers),
        per_layer_width=width,
    )
    return finished(result, keys.number("final_logit_softcapping", 0.0, zero=True), where)


# Keys that the shared reader does not know, refuses, or takes for the same in every layer.
_OWN_KEYS = (
    "attention.scale", "final_logit_softcapping", "rope.freq_base", "expert_count",
    "expert_used_count", "expert_feed_forward_length",
)  # fmt: skip


def read_plain_gguf(
    architecture: str,
    metadata: Mapping[str, object],
    keys: Fields,
    tensors: Mapping[str, RawTensor],
    where: str,
    changes: Mapping[str, object],
) -> ModelConfig:
    """What the shared reader makes of the keys all families have; `changes` are set first."""
    if keys.text("rope.scaling.type", "none") != "none":
        raise UnsupportedModelError(
            f"{keys.where} sets {keys.prefix}rope.scaling.type, which this architecture "
            "does not have here"
        )
    plain = {k: v for k, v in metadata.items() if k not in {keys.prefix + n for n in _OWN_KEYS}}
    plain |= {keys.prefix + name: value for name, value in changes.items()}
    rest = {name: tensor for name, tensor in tensors.items() if name != "rope_freqs.weight"}
    return config_from_gguf(architecture, plain, rest, where)


def without_values(tensors: Mapping[str, RawTensor], layers: int) -> frozenset[int]:
    """Layers with keys and no values: no key says so, a tensor is not there."""
    return frozenset(
        i
        for i in range(layers)
        if f"blk.{i}.attn_k.weight" in tensors and f"blk.{i}.attn_v.weight" not in tensors
    )


def _gguf_global_rope(keys: Fields, tensors: Mapping[str, RawTensor], dim: int) -> RopeSpec:
    if dim % 2 or keys.integer("rope.dimension_count", dim) != dim:
        raise keys.bad("rope.dimension_count", f"the even size of a head ({dim})")
    base = keys.number("rope.freq_base", GLOBAL_BASE, above=1.0)
    plain = inverse_frequencies(dim, base, RopeScaling())
    stored = tensors.get("rope_freqs.weight")
    if stored is None:
        return RopeSpec(plain, False)
    if stored.shape != (dim // 2,):
        raise MalformedFileError(
            f"{keys.where}: rope_freqs.weight has shape {stored.shape}, not ({dim // 2},)"
        )
    divisors = stored.to_f32().astype(np.float64)
    if not (np.isfinite(divisors).all() and (divisors > 0).all()):
        raise MalformedFileError(
            f"{keys.where}: rope_freqs.weight holds numbers that are not above 0"
        )
    return RopeSpec(np.where(divisors < _UNTURNED / 2, plain / divisors, 0.0), False)


def gguf_local_rope(keys: Fields, head_dim: int) -> RopeSpec:
    dim = keys.integer("rope.dimension_count_swa", head_dim, low=2, high=max(2, head_dim))
    if dim % 2 or dim > head_dim:
        raise keys.bad("rope.dimension_count_swa", f"an even number from 2 to {head_dim}")
    base = keys.number("rope.freq_base_swa", LOCAL_BASE, above=1.0)
    return RopeSpec(inverse_frequencies(dim, base, RopeScaling()), False)


def _gguf_experts(keys: Fields, tensors: Mapping[str, RawTensor], layers: int) -> MoeConfig | None:
    count = keys.integer("expert_count", 0, low=0, high=MAX_EXPERTS)
    if not count:
        return None
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=keys.integer("expert_feed_forward_length", high=1 << 24),
        routing=RoutingSpec(keys.integer("expert_used_count", high=count), True),
        dense_layers=frozenset(
            i for i in range(layers) if tensors and f"blk.{i}.ffn_gate_inp.weight" not in tensors
        ),
    )


def gemma4_gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `gemma4_from_gguf` and llama.cpp read the same."""
    assert isinstance(config, Gemma4Config)
    layers = range(config.num_layers)
    full = max(config.full_attention_layers, default=0)
    keys = layer_keys(config)
    keys |= {
        "attention.key_length": config.head_dims[full],
        "attention.value_length": config.head_dims[full],
        "attention.key_length_swa": config.head_dim,
        "attention.value_length_swa": config.head_dim,
        "rope.dimension_count": config.head_dims[full],
        "rope.dimension_count_swa": 2 * len(config.local_rope.inv_freq),  # type: ignore[union-attr]
    }
    if config.final_softcap:
        keys["final_logit_softcapping"] = config.final_softcap
    if any(config.kv_heads[i] != config.kv_heads[0] for i in layers):
        keys["attention.head_count_kv"] = list(config.kv_heads)
    return keys


def layer_keys(config: Gemma4Config) -> dict[str, Any]:
    """Keys that Gemma 3n and 4 share."""
    assert config.local_rope is not None
    keys: dict[str, Any] = {
        "embedding_length_per_layer_input": config.per_layer_width,
        "attention.shared_kv_layers": config.shared_layers,
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": [
            bool(config.window(i)) for i in range(config.num_layers)
        ],
        "rope.freq_base_swa": plain_base(config.local_rope),
    }
    if len(set(config.ffn_sizes)) > 1:
        keys["feed_forward_length"] = list(config.ffn_sizes)
    return keys
