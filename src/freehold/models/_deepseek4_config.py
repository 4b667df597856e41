# SPDX-License-Identifier: Apache-2.0
"""Keys of DeepSeek V4, in Hugging Face's words, old and new, and in GGUF's.

Translates into the terms of the shared readers, twice: for the layers with nothing but a window
and for those with entries, whose rotation has another base and YaRN. YaRN does not scale scores
here: the vendor leaves its magnitude out.

Sources: DeepSeek V4 as in transformers 5.23; keys and tensors of published GGUF files of 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._deepseek4_names import gguf_names, within
from freehold.models._deepseek4_sizes import CompressedConfig, DeepSeek4Config, LayerKind
from freehold.models._deepseek_moe import deepseek_moe_keys
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields, shown
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._moe_config import MAX_FFN, expert_count
from freehold.models.base import ModelConfig, MoeConfig
from freehold.ops import RawTensor, RopeSpec, RoutingSpec, Scoring

_MAX_DIM, _MAX_RANK, _MAX_RATIO = 1 << 14, 1 << 16, 1 << 12
_SPARSE_RATIO = 4  # GGUF tells kinds of layers by it
_KINDS: dict[str, LayerKind] = {
    "sliding_attention": "sliding",
    "compressed_sparse_attention": "sparse",
    "heavily_compressed_attention": "heavy",
}
_RATES = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
_SCORING: dict[str, Scoring] = {
    "sqrtsoftplus": "sqrt_softplus", "sigmoid": "sigmoid", "softmax": "softmax",
}  # fmt: skip
_GATING: dict[int, Scoring] = {1: "softmax", 2: "sigmoid", 4: "sqrt_softplus"}
# What a config.json that leaves a key out means.
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 129280, "hidden_size": 4096, "moe_intermediate_size": 2048,
    "num_hidden_layers": 43, "num_attention_heads": 64, "head_dim": 512, "q_lora_rank": 1024,
    "num_experts_per_tok": 6, "n_routed_experts": 256, "n_shared_experts": 1,
    "routed_scaling_factor": 1.5, "max_position_embeddings": 1048576, "rope_theta": 10000.0,
    "compress_rope_theta": 160000.0, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6,
    "swiglu_limit": 10.0, "sliding_window": 128, "o_groups": 8, "o_lora_rank": 1024,
    "index_n_heads": 64, "index_head_dim": 128, "index_topk": 512, "rms_norm_eps": 1e-6,
    "scoring_func": "sqrtsoftplus", "tie_word_embeddings": False,
}  # fmt: skip
# Keys that mean something else to the shared readers, or nothing.
_HF_OWN = ("n_routed_experts", "num_local_experts", "num_experts", "layer_types", "rope_scaling",
           "sliding_window", "partial_rotary_factor")  # fmt: skip
_GGUF_OWN = ("attention.sliding_window", "rope.scaling.attn_factor",
             "rope.scaling.yarn_log_multiplier")  # fmt: skip


# -- Hugging Face ----------------------------------------------------------------------------------


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _with_defaults(text_fields(config, where))
    if keys.boolean("attention_bias", False):
        raise UnsupportedModelError(f"{where} has biases in its attention (attention_bias)")
    plain, stretched = _rope_tables(keys)
    values = {k: v for k, v in keys.values.items() if k not in _HF_OWN}
    values |= {"intermediate_size": keys.get("moe_intermediate_size"), "num_key_value_heads": 1}
    result = config_from_hf(architecture, {**values, "rope_parameters": plain}, tensors, where)
    other = config_from_hf(architecture, {**values, "rope_parameters": stretched}, tensors, where)
    layers = result.num_layers
    kinds, ratios = _hf_layers(keys, layers)
    hashed = _hf_hashed(keys, layers)
    scoring = keys.text("scoring_func")
    if scoring not in _SCORING:
        raise UnsupportedModelError(f"{where} scores experts by {shown(scoring)}")
    count = expert_count(keys, _expert_key(keys), layers)
    ffn = keys.integer("moe_intermediate_size", high=MAX_FFN)
    moe = MoeConfig(
        num_experts=count,
        expert_ffn_size=ffn,
        routing=RoutingSpec(
            top_k=keys.integer("num_experts_per_tok", high=count),
            normalise=True,
            scale=keys.number("routed_scaling_factor"),
            scoring=_SCORING[scoring],
        ),
        shared_ffn_size=ffn * keys.integer("n_shared_experts", low=1, high=1),
        selection_bias=True,
    )
    compressed = CompressedConfig(
        kinds=kinds,
        ratios=ratios,
        window=keys.integer("sliding_window"),
        query_rank=keys.integer("q_lora_rank", high=_MAX_RANK),
        output_groups=keys.integer("o_groups", high=1 << 16),
        output_rank=keys.integer("o_lora_rank", high=_MAX_RANK),
        rotated_dim=_rotated(keys),
        compressed_rope=_interleaved(other.rope),
        compressed_base=float(stretched["rope_theta"]),
        index_heads=keys.integer("index_n_heads", high=1 << 12),
        index_dim=keys.integer("index_head_dim", low=_rotated(keys), high=_MAX_DIM),
        index_top_k=keys.integer("index_topk"),
        streams=keys.integer("hc_mult", high=16),
        rounds=keys.integer("hc_sinkhorn_iters", high=1000),
        stream_eps=keys.number("hc_eps", high=1.0),
        hashed_layers=hashed,
        limit=keys.number("swiglu_limit", zero=True, high=1e6),
    )
    return _completed(result, other.context_length, moe, compressed, keys, "o_groups")


def _with_defaults(keys: Fields) -> Fields:
    given = {k: v for k, v in keys.values.items() if v is not None}
    return replace(keys, values={**_HF_DEFAULTS, **given})


def _expert_key(keys: Fields) -> str:
    # transformers saves the number of experts under the names of other families, too.
    given = ("num_local_experts", "num_experts")
    return next((name for name in given if name in keys), "n_routed_experts")


def _hf_keys(keys: Fields) -> Fields:
    """`keys` with absent ones filled in, and one table of rotations: YaRN beside the plain base."""
    keys = _with_defaults(keys)
    plain, stretched = _rope_tables(keys)
    table = {**stretched, "rope_theta": plain["rope_theta"]}
    values = {k: v for k, v in keys.values.items() if k not in ("rope_scaling", "rope_theta")}
    return replace(keys, values={**values, "rope_parameters": table})


def _rope_tables(keys: Fields) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rotation of plain layers, and of those with entries, in the words of today's config.json."""
    table = keys.table("rope_parameters") or keys.table("rope_scaling") or Fields({}, keys.where)
    main, other = table.table("main"), table.table("compress")
    if main is not None and other is not None:
        plain, stretched = dict(main.values), dict(other.values)
    else:
        plain = {"rope_type": "default"}
        stretched = {k: v for k, v in table.values.items() if k not in ("main", "compress")}
        stretched["rope_theta"] = keys.get("compress_rope_theta")
    plain.setdefault("rope_theta", keys.get("rope_theta"))
    stretched.setdefault("rope_theta", keys.get("compress_rope_theta"))
    if stretched.get("rope_type", stretched.get("type")) == "yarn":
        stretched.setdefault("attention_factor", 1.0)
    head_dim = keys.integer("head_dim", high=_MAX_DIM)
    # A quarter of a dimension more, so that the product is never rounded down.
    share = min(1.0, (_rotated(keys) + 0.25) / head_dim)
    return (
        {**plain, "partial_rotary_factor": share},
        {**stretched, "partial_rotary_factor": share},
    )


