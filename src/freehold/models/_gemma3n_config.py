# SPDX-License-Identifier: Apache-2.0
"""Keys of Gemma 3n, and the constants that are in no file.

What it has in common with Gemma 4 (per-layer embeddings, layers that share keys) is read there.

Sources: Gemma 3n as in Hugging Face transformers 5.23 and llama.cpp of October 2026. They differ in
how the sparse gate takes a standard deviation; freehold follows the former, the model's own.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._expert_tensors import ExpertStack
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields
from freehold.models._gemma4_config import (
    GLOBAL_BASE,
    LAYER_NAMES,
    LOCAL_BASE,
    MAX_WIDTH,
    Gemma4Config,
    finished,
    widened,
)
from freehold.models._gemma4_gguf import (
    gguf_local_rope,
    layer_keys,
    read_plain_gguf,
)
from freehold.models._gemma4_hf import (
    LOCAL_ROPE,
    every_token_embedded,
    read_plain_hf,
    rope_split,
)
from freehold.models._hf_config import text_fields
from freehold.models.base import ModelConfig
from freehold.models.rope import RopeScaling, inverse_frequencies
from freehold.ops import RawTensor, RopeSpec

DENSE = -math.inf  # standard deviations above which a gate is kept, where all are
_PERIOD = 5  # the last of so many layers sees everything
_OWN_LAYERS = 20  # layers with keys of their own, in a file without the key that says so
_SPARSE_LAYERS, _SPARSITY = 10, 0.95  # of a file that says nothing of them
_FINAL_SOFTCAP = 30.0
_MAX_STREAMS = 64
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 262400, "hidden_size": 2048, "intermediate_size": 16384,
    "num_hidden_layers": 35, "num_attention_heads": 8, "num_key_value_heads": 2,
    "head_dim": 256, "max_position_embeddings": 32768, "sliding_window": 512,
    "tie_word_embeddings": True, "final_logit_softcapping": _FINAL_SOFTCAP,
    "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256,
    "num_kv_shared_layers": 15, "laurel_rank": 64, "altup_num_inputs": 4, "altup_active_idx": 0,
}  # fmt: skip
_OWN_NAMES = {
    "altup.correction_coefs": "altup_correct_coef",
    "altup.correct_output_scale": "altup_correct_scale",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
}
# One matrix per stream but the first; GGUF has one tensor of all.
_STREAM_MATRICES = {
    "altup_proj.weight": "model.altup_projections.{}.weight",
    "altup_unembd_proj.weight": "model.altup_unembed_projections.{}.weight",
}


@dataclass(frozen=True, slots=True)
class Gemma3nConfig(Gemma4Config):
    """With several copies of the residual, of which each layer runs one."""

    num_streams: int = 1
    active_stream: int = 0  # the one that passes through the layers
    laurel_rank: int = 1
    # Gates of each layer that stand out by less than so many standard deviations become zero.
    sparsity: tuple[float, ...] = ()


# -- Hugging Face ----------------------------------------------------------------------------------


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
    layers = keys.integer("num_hidden_layers", high=4096)
    ffn = keys.integers("intermediate_size", layers, high=1 << 24)
    base = read_plain_hf(
        architecture, config, keys, tensors, where,
        intermediate_size=ffn[0], layer_types=_kinds(keys, layers),
    )  # fmt: skip
    if not keys.boolean("altup_correct_scale", True):
        raise UnsupportedModelError(
            f"{keys.where} switches off altup_correct_scale, which every published model has on"
        )
    result = _complete(
        base,
        keys,
        _streams(keys, "altup_num_inputs", "altup_active_idx"),
        rope=_hf_rope(keys, "rope_parameters", base.head_dim),
        local_rope=_hf_rope(keys, LOCAL_ROPE, base.head_dim),
        ffn_sizes=ffn,
        shared_layers=keys.integer("num_kv_shared_layers", low=0, high=layers - 1),
        per_layer_width=keys.integer("hidden_size_per_layer_input", high=MAX_WIDTH),
        laurel_rank=keys.integer("laurel_rank", high=MAX_WIDTH),
        sparsity=_hf_sparsity(keys, layers),
    )
    return finished(result, keys.number("final_logit_softcapping", 0.0, zero=True), where)


def _complete(
    base: ModelConfig, keys: Fields, streams: tuple[int, int], **more: Any
) -> Gemma3nConfig:
    layers = base.num_layers
    made: Gemma3nConfig = widened(
        base,
        Gemma3nConfig,
        head_dims=(base.head_dim,) * layers,
        kv_heads=(base.num_kv_heads,) * layers,
        num_streams=streams[0],
        active_stream=streams[1],
        **more,
    )
    return made


def _streams(keys: Fields, count: str, active: str) -> tuple[int, int]:
    number = keys.integer(count, 4, low=2, high=_MAX_STREAMS)
    return number, keys.integer(active, 0, low=0, high=number - 1)


def _hf_keys(keys: Fields) -> Fields:
    """`keys` with absent ones filled in, both rotations in the spelling of transformers 5."""
    given = {k: v for k, v in keys.values.items() if v is not None}
    old = {
        "full_attention": {"rope_theta": given.get("rope_theta", GLOBAL_BASE)},
        "sliding_attention": {"rope_theta": given.get("rope_local_base_freq", LOCAL_BASE)},
    }
    scaling = keys.table("rope_scaling")
    if scaling is not None:
        old["full_attention"] |= scaling.values
    table = keys.table("rope_parameters")
    if table is not None:
        for kind, values in old.items():
            part = table.table(kind)
            old[kind] = values | dict(part.values) if part is not None else values
    values = {**_HF_DEFAULTS, **given, "rope_parameters": old}
    if "final_logit_softcapping" in keys.values:
        values["final_logit_softcapping"] = keys.get("final_logit_softcapping")  # null: none
    return rope_split(replace(keys, values=values))


def _kinds(keys: Fields, layers: int) -> Any:
    kinds = keys.get("layer_types")
    if kinds is not None:
        return kinds
    return ["full_attention" if i % _PERIOD == _PERIOD - 1 else "sliding_attention"
            for i in range(layers)]  # fmt: skip


def _hf_rope(keys: Fields, name: str, head_dim: int) -> RopeSpec:
    table = keys.table(name)
    assert table is not None
    kind = table.text("rope_type", table.text("type", "default"))
    if kind != "default":
        raise UnsupportedModelError(
            f"{table.where} stretches the rotation by {kind[:40]!r}, which this family does not "
            "have here"
        )
    base = table.number("rope_theta", above=1.0)
    if head_dim % 2:
        raise keys.bad("head_dim", "even")
    return RopeSpec(inverse_frequencies(head_dim, base, RopeScaling()), False)


def _hf_sparsity(keys: Fields, layers: int) -> tuple[float, ...]:
    shares = keys.get("activation_sparsity_pattern")
    if shares is None:
        sparse = _SPARSE_LAYERS if layers > _SPARSE_LAYERS else 0
        return _default_sparsity(layers, sparse)
    if not isinstance(shares, list) or len(shares) != layers:
        raise keys.bad("activation_sparsity_pattern", f"a list of {layers} shares")
    for share in shares:
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share < 1:
            raise keys.bad("activation_sparsity_pattern", "shares from 0 to below 1")
    return tuple(_deviations(float(share)) for share in shares)


def _deviations(share: float) -> float:
    """Standard deviations above the mean that `share` of a normal distribution lies below."""
    return statistics.NormalDist().inv_cdf(share) if share > 0 else DENSE


def _default_sparsity(layers: int, sparse: int) -> tuple[float, ...]:
    return (_deviations(_SPARSITY),) * sparse + (DENSE,) * (layers - sparse)


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """The matrices of the streams as one tensor each."""
    result = dict(tensors)
    streams, _ = _streams(keys, "altup_num_inputs", "altup_active_idx")
    for name, pattern in _STREAM_MATRICES.items():
        parts = [result.pop(pattern.format(i), None) for i in range(streams - 1)]
        whole = [part for part in parts if part is not None]
        if whole:
            result[name] = _stack(name, whole, streams - 1, keys.where)
    return every_token_embedded(result, keys)


def _stack(name: str, parts: list[RawTensor], count: int, where: str) -> RawTensor:
    first = parts[0]
    alike = all((p.shape, p.qtype) == (first.shape, first.qtype) for p in parts)
    if len(parts) != count or not alike or len(first.shape) != 2:
        raise MalformedFileError(
            f"{where}: {name} needs {count} matrices of one shape and type, "
            f"and {first.name[:100]} is one of {len(parts)}"
        )
    nbytes = sum(part.nbytes for part in parts)
    shape = (count, *first.shape)
    return ExpertStack(first.name, shape, first.qtype, nbytes, parts.__getitem__)


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    layers = keys.integer("block_count", high=4096)
    ffn = keys.integers("feed_forward_length", layers, high=1 << 24)
    changes: dict[str, object] = {"feed_forward_length": ffn[0]}
    if "attention.sliding_window_pattern" not in keys:
        changes["attention.sliding_window_pattern"] = _PERIOD
    base = read_plain_gguf(architecture, metadata, keys, tensors, where, changes)
    if base.head_dim % 2:
        raise keys.bad("attention.key_length", "even")
    base_frequency = keys.number("rope.freq_base", GLOBAL_BASE, above=1.0)
    plain = inverse_frequencies(base.head_dim, base_frequency, RopeScaling())
    default_shared = max(0, layers - _OWN_LAYERS)
    laurel = tensors.get("blk.0.laurel_l.weight")
    result = _complete(
        base,
        keys,
        _streams(keys, "altup.num_inputs", "altup.active_idx"),
        rope=RopeSpec(plain, False),
        local_rope=gguf_local_rope(keys, base.head_dim),
        ffn_sizes=ffn,
        shared_layers=keys.integer(
            "attention.shared_kv_layers", default_shared, low=0, high=layers - 1
        ),
        per_layer_width=keys.integer("embedding_length_per_layer_input", 256, high=MAX_WIDTH),
        # No key names it.
        laurel_rank=laurel.shape[0] if laurel is not None and len(laurel.shape) == 2 else 64,
        sparsity=_gguf_sparsity(keys, layers),
    )
    cap = keys.number("final_logit_softcapping", _FINAL_SOFTCAP, zero=True)
    return finished(result, cap, where)


def _gguf_sparsity(keys: Fields, layers: int) -> tuple[float, ...]:
    key = "activation_sparsity_scale"
    stored = keys.get(key)
    if stored is None:
        return _default_sparsity(layers, min(layers, _SPARSE_LAYERS))
    values = np.asarray(stored) if isinstance(stored, list | tuple | np.ndarray) else None
    if values is None or values.shape != (layers,) or values.dtype.kind not in "fiu":
        raise keys.bad(key, f"a list of {layers} numbers")
    # Minus infinity is what the share 0 comes to.
    if np.isnan(values).any() or (values > 100).any():
        raise keys.bad(key, "standard deviations, none above 100")
    return tuple(float(v) if v > -100 else DENSE for v in values)


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` and llama.cpp read the same."""
    assert isinstance(config, Gemma3nConfig)
    return layer_keys(config) | {
        "altup.num_inputs": config.num_streams,
        "altup.active_idx": config.active_stream,
        "activation_sparsity_scale": [float(v) for v in config.sparsity],
        "final_logit_softcapping": config.final_softcap,
    }


GEMMA3N_DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    hf_tensors=_hf_tensors,
    gguf_keys=_gguf_keys,
    layer_names={**LAYER_NAMES, **_OWN_NAMES},
)
