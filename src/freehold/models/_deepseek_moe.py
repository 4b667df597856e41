# SPDX-License-Identifier: Apache-2.0
"""`MoeConfig` of the DeepSeek line: shared experts, groups, scores by softmax or sigmoid, a bias
of the choice.

Sources: DeepSeek V2 (arXiv:2405.04434), V3 (arXiv:2412.19437), their published code, transformers
5.23 and llama.cpp of October 2026. Two things are in no file: what groups are judged by, and that
a file without a gating key means softmax.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from freehold.errors import UnsupportedModelError
from freehold.models._fields import Fields, shown
from freehold.models.base import MoeConfig
from freehold.ops import RawTensor, RoutingSpec, Scoring

_MAX_EXPERTS = 4096
_MAX_ALL_EXPERTS = 1 << 17  # of all layers: the largest models have a quarter as many
_MAX_FFN = 1 << 24
_GATING: dict[int, Scoring] = {0: "softmax", 1: "softmax", 2: "sigmoid", 4: "sqrt_softplus"}
_GATING_KEYS = {"softmax": 1, "sigmoid": 2, "sqrt_softplus": 4}
_BIAS = re.compile(r"blk\.\d{1,9}\.exp_probs_b\.bias")
# transformers saves the number of experts under the names of other families, too.
_COUNTS = ("n_routed_experts", "num_local_experts", "num_experts")
# Of Hugging Face model types: how experts score when no key says so, how groups are judged.
_SIGMOID = ("deepseek_v3", "deepseek_v32")
_BY_BEST_TWO = (*_SIGMOID, "mistral4")


def moe_from_gguf(keys: Fields, tensors: Mapping[str, RawTensor], layers: int) -> MoeConfig | None:
    """The experts `keys` speak of, or None. Raises MalformedFileError naming the key, and
    UnsupportedModelError for a way to score that freehold lacks."""
    if not keys.integer("expert_count", 0, low=0, high=_MAX_EXPERTS):
        return None
    count = _count(keys, "expert_count", layers)
    gating = keys.integer("expert_gating_func", 0, low=0)
    if gating not in _GATING:
        raise UnsupportedModelError(
            f"{keys.where} scores experts by function {gating} ({keys.prefix}expert_gating_func), "
            "which freehold does not know"
        )
    scoring, biased = _GATING[gating], any(_BIAS.fullmatch(name) for name in tensors)
    expert_ffn = keys.integer("expert_feed_forward_length", high=_MAX_FFN)
    shared = keys.integer("expert_shared_count", 0, low=0, high=_MAX_FFN // expert_ffn)
    dense = keys.integer("leading_dense_block_count", 0, low=0, high=layers)
    by_two = scoring != "softmax" or biased or keys.prefix == "mistral4."
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=expert_ffn,
        routing=_routing(
            keys,
            count,
            top_k="expert_used_count",
            groups="expert_group_count",
            kept="expert_group_used_count",
            normalise=keys.boolean("expert_weights_norm", False),
            # Converters write 0 where there is none.
            scale=keys.number("expert_weights_scale", 0.0, zero=True) or 1.0,
            scoring=scoring,
            group_score="sum2" if by_two else "max",
        ),
        shared_ffn_size=shared * expert_ffn,
        dense_layers=frozenset(range(dense)),
        selection_bias=biased,
    )


def moe_from_hf(keys: Fields, layers: int) -> MoeConfig | None:
    """The experts of a config.json, or None. Errors as `moe_from_gguf`."""
    kind = keys.text("model_type", "")
    name = next((name for name in _COUNTS if name in keys), None)
    if name is None:
        return None
    count = _count(keys, name, layers)
    scoring = keys.text("scoring_func", "sigmoid" if kind in _SIGMOID else "softmax")
    method = keys.text("topk_method", "noaux_tc" if kind in _SIGMOID else "greedy")
    if scoring not in ("softmax", "sigmoid"):
        raise UnsupportedModelError(f"{keys.where} scores experts by {shown(scoring)}")
    if method not in ("greedy", "group_limited_greedy", "noaux_tc"):
        raise UnsupportedModelError(f"{keys.where} chooses experts by {shown(method)}")
    # A greedy choice has no groups, whatever their keys say; Mistral's has, unnamed.
    grouped = method != "greedy" or kind == "mistral4"
    expert_ffn = keys.integer("moe_intermediate_size", high=_MAX_FFN)
    shared = keys.integer("n_shared_experts", 0, low=0, high=_MAX_FFN // expert_ffn)
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=expert_ffn,
        routing=_routing(
            keys,
            count,
            top_k="num_experts_per_tok",
            groups="n_group" if grouped else "",
            kept="topk_group" if grouped else "",
            normalise=keys.boolean("norm_topk_prob", kind in _BY_BEST_TWO),
            scale=keys.number("routed_scaling_factor", 1.0),
            scoring="sigmoid" if scoring == "sigmoid" else "softmax",
            group_score="sum2" if kind in _BY_BEST_TWO or method == "noaux_tc" else "max",
        ),
        shared_ffn_size=shared * expert_ffn,
        dense_layers=_dense_layers(keys, layers),
        selection_bias=method == "noaux_tc",
    )


def deepseek_moe_keys(moe: MoeConfig) -> dict[str, Any]:
    """What GGUF metadata say of `moe`, without the architecture's prefix; None takes away what
    other families would write."""
    routing, dense = moe.routing, len(moe.dense_layers)
    if moe.dense_layers != frozenset(range(dense)):
        raise UnsupportedModelError("GGUF has no key for dense layers behind layers of experts")
    keys: dict[str, Any] = {
        "expert_count": moe.num_experts,
        "expert_used_count": routing.top_k,
        "expert_feed_forward_length": moe.expert_ffn_size,
        "expert_shared_feed_forward_length": None,
        "expert_shared_count": moe.shared_ffn_size // moe.expert_ffn_size,
        "expert_weights_norm": routing.normalise,
        "expert_weights_scale": routing.scale,
        "expert_gating_func": _GATING_KEYS[routing.scoring],
        "leading_dense_block_count": dense,
    }
    if routing.num_groups > 1:
        keys["expert_group_count"] = routing.num_groups
        keys["expert_group_used_count"] = routing.top_groups
    return keys


def _routing(keys: Fields, count: int, *, top_k: str, groups: str, kept: str, **more: Any) -> Any:
    number = keys.integer(groups, 1, low=0, high=count) or 1 if groups else 1
    if count % number:
        raise keys.bad(groups, f"a divisor of the {count} experts")
    top = keys.integer(kept, number, low=0, high=number) or number if kept else 1
    reachable = count // number * top
    return RoutingSpec(
        top_k=keys.integer(top_k, high=reachable), num_groups=number, top_groups=top, **more
    )


def _count(keys: Fields, key: str, layers: int) -> int:
    # Tables of expected tensors and lists of matrices grow with the product.
    return keys.integer(key, high=min(_MAX_EXPERTS, max(1, _MAX_ALL_EXPERTS // layers)))


def _dense_layers(keys: Fields, layers: int) -> frozenset[int]:
    kinds = keys.get("mlp_layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers:
            raise keys.bad("mlp_layer_types", f"a list of {layers} names")
        if any(kind not in ("dense", "sparse") for kind in kinds):
            raise keys.bad("mlp_layer_types", 'a list of "dense" and "sparse"')
        return frozenset(i for i, kind in enumerate(kinds) if kind == "dense")
    usual = 3 if keys.text("model_type", "") in _SIGMOID else 0
    first = keys.integer("first_k_dense_replace", usual, low=0)
    step = keys.integer("moe_layer_freq", 1)
    return frozenset(i for i in range(layers) if i < first or i % step)