def _rotated(keys: Fields) -> int:
    """Dimensions at the end of a head that are rotated."""
    head_dim = keys.integer("head_dim", low=2, high=_MAX_DIM)
    if "qk_rope_head_dim" in keys:
        dim = keys.integer("qk_rope_head_dim", low=2, high=head_dim)
    else:
        dim = int(head_dim * keys.number("partial_rotary_factor", 64 / 512, high=1.0))
    if dim < 2 or dim % 2:
        raise keys.bad("qk_rope_head_dim", f"an even number from 2 to {head_dim}")
    return dim


def _hf_layers(keys: Fields, layers: int) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    if "layer_types" not in keys and "compress_ratios" in keys:
        return _layers_of_ratios(keys, "compress_ratios", layers)
    names = keys.get("layer_types")
    if names is None:
        pair = ("heavily_compressed_attention", "compressed_sparse_attention")
        names = [pair[i > 1 and i % 2] for i in range(layers)]
    if not isinstance(names, list) or len(names) < layers:
        raise keys.bad("layer_types", f"a list of {layers} names")
    for name in names[:layers]:
        if not isinstance(name, str) or name not in _KINDS:
            raise UnsupportedModelError(f"{keys.where} has layers of type {shown(name)}")
    table = keys.table("compress_rates") or Fields({}, keys.where)
    rates = {"sliding_attention": 0}
    for name, usual in _RATES.items():
        rates[name] = table.integer(name, usual, low=2, high=_MAX_RATIO)
    kinds = tuple(_KINDS[name] for name in names[:layers])
    return kinds, tuple(rates[name] for name in names[:layers])


