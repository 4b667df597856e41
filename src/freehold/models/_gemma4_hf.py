# SPDX-License-Identifier: Apache-2.0
"""Gemma 4 from a Hugging Face ``config.json``: by kind of layer, or by exceptions per layer.

`_gemma3n_config` takes from here what both say alike. Sources: `_gemma4_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.errors import UnsupportedModelError
from freehold.models._family import Tensors
from freehold.models._fields import Fields, shown
from freehold.models._gemma4_config import (
    GLOBAL_BASE,
    LOCAL_BASE,
    MAX_EXPERTS,
    MAX_HEAD_DIM,
    MAX_WIDTH,
    Gemma4Config,
    finished,
    proportional,
    widened,
)
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._made_tensors import padded_rows
from freehold.models.base import ModelConfig, MoeConfig
from freehold.models.rope import RopeScaling, inverse_frequencies
from freehold.ops import RawTensor, RopeSpec, RoutingSpec

_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 256, "global_head_dim": 512, "max_position_embeddings": 131072,
    "sliding_window": 512, "tie_word_embeddings": True, "num_kv_shared_layers": 0,
}  # fmt: skip
_PERIOD = 6  # the last of so many layers sees everything, where a config.json names no kinds


def gemma4_from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = gemma4_hf_keys(text_fields(config, where))
    layers = keys.integer("num_hidden_layers", high=4096)
    full = _full_layers(keys, layers)
    head_dims, kv_heads = _heads(keys, layers, full)
    local = next((i for i in range(layers) if i not in full), 0)
    base = read_plain_hf(
        architecture, config, keys, tensors, where,
        head_dim=head_dims[local], num_key_value_heads=kv_heads[local],
    )  # fmt: skip
    shared = keys.integer("num_kv_shared_layers", 0, low=0, high=layers - 1)
    double = keys.boolean("use_double_wide_mlp", False)
    ffn = tuple(
        base.ffn_size * (2 if double and i >= layers - shared else 1) for i in range(layers)
    )
    width = keys.integer("hidden_size_per_layer_input", _default_width(keys), low=0, high=MAX_WIDTH)
    result = widened(
        base,
        Gemma4Config,
        rope=_hf_global_rope(keys, head_dims[max(full, default=0)]),
        local_rope=_hf_local_rope(keys, head_dims[local]),
        full_attention_layers=full,
        moe=_hf_experts(keys),
        head_dims=head_dims,
        kv_heads=kv_heads,
        ffn_sizes=ffn,
        shared_layers=shared,
        keys_are_values=full if keys.boolean("attention_k_eq_v", False) else frozenset(),
        per_layer_width=width,
    )
    return finished(result, keys.number("final_logit_softcapping", 0.0, zero=True), where)


def read_plain_hf(
    architecture: str,
    config: Mapping[str, object],
    keys: Fields,
    tensors: Mapping[str, RawTensor],
    where: str,
    **changes: object,
) -> ModelConfig:
    """What the shared reader makes of the keys all families have; `changes` are set first.

    Raises UnsupportedModelError for what transformers can switch on and no published model has."""
    if config.get("text_config") and config.get("model_type") not in _WRAPPERS:
        raise UnsupportedModelError(
            f"{where}: the language model inside {shown(config.get('model_type'))} "
            "is not known to run alone"
        )
    if keys.get("use_bidirectional_attention") not in (None, False, "vision"):
        raise UnsupportedModelError(
            f"{keys.where} is an encoder (use_bidirectional_attention), which freehold cannot run"
        )
    if keys.boolean("attention_bias", False):
        raise UnsupportedModelError(
            f"{keys.where} has biases in its attention (attention_bias), "
            "which this family does not have here"
        )
    activation = keys.text("hidden_activation", "gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise UnsupportedModelError(
            f"{keys.where} uses the activation {activation[:40]!r} where this family has "
            "gelu_pytorch_tanh"
        )
    plain = {k: v for k, v in keys.values.items() if k not in _NOT_SHARED} | changes
    nested = {**config, "text_config": plain} if config.get("text_config") else plain
    return config_from_hf(architecture, nested, tensors, where)


# Multimodal models whose language model is causal for text.
_WRAPPERS = ("gemma4", "gemma4_unified", "gemma3n")
_NOT_SHARED = (
    "hidden_act", "hidden_activation", "rope_parameters", "rope_scaling", "rope_theta",
    "partial_rotary_factor",
)  # fmt: skip


def gemma4_hf_keys(keys: Fields) -> Fields:
    """`keys` with absent ones filled in; `rope_parameters` become those of layers without a
    window, which GGUF has plain keys for, the others' are put beside them."""
    given = {k: v for k, v in keys.values.items() if v is not None}
    return rope_split(replace(keys, values={**_HF_DEFAULTS, **given}))


