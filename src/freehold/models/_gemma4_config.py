# SPDX-License-Identifier: Apache-2.0
"""Keys of Gemma 4, and the constants that are in no file.

What differs between layers is spelled out per layer in `Gemma4Config`, whichever way a file says
it: Hugging Face by kind of layer or by exceptions per layer, GGUF by keys that end in ``_swa`` and
by lists. `_gemma3n_config` builds upon it.

Sources: Gemma 4 as in Hugging Face transformers 5.23 and llama.cpp of October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields, shown
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._made_tensors import padded_rows
from freehold.models.base import ModelConfig, MoeConfig
from freehold.models.rope import Frequencies, RopeScaling, inverse_frequencies
from freehold.ops import KVLayerSpec, RawTensor, RopeSpec, RoutingSpec

LOCAL_BASE, GLOBAL_BASE = 10_000.0, 1_000_000.0
MAX_WIDTH = 1 << 20
_MAX_HEAD_DIM = 1 << 14
_MAX_EXPERTS = 4096
_UNTURNED = 1e30  # GGUF divides a frequency by this where a pair shall not rotate
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 4,
    "head_dim": 256, "global_head_dim": 512, "max_position_embeddings": 131072,
    "sliding_window": 512, "tie_word_embeddings": True, "num_kv_shared_layers": 0,
}  # fmt: skip
_PERIOD = 6  # the last of so many layers sees everything, where a config.json names no kinds
LAYER_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}
_OWN_NAMES = {
    "pre_feedforward_layernorm_2": "pre_ffw_norm_2",
    "post_feedforward_layernorm_1": "post_ffw_norm_1",
    "post_feedforward_layernorm_2": "post_ffw_norm_2",
    "layer_scalar": "layer_output_scale",
    "router.proj": "ffn_gate_inp",
    "router.scale": "ffn_gate_inp.scale",
    "router.per_expert_scale": "ffn_down_exps.scale",
    "experts.gate_up_proj": "ffn_gate_up_exps",
    "experts.down_proj": "ffn_down_exps",
}


@dataclass(frozen=True, slots=True)
class Gemma4Config(ModelConfig):
    """Sizes that layers do not share. `head_dim` and `num_kv_heads` of the base are those of the
    layers with a window, `ffn_size` is that of the first layer; `rope` is for layers without a
    window, `local_rope` for the others."""

    head_dims: tuple[int, ...] = ()  # of each layer
    kv_heads: tuple[int, ...] = ()  # of each layer
    ffn_sizes: tuple[int, ...] = ()  # of each layer
    shared_layers: int = 0  # so many last layers have no keys and values of their own
    keys_are_values: frozenset[int] = frozenset()  # layers that project both at once
    per_layer_width: int = 0  # of each layer's own embedding; 0 = there is none

    @property
    def first_shared(self) -> int:
        """The first layer that reads another's keys; the number of layers where none does."""
        return self.num_layers - self.shared_layers

    def source(self, layer: int) -> int:
        """The layer whose keys and values `layer` reads: its own, or those of the last layer of
        its kind that has any."""
        if layer < self.first_shared:
            return layer
        alike = (i for i in range(self.first_shared) if self._alike(i, layer))
        return max(alike, default=-1)

    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """Shape of the cache of each layer that has keys of its own; they come first."""
        return tuple(
            KVLayerSpec(self.kv_heads[i], self.head_dims[i], self.head_dims[i], self.window(i))
            for i in range(self.first_shared)
        )

    def _alike(self, one: int, other: int) -> bool:
        return bool(self.window(one)) == bool(self.window(other))


def check_sharing(config: Gemma4Config, where: str) -> None:
    """Raises MalformedFileError where a layer shall share keys that no layer has."""
    for layer in range(config.first_shared, config.num_layers):
        source = config.source(layer)
        if source < 0 or (config.kv_heads[source], config.head_dims[source]) != (
            config.kv_heads[layer], config.head_dims[layer]
        ):  # fmt: skip
            raise MalformedFileError(
                f"{where}: layer {layer} shares the keys of an earlier layer of its kind, "
                "but there is none of its shape"
            )


def widened(base: ModelConfig, kind: type[Gemma4Config], **more: Any) -> Any:
    """`base` as a `kind`, with `more` fields set."""
    values = {f.name: getattr(base, f.name) for f in fields(ModelConfig)}
    return kind(**{**values, **more})


def proportional(head_dim: int, base: float, share: float, factor: float) -> Frequencies:
    """Frequencies of a whole head of which only the first `share` rotates: the rest are 0."""
    plain = inverse_frequencies(head_dim, base, RopeScaling()) / factor
    plain[int(share * head_dim // 2) :] = 0.0
    return plain


# -- Hugging Face ----------------------------------------------------------------------------------


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
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
    return finished(result, keys.number("final_logit_softcapping", 0.0, above=-1e-9), where)


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


def finished(config: Gemma4Config, final_softcap: float, where: str) -> Gemma4Config:
    """`config` with the constants of the family; checked."""
    result = replace(
        config,
        activation="gelu_tanh",
        embedding_scale=config.hidden_size**0.5,  # not rounded to the weights' type
        attention_scale=1.0,
        final_softcap=final_softcap,
    )
    check_sharing(result, where)
    return result


def _hf_keys(keys: Fields) -> Fields:
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
    dims = [keys.integer("head_dim", high=_MAX_HEAD_DIM)] * layers
    kv = [keys.integer("num_key_value_heads", high=heads)] * layers
    exceptions = keys.table("per_layer_config")
    if exceptions is None:
        wide = keys.integer("global_head_dim", high=_MAX_HEAD_DIM)
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
            dims[i] = one.integer("head_dim", dims[i], high=_MAX_HEAD_DIM)
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
    count = keys.integer("num_experts", high=_MAX_EXPERTS)
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


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    layers = keys.integer("block_count", high=4096)
    if "attention.sliding_window_pattern" not in keys:
        raise keys.bad("attention.sliding_window_pattern", "")
    heads = keys.integer("attention.head_count", high=1 << 16)
    kv_heads = keys.integers("attention.head_count_kv", layers, heads, high=heads)
    ffn = keys.integers("feed_forward_length", layers, high=1 << 24)
    wide = keys.integer("attention.key_length", high=_MAX_HEAD_DIM)
    narrow = keys.integer("attention.key_length_swa", wide, high=_MAX_HEAD_DIM)
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
    return finished(result, keys.number("final_logit_softcapping", 0.0, above=-1e-9), where)


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
    count = keys.integer("expert_count", 0, low=0, high=_MAX_EXPERTS)
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


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` and llama.cpp read the same."""
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
        "rope.freq_base_swa": _plain_base(config.local_rope),
    }
    if len(set(config.ffn_sizes)) > 1:
        keys["feed_forward_length"] = list(config.ffn_sizes)
    return keys


def _plain_base(rope: RopeSpec) -> float:
    count = len(rope.inv_freq)
    return float(rope.inv_freq[1]) ** -count if count > 1 else LOCAL_BASE


GEMMA4_DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    hf_tensors=every_token_embedded,
    gguf_keys=_gguf_keys,
    layer_names={**LAYER_NAMES, **_OWN_NAMES},
)