def _layers_of_ratios(
    keys: Fields, key: str, layers: int
) -> tuple[tuple[LayerKind, ...], tuple[int, ...]]:
    """Kinds and ratios out of a list with one number per layer, and perhaps one more for each
    layer that guesses further tokens."""
    given = keys.get(key)
    given = given.tolist() if isinstance(given, np.ndarray) else given
    if not isinstance(given, list | tuple) or len(given) < layers:
        raise keys.bad(key, f"a list of {layers} whole numbers")
    ratios = tuple(given[:layers])
    known = all(
        isinstance(r, int) and not isinstance(r, bool) and r != 1 and 0 <= r <= _MAX_RATIO
        for r in ratios
    )
    if not known:
        raise keys.bad(key, f"a list of 0 and numbers from 2 to {_MAX_RATIO}")
    names: dict[int, LayerKind] = {0: "sliding", _SPARSE_RATIO: "sparse"}
    return tuple(names.get(ratio, "heavy") for ratio in ratios), ratios


def _hf_hashed(keys: Fields, layers: int) -> frozenset[int]:
    names = keys.get("mlp_layer_types")
    if names is None:
        return frozenset(range(min(layers, keys.integer("num_hash_layers", 3, low=0))))
    known = ("hash_moe", "moe")
    if not isinstance(names, list) or len(names) < layers or any(n not in known for n in names):
        raise keys.bad("mlp_layer_types", f'a list of {layers} names, "hash_moe" or "moe"')
    return frozenset(i for i, name in enumerate(names[:layers]) if name == "hash_moe")


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    return gguf_names(tensors, keys.integer("num_hidden_layers", high=4096), keys.where)


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    layers = _gguf_layers(keys, tensors)
    ffn = keys.integer("expert_feed_forward_length", high=MAX_FFN)
    own = {keys.prefix + name for name in _GGUF_OWN}
    shared = {
        k: v
        for k, v in metadata.items()
        if k not in own and not k.startswith(keys.prefix + "expert")
    }
    shared |= {keys.prefix + "feed_forward_length": ffn, keys.prefix + "block_count": layers}
    # Its magnitude is in no key: there is none.
    shared[keys.prefix + "rope.scaling.yarn_attn_factor"] = 1.0
    unscaled = {k: v for k, v in shared.items() if not k.startswith(keys.prefix + "rope.scaling.")}
    base = keys.number("attention.compress_rope_freq_base", above=1.0)
    result = config_from_gguf(architecture, unscaled, tensors, where)
    shared[keys.prefix + "rope.freq_base"] = base
    other = config_from_gguf(architecture, shared, tensors, where)
    kinds, ratios = _layers_of_ratios(keys, "attention.compress_ratios", layers)
    rotated = 2 * len(result.rope.inv_freq)
    compressed = CompressedConfig(
        kinds=kinds,
        ratios=ratios,
        window=keys.integer("attention.sliding_window"),
        query_rank=keys.integer("attention.q_lora_rank", high=_MAX_RANK),
        output_groups=keys.integer("attention.output_group_count", high=1 << 16),
        output_rank=keys.integer("attention.output_lora_rank", high=_MAX_RANK),
        rotated_dim=rotated,
        compressed_rope=_interleaved(other.rope),
        compressed_base=base,
        index_heads=keys.integer("attention.indexer.head_count", high=1 << 12),
        index_dim=keys.integer("attention.indexer.key_length", low=rotated, high=_MAX_DIM),
        index_top_k=keys.integer("attention.indexer.top_k"),
        streams=keys.integer("hyper_connection.count", high=16),
        rounds=keys.integer("hyper_connection.sinkhorn_iterations", 20, high=1000),
        stream_eps=keys.number("hyper_connection.epsilon", 1e-6, high=1.0),
        hashed_layers=frozenset(range(keys.integer("hash_layer_count", 0, low=0, high=layers))),
        limit=_gguf_limit(keys, layers),
    )
    moe = _gguf_moe(keys, layers, ffn)
    return _completed(
        result, other.context_length, moe, compressed, keys, "attention.output_group_count"
    )


