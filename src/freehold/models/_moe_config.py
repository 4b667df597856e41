# SPDX-License-Identifier: Apache-2.0
"""`MoeConfig` from GGUF metadata and from a Hugging Face ``config.json``.

Knows the keys of the families that route by softmax; which of them renormalise by default is in
no GGUF file and stands here.
"""

from __future__ import annotations

from collections.abc import Mapping

from freehold.errors import UnsupportedModelError
from freehold.models._fields import Fields
from freehold.models.base import MoeConfig
from freehold.ops import RawTensor, RoutingSpec

# GGUF architectures with experts, and whether they divide the chosen weights by their sum.
_NORMALISES = {"gemma4": True, "llama": True, "qwen2moe": False, "qwen3moe": True}
_ALWAYS = ("qwen2moe", "qwen3moe")  # never without experts
_MAX_EXPERTS = 4096
_MAX_ALL_EXPERTS = 1 << 17  # of all layers: the largest models have a quarter as many
MAX_FFN = 1 << 24
# Keys of other ways to route, and the values that mean this one.
_UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "expert_gating_func": (0, 1),  # unknown, softmax
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "interleave_moe_layer_step": (0, 1),
}


def moe_from_gguf(
    keys: Fields, tensors: Mapping[str, RawTensor], layers: int, ffn: int
) -> MoeConfig | None:
    """The experts that `keys` speak of, or None. Raises MalformedFileError naming the key, and
    UnsupportedModelError for an architecture without experts or for another way to route."""
    arch = keys.prefix.rstrip(".")
    count = keys.integer("expert_count", 0, low=0, high=_MAX_EXPERTS)
    if not count and arch not in _ALWAYS:
        return None
    if arch not in _NORMALISES:
        raise UnsupportedModelError(
            f"{keys.where} is a mixture of {count} experts ({keys.prefix}expert_count), "
            "which this architecture does not have here"
        )
    for key, neutral in _UNSUPPORTED.items():
        if key in keys and keys.integer(key, low=0) not in neutral:
            raise UnsupportedModelError(
                f"{keys.where} sets {keys.prefix}{key}, which this architecture does not have here"
            )
    count = expert_count(keys, "expert_count", layers)
    used = keys.integer("expert_used_count", high=count)
    expert_ffn, shared_ffn = ffn, 0
    if arch != "llama":
        # Files from before these keys existed: what the models of then had.
        expert_ffn = keys.integer("expert_feed_forward_length", max(1, ffn // used), high=MAX_FFN)
    if arch == "qwen2moe":
        shared_ffn = keys.integer("expert_shared_feed_forward_length", ffn, high=MAX_FFN)
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=expert_ffn,
        routing=RoutingSpec(
            top_k=used,
            normalise=keys.boolean("expert_weights_norm", _NORMALISES[arch]),
            # Converters write 0 where there is none.
            scale=keys.number("expert_weights_scale", 0.0, zero=True) or 1.0,
        ),
        shared_ffn_size=shared_ffn,
        shared_is_gated=shared_ffn > 0,
        # No key says so: a dense layer is one that holds the matrices of one.
        dense_layers=frozenset(i for i in range(layers) if f"blk.{i}.ffn_gate.weight" in tensors),
    )


def moe_from_hf(architecture: str, keys: Fields, layers: int, ffn: int) -> MoeConfig | None:
    """The experts of `architecture` (GGUF's name for it), or None. Errors as `moe_from_gguf`."""
    mixtral = keys.text("model_type", "") == "mixtral"
    if not mixtral and architecture not in _ALWAYS:
        return None
    # transformers 5 saves some families' `num_experts` under the other name.
    name = "num_local_experts" if "num_local_experts" in keys else "num_experts"
    count = expert_count(keys, name, layers)
    shared = architecture == "qwen2moe"
    return MoeConfig(
        num_experts=count,
        expert_ffn_size=ffn if mixtral else keys.integer("moe_intermediate_size", high=MAX_FFN),
        routing=RoutingSpec(
            top_k=keys.integer("num_experts_per_tok", high=count),
            normalise=mixtral or keys.boolean("norm_topk_prob", False),
        ),
        shared_ffn_size=(
            keys.integer("shared_expert_intermediate_size", high=MAX_FFN) if shared else 0
        ),
        shared_is_gated=shared,
        dense_layers=frozenset() if mixtral else _dense_layers(keys, layers),
    )


def moe_keys(architecture: str, moe: MoeConfig) -> dict[str, object]:
    """What GGUF metadata say of `moe`, without the architecture's prefix."""
    keys: dict[str, object] = {
        "expert_count": moe.num_experts,
        "expert_used_count": moe.routing.top_k,
    }
    if architecture != "llama":
        keys["expert_feed_forward_length"] = moe.expert_ffn_size
    if moe.shared_ffn_size:
        keys["expert_shared_feed_forward_length"] = moe.shared_ffn_size
    normalise = moe.routing.normalise
    if normalise != _NORMALISES.get(architecture, normalise):
        keys["expert_weights_norm"] = moe.routing.normalise
    return keys


def expert_count(keys: Fields, key: str, layers: int) -> int:
    # Tables of expected tensors and lists of matrices grow with the product.
    return keys.integer(key, high=min(_MAX_EXPERTS, max(1, _MAX_ALL_EXPERTS // layers)))


def _dense_layers(keys: Fields, layers: int) -> frozenset[int]:
    """Layers the configuration names, and all but every ``decoder_sparse_step``-th."""
    step = keys.integer("decoder_sparse_step", 1)
    named = keys.get("mlp_only_layers") or []
    if not isinstance(named, list) or any(type(i) is not int for i in named):
        raise keys.bad("mlp_only_layers", "a list of layer numbers")
    return frozenset(i for i in range(layers) if i in set(named) or (i + 1) % step)