def rope_split(keys: Fields) -> Fields:
    """`rope_parameters` by kind of layer as two tables, the second under `LOCAL_ROPE`."""
    table = keys.table("rope_parameters")
    parts = {}
    for kind in ("full_attention", "sliding_attention"):
        part = table.table(kind) if table is not None else None
        parts[kind] = dict(part.values) if part is not None else {}
    values = {k: v for k, v in keys.values.items() if k not in ("rope_scaling", "rope_theta")}
    values["rope_parameters"] = {"rope_theta": GLOBAL_BASE, **parts["full_attention"]}
    values[LOCAL_ROPE] = {"rope_theta": LOCAL_BASE, **parts["sliding_attention"]}
    return replace(keys, values=values)


LOCAL_ROPE = "local_rope_parameters"


def _default_width(keys: Fields) -> int:
    """Of per-layer embeddings where the key is absent: only one kind of config has them."""
    return 0 if keys.text("model_type", "") == "gemma4_unified_text" else 256


def _full_layers(keys: Fields, layers: int) -> frozenset[int]:
    kinds = keys.get("layer_types")
    if kinds is None:
        return frozenset((*range(_PERIOD - 1, layers, _PERIOD), layers - 1))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise keys.bad("layer_types", f"a list of {layers} names")
    # The reference sees to it that the last layer sees everything.
    return frozenset(i for i, k in enumerate(kinds) if k == "full_attention") | {layers - 1}


def _heads(
    keys: Fields, layers: int, full: frozenset[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Head sizes and key-value heads of each layer.

    Published files name those of layers without a window apart, transformers 5.23 saves a table
    of exceptions."""
    heads = keys.integer("num_attention_heads", high=1 << 16)
    dims = [keys.integer("head_dim", high=MAX_HEAD_DIM)] * layers
    kv = [keys.integer("num_key_value_heads", high=heads)] * layers
    exceptions = keys.table("per_layer_config")
    if exceptions is None:
        wide = keys.integer("global_head_dim", high=MAX_HEAD_DIM)
        few = kv[0]
        if keys.boolean("attention_k_eq_v", False):
            few = keys.integer("num_global_key_value_heads", kv[0], high=heads)
        for i in full:
            dims[i], kv[i] = wide, few
    else:
        for i in range(layers):
            one = exceptions.table(str(i))
            if one is None:
                continue
            unknown = sorted(set(one.values) - {"head_dim", "num_key_value_heads"})
            if unknown:
                raise UnsupportedModelError(
                    f"{one.where} changes {unknown[0][:40]!r}, which freehold takes to be the same "
                    "in every layer"
                )
            dims[i] = one.integer("head_dim", dims[i], high=MAX_HEAD_DIM)
            kv[i] = one.integer("num_key_value_heads", kv[i], high=heads)
    for i in range(layers):
        if heads % kv[i]:
            raise keys.bad("num_key_value_heads", f"a divisor of the {heads} heads")
    for kind in (full, frozenset(range(layers)) - full):
        if len({dims[i] for i in kind}) > 1 or any(dims[i] % 2 for i in kind):
            raise UnsupportedModelError(
                f"{keys.where} has heads of odd or different sizes in layers of the same kind"
            )
    return tuple(dims), tuple(kv)


def _hf_global_rope(keys: Fields, head_dim: int) -> RopeSpec:
    table = keys.table("rope_parameters")
    assert table is not None
    kind = table.text("rope_type", "proportional")
    if kind not in ("proportional", "default"):
        raise UnsupportedModelError(
            f"{table.where} has a rotation of type {kind[:40]!r}",
            hint="known: proportional, default",
        )
    base = table.number("rope_theta", GLOBAL_BASE, above=1.0)
    if kind == "default":
        return RopeSpec(proportional(head_dim, base, 1.0, 1.0), False)
    share = table.number("partial_rotary_factor", 1.0, high=1.0)
    return RopeSpec(proportional(head_dim, base, share, table.number("factor", 1.0)), False)


def _hf_local_rope(keys: Fields, head_dim: int) -> RopeSpec:
    table = keys.table(LOCAL_ROPE)
    assert table is not None
    if table.text("rope_type", "default") != "default":
        raise UnsupportedModelError(f"{table.where} stretches the rotation of layers with a window")
    base = table.number("rope_theta", LOCAL_BASE, above=1.0)
    return RopeSpec(inverse_frequencies(head_dim, base, RopeScaling()), False)


def _hf_experts(keys: Fields) -> MoeConfig | None:
    if not keys.boolean("enable_moe_block", False):
        return None
    count = keys.integer("num_experts", high=MAX_EXPERTS)
    name = "expert_intermediate_size" if "expert_intermediate_size" in keys else None
    ffn = keys.integer(name or "moe_intermediate_size", high=1 << 24)
    return MoeConfig(count, ffn, RoutingSpec(keys.integer("top_k_experts", high=count), True))


def every_token_embedded(tensors: Tensors, keys: Fields) -> Tensors:
    """With a row of per-layer embeddings for every token: those past the table have the first."""
    name = "per_layer_token_embd.weight"
    table, rows = tensors.get(name), keys.integer("vocab_size")
    stored = keys.integer("vocab_size_per_layer_input", rows)
    if table is None or table.shape[:1] != (stored,) or len(table.shape) != 2 or stored >= rows:
        return tensors
    return {**tensors, name: padded_rows(table, rows)}
