# SPDX-License-Identifier: Apache-2.0
"""Keys of Gemma 1, 2 and 3, and the constants that are in no file.

Translates into the terms of the shared readers and adds what they do not know: the scale of the
embedding, the cap on scores and logits, the second rotation. Published files leave out much that
the reference implementations take for granted; those values are here.

Sources: Gemma 1 to 3 as in Hugging Face transformers 5.23 and llama.cpp of October 2026.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from freehold.errors import UnsupportedModelError
from freehold.models._family import Dialect
from freehold.models._fields import Fields, shown
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._layer_kinds import rope_of_kind
from freehold.models.base import ModelConfig
from freehold.models.rope import RopeScaling, inverse_frequencies, plain_base
from freehold.ops import RawTensor, RopeSpec

# Gemma 2 and 3 norm what attention and feed-forward give, too.
_FOUR_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_PERIODS = {"gemma2": 2, "gemma3": 6}  # the last of so many layers has no window
# The layer counts at which queries are scaled by the width per head, not by the head's own:
# both models of 27B.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}  # of Gemma 2
_LOCAL_BASE, _GLOBAL_BASE = 10_000.0, 1_000_000.0  # of Gemma 3
_WRAPPERS = ("gemma3",)  # multimodal models whose language model is causal for text
_LOCAL_ROPE = "local_rope_parameters"  # put beside the one that Llama has
# What a config.json that leaves a key out means. That of Gemma 3 4B leaves out most.
_HF_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {
        "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
        "head_dim": 256, "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 8192, "query_pre_attn_scalar": 256,
        "sliding_window": 4096, **_CAPS,
    },
    "gemma3": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 131072, "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    },
}  # fmt: skip


def gemma_dialect(architecture: str) -> Dialect:
    """The dialect of "gemma", "gemma2" or "gemma3"."""
    return Dialect(
        from_gguf=_from_gguf,
        from_hf=_from_hf,
        hf_keys=functools.partial(_hf_keys, architecture),
        gguf_keys=_gguf_keys,
        layer_names={} if architecture == "gemma" else _FOUR_NORMS,
        norms_less_one=True,
    )


def _with_constants(
    config: ModelConfig,
    attention_scale: float,
    *,
    attn_softcap: float = 0.0,
    final_softcap: float = 0.0,
) -> ModelConfig:
    if np.isclose(attention_scale, config.head_dim**-0.5, rtol=1e-6):
        attention_scale = 0.0  # the usual one
    return replace(
        config,
        activation="gelu_tanh",
        # Not rounded to the weights' type, as transformers does in bfloat16: the same weights
        # must give the same logits whatever they are stored as.
        embedding_scale=config.hidden_size**0.5,
        attention_scale=attention_scale,
        attn_softcap=attn_softcap,
        final_softcap=final_softcap,
    )


# -- Hugging Face ----------------------------------------------------------------------------------


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(architecture, text_fields(config, where))
    if config.get("text_config") and config.get("model_type") not in _WRAPPERS:
        # Others around Gemma let a prompt see itself whole.
        raise UnsupportedModelError(
            f"{where}: the language model inside {shown(config.get('model_type'))} "
            "is not known to run alone"
        )

    def read(**changes: object) -> ModelConfig:
        values = {**keys.values, **changes}
        nested = {**config, "text_config": values} if config.get("text_config") else values
        return config_from_hf(architecture, nested, tensors, where)

    result = read()
    scalar = keys.number("query_pre_attn_scalar", float(result.head_dim))
    if architecture == "gemma3" and result.sliding_window:
        result = replace(result, local_rope=read(rope_parameters=keys.get(_LOCAL_ROPE)).rope)
    if architecture == "gemma":
        return _with_constants(result, scalar**-0.5)
    return _with_constants(
        result,
        scalar**-0.5,
        attn_softcap=keys.number("attn_logit_softcapping", 0.0, zero=True),
        final_softcap=keys.number("final_logit_softcapping", 0.0, zero=True),
    )


def _hf_keys(architecture: str, keys: Fields) -> Fields:
    """`keys` with absent ones filled in, in Llama's terms where Llama has any."""
    keys = replace(keys, values={**_HF_DEFAULTS[architecture], **keys.values})
    if keys.get("use_bidirectional_attention"):
        raise UnsupportedModelError(
            f"{keys.where} is an encoder (use_bidirectional_attention), which freehold cannot run"
        )
    _check_activation(architecture, keys)
    values = {k: v for k, v in keys.values.items() if k not in ("hidden_act", "hidden_activation")}
    if architecture == "gemma":
        for name in ("sliding_window", "layer_types", "query_pre_attn_scalar"):
            values.pop(name, None)
    elif keys.get("layer_types") is None:
        layers = keys.integer("num_hidden_layers", high=4096)
        period = _PERIODS[architecture]
        if architecture == "gemma3":
            period = keys.integer("sliding_window_pattern", period, high=4096)
        values["layer_types"] = [
            "full_attention" if i % period == period - 1 else "sliding_attention"
            for i in range(layers)
        ]
    if architecture == "gemma3":
        values["rope_parameters"] = _global_rope(keys)
        values[_LOCAL_ROPE] = _local_rope(keys)
        for name in ("rope_scaling", "rope_theta"):
            values.pop(name, None)
    return replace(keys, values=values)


