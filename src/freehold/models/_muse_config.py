# SPDX-License-Identifier: Apache-2.0
"""Keys of Muse Glimmer, the constants that are in no file, and its tensors as GGUF names them.

GGUF holds the factor on normed queries as a norm weight of that value; a config.json has it as a
number. The rotation of a layer hangs on its window there, and on `layer_rope_theta` here.

Sources: transformers 5.23, llama.cpp of October 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from freehold.errors import UnsupportedModelError
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._made_tensors import MadeTensor
from freehold.models._norms import ShiftedNorm
from freehold.models.base import ModelConfig
from freehold.ops import RawTensor

_PERIOD = 4  # in GGUF the last of so many layers has no window where no key says otherwise
_POST_NORM_EPS = 1e-8
_QK_SCALE = "qk_scale_factor"
# What a config.json that leaves a key out means.
_HF_DEFAULTS: dict[str, Any] = {
    "vocab_size": 202048, "hidden_size": 6656, "intermediate_size": 19968, "num_hidden_layers": 52,
    "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "sliding_window": 2048,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
    "final_logit_softcapping": 20.0, "output_multiplier": 0.19611613513818404, _QK_SCALE: 3.87,
    "post_norm_eps": _POST_NORM_EPS,
}  # fmt: skip
_LAYER_NAMES = {
    "self_attn.gate_proj": "attn_gate",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
# The final norm holds its weight, those of the layers hold it less one.
_SHIFTED = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")


# -- Hugging Face ----------------------------------------------------------------------------------


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms, absent ones filled in."""
    values = {**_HF_DEFAULTS, **{k: v for k, v in keys.values.items() if v is not None}}
    values["hidden_act"] = values.pop("hidden_activation", "silu")
    if "layer_types" not in values:
        layers = keys.integer("num_hidden_layers", _HF_DEFAULTS["num_hidden_layers"], high=4096)
        # Counted from the last layer, unlike in GGUF.
        values["layer_types"] = [
            "sliding_attention" if (layers - 1 - i) % _PERIOD else "full_attention"
            for i in range(layers)
        ]
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
    nested = {**config, "text_config": keys.values} if config.get("text_config") else keys.values
    result = config_from_hf(architecture, nested, tensors, where)
    return replace(
        result,
        nope_layers=_unrotated(keys, result.num_layers),
        embedding_norm=True,
        post_norm_eps=keys.number("post_norm_eps", high=1.0),
        logit_scale=keys.number("output_multiplier", high=1e3),
        final_softcap=keys.number("final_logit_softcapping"),
    )


def _unrotated(keys: Fields, layers: int) -> frozenset[int]:
    """Layers whose base of rotation is 0; the others all have the common one."""
    bases = keys.get("layer_rope_theta")
    if bases is None:
        return frozenset(i for i in range(layers) if (layers - 1 - i) % _PERIOD == 0)
    numbers = isinstance(bases, list) and all(type(b) in (int, float) and b >= 0 for b in bases)
    if not numbers or len(bases) != layers:
        raise keys.bad("layer_rope_theta", f"a list of {layers} numbers, 0 for no rotation")
    return frozenset(i for i in range(layers) if bases[i] == 0)


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """1 + w in the norms of layers, and GGUF's norms of queries and keys."""
    result: Tensors = {}
    # Vast heads are refused later; here they must not become vast vectors.
    dim = keys.integer("head_dim", high=1 << 14)
    factor = keys.number(_QK_SCALE, high=1e6)
    for name, tensor in tensors.items():
        blk, _, part = name.removesuffix(".weight").rpartition(".")
        shifted = blk and part in _SHIFTED
        result[name] = ShiftedNorm(tensor, tensor.name, tensor.shape) if shifted else tensor
        if part == "attn_q":
            for norm, value in (("attn_q_norm", factor), ("attn_k_norm", 1.0)):
                values = np.full(dim, value, dtype=np.float32)
                result[f"{blk}.{norm}.weight"] = MadeTensor(_QK_SCALE, values)
    return result


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    own = {f"{keys.prefix}{name}" for name in ("logit_scale", "final_logit_softcapping")}
    shared = {k: v for k, v in metadata.items() if k not in own}
    shared.setdefault(f"{keys.prefix}attention.sliding_window_pattern", _PERIOD)
    result = config_from_gguf(architecture, shared, tensors, where)
    if keys.number("rope.freq_base_swa", 0.0, zero=True):
        base = keys.number("rope.freq_base", 10000.0, above=1.0)
        if keys.number("rope.freq_base_swa") != base:
            raise UnsupportedModelError(
                f"{where} sets {keys.prefix}rope.freq_base_swa beside another rope.freq_base"
            )
    # Without a window no layer is a local one, and local ones alone rotate.
    every = frozenset(range(result.num_layers))
    return replace(
        result,
        nope_layers=result.full_attention_layers if result.sliding_window else every,
        embedding_norm=True,
        post_norm_eps=_POST_NORM_EPS,
        logit_scale=keys.number("logit_scale", high=1e3),
        final_softcap=keys.number("final_logit_softcapping", 0.0, zero=True),
    )


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    """What a writer must add so that `_from_gguf` reads the same.

    Raises UnsupportedModelError for what GGUF cannot say."""
    layers = range(config.num_layers)
    local = [config.window(i) > 0 for i in layers]
    if any(local[i] == (i in config.nope_layers) for i in layers):
        raise UnsupportedModelError(
            "GGUF has no key for a Muse Glimmer whose layers with a window and rotating ones differ"
        )
    if config.post_norm_eps != _POST_NORM_EPS:
        raise UnsupportedModelError(
            f"GGUF has no key for a Muse Glimmer with another post_norm_eps than {_POST_NORM_EPS:g}"
        )
    return {
        "attention.sliding_window": config.sliding_window,
        "attention.sliding_window_pattern": local,
        "logit_scale": config.logit_scale,
        "final_logit_softcapping": config.final_softcap,
    }


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    gguf_keys=_gguf_keys,
    hf_tensors=_hf_tensors,
    layer_names=_LAYER_NAMES,
)