def _gguf_moe(keys: Fields, layers: int, ffn: int) -> MoeConfig:
    count = expert_count(keys, "expert_count", layers)
    gating = keys.integer("expert_gating_func", 4, low=0)
    if gating not in _GATING:
        raise UnsupportedModelError(
            f"{keys.where} scores experts by function {gating} ({keys.prefix}expert_gating_func), "
            "which freehold does not know"
        )
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=ffn,
        routing=RoutingSpec(
            top_k=keys.integer("expert_used_count", high=count),
            normalise=keys.boolean("expert_weights_norm", True),
            scale=keys.number("expert_weights_scale", 1.0),
            scoring=_GATING[gating],
        ),
        shared_ffn_size=ffn * keys.integer("expert_shared_count", 1, low=1, high=1),
        selection_bias=True,
    )


def _gguf_limit(keys: Fields, layers: int) -> float:
    """The one limit of gate and up in all layers, of chosen and shared experts."""
    limits: set[float] = set()
    for key in ("swiglu_clamp_exp", "swiglu_clamp_shexp"):
        given = keys.get(key)
        given = given.tolist() if isinstance(given, np.ndarray) else given
        for value in given[:layers] if isinstance(given, list | tuple) else [given]:
            if value is not None:
                one = Fields({key: value}, keys.where, "")
                limits.add(one.number(key, zero=True, high=1e6))
    if len(limits) > 1:
        raise UnsupportedModelError(
            f"{keys.where} limits the experts of its layers differently "
            f"({keys.prefix}swiglu_clamp_exp), which freehold cannot run"
        )
    return limits.pop() if limits else 0.0


def _gguf_layers(keys: Fields, tensors: Mapping[str, RawTensor]) -> int:
    """`block_count` without layers, counted by some writers, that guess further tokens."""
    layers = keys.integer("block_count", high=4096)
    more = keys.integer("nextn_predict_layers", 0, low=0, high=layers - 1)
    while more and tensors:
        blk = f"blk.{layers - 1}."
        if blk + "attn_kv.weight" in tensors and blk + "nextn.eh_proj.weight" not in tensors:
            break
        layers, more = layers - 1, more - 1
    return layers


def _gguf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    return within(tensors, _gguf_layers(keys, tensors))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` reads the same."""
    assert isinstance(config, DeepSeek4Config)
    assert config.moe is not None
    sizes, where = config.compressed, "GGUF has no key for"
    for kind, ratio in zip(sizes.kinds, sizes.ratios, strict=True):
        if (kind == "sparse") != (ratio == _SPARSE_RATIO):
            raise UnsupportedModelError(f"{where} {kind} layers of {ratio} positions per entry")
    hashed = len(sizes.hashed_layers)
    if sizes.hashed_layers != frozenset(range(hashed)):
        raise UnsupportedModelError(f"{where} layers that choose by token behind others")
    if sizes.compressed_rope.magnitude != 1.0:
        raise UnsupportedModelError(f"{where} a magnitude of the rotation (attention_factor)")
    return deepseek_moe_keys(config.moe) | {
        "rope.scaling.yarn_attn_factor": None,
        "attention.sliding_window": sizes.window,
        "attention.q_lora_rank": sizes.query_rank,
        "attention.output_group_count": sizes.output_groups,
        "attention.output_lora_rank": sizes.output_rank,
        "attention.compress_ratios": list(sizes.ratios),
        "attention.compress_rope_freq_base": sizes.compressed_base,
        "attention.indexer.head_count": sizes.index_heads,
        "attention.indexer.key_length": sizes.index_dim,
        "attention.indexer.top_k": sizes.index_top_k,
        "hyper_connection.count": sizes.streams,
        "hyper_connection.sinkhorn_iterations": sizes.rounds,
        "hyper_connection.epsilon": sizes.stream_eps,
        "hash_layer_count": hashed,
        "swiglu_clamp_exp": [sizes.limit] * config.num_layers,
    }


# -- both ------------------------------------------------------------------------------------------


def _completed(
    config: ModelConfig, context: int, moe: MoeConfig, sizes: CompressedConfig, keys: Fields,
    group_key: str,
) -> DeepSeek4Config:  # fmt: skip
    if config.num_heads % sizes.output_groups:
        raise keys.bad(group_key, f"a divisor of the {config.num_heads} heads")
    if config.num_kv_heads != 1:
        raise MalformedFileError(f"{keys.where}: DeepSeek V4 has one key head")
    config = replace(config, rope=_interleaved(config.rope), moe=moe, context_length=context)
    shared = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return DeepSeek4Config(**shared, compressed=sizes)


def _interleaved(rope: RopeSpec) -> RopeSpec:
    return replace(rope, interleaved=True)


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    gguf_keys=_gguf_keys,
    hf_tensors=_hf_tensors,
    gguf_tensors=_gguf_tensors,
)