def _check_activation(architecture: str, keys: Fields) -> None:
    # Gemma 1 was published as "gelu" when the tanh form was meant; its other key is ignored.
    key = "hidden_act" if architecture == "gemma" else "hidden_activation"
    name = keys.text(key, "gelu_pytorch_tanh")
    if name != "gelu_pytorch_tanh" and (architecture, name) != ("gemma", "gelu"):
        raise UnsupportedModelError(
            f"{keys.where} uses the activation {name[:40]!r} where this family has "
            "gelu_pytorch_tanh"
        )


def _rope_part(keys: Fields, part: str) -> dict[str, Any]:
    """What `rope_parameters` of transformers 5 says about the layers of one kind."""
    table = keys.table("rope_parameters")
    chosen = table.table(part) if table is not None else None
    return dict(chosen.values) if chosen is not None else {}


def _global_rope(keys: Fields) -> dict[str, Any]:
    values, old = rope_of_kind(keys, "full_attention"), keys.table("rope_scaling")
    if old is not None:
        values |= old.values
    values.setdefault("rope_theta", keys.number("rope_theta", _GLOBAL_BASE, above=1.0))
    return values


def _local_rope(keys: Fields) -> dict[str, Any]:
    """`rope_scaling` of older files is about the others: windows fit the trained context."""
    values = _rope_part(keys, "sliding_attention")
    if values.get("rope_theta") is None:
        values["rope_theta"] = keys.number("rope_local_base_freq", _LOCAL_BASE, above=1.0)
    return values


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    own = ["attention.scale", "rope.freq_base_swa"]
    if architecture != "gemma":
        own += _CAPS
    shared = {k: v for k, v in metadata.items() if k not in {keys.prefix + name for name in own}}
    if architecture in _PERIODS:
        shared.setdefault(keys.prefix + "attention.sliding_window_pattern", _PERIODS[architecture])
    if architecture == "gemma2":
        shared.setdefault(keys.prefix + "attention.sliding_window", 4096)
    config = config_from_gguf(architecture, shared, tensors, where)
    scale = keys.number("attention.scale", _default_scale(config), high=1e3)
    if architecture == "gemma":
        return _with_constants(config, scale)
    if config.sliding_window and (architecture == "gemma3" or "rope.freq_base_swa" in keys):
        base = keys.number("rope.freq_base_swa", _LOCAL_BASE, above=1.0)
        plain = inverse_frequencies(2 * len(config.rope.inv_freq), base, RopeScaling())
        config = replace(config, local_rope=RopeSpec(plain, config.rope.interleaved))
    attn, final = (
        keys.number(name, cap if architecture == "gemma2" else 0.0, zero=True)
        for name, cap in _CAPS.items()
    )
    return _with_constants(config, scale, attn_softcap=attn, final_softcap=final)


def _default_scale(config: ModelConfig) -> float:
    """Of the scores where no key names it."""
    by_width = _SCALED_BY_WIDTH.get(config.architecture) == config.num_layers
    return float((config.hidden_size / config.num_heads if by_width else config.head_dim) ** -0.5)


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` reads the same."""
    keys: dict[str, Any] = {}
    caps = {
        "attn_logit_softcapping": config.attn_softcap,
        "final_logit_softcapping": config.final_softcap,
    }
    # Absent means Gemma 2's own numbers there, and none elsewhere.
    keys |= {k: cap for k, cap in caps.items() if cap or config.architecture == "gemma2"}
    scale = config.attention_scale or config.head_dim**-0.5
    if not np.isclose(scale, _default_scale(config), rtol=1e-6):
        keys["attention.scale"] = scale
    if config.architecture == "gemma2" and not config.sliding_window:
        keys["attention.sliding_window"] = 0
    if config.architecture in _PERIODS and config.sliding_window:
        period = min(config.full_attention_layers, default=config.num_layers) + 1
        regular = frozenset(range(period - 1, config.num_layers, period))
        if regular == config.full_attention_layers:
            # A number where one will do: not every reader takes the list of flags.
            keys["attention.sliding_window_pattern"] = period
    if config.local_rope is not None:
        keys["rope.freq_base_swa"] = plain_base(config.local_rope)
    return keys
