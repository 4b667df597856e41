# SPDX-License-Identifier: Apache-2.0
"""Ministral 3, Devstral 2, Mistral Medium 3.5: Llama whose queries grow with their position.

Rotation is stretched by YaRN and keeps its magnitude; past the trained length, scores grow by a
logarithm instead. The Mistral Small 3 inside a `mistral3` wrapper is a plain `llama`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.models.rope import QueryTemperature
from freehold.ops import Ops, RawTensor

_BETA = "llama_4_scaling_beta"
_SCALE, _LENGTH = "attention.temperature_scale", "attention.temperature_length"
_TRAINED = "rope.scaling.original_context_length"
# What transformers takes where config.json says nothing of rotation.
_ROPE = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0,
    "original_max_position_embeddings": 16384, "mscale": 1.0, "mscale_all_dim": 1.0, _BETA: 0.1,
}  # fmt: skip


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms, absent ones filled in."""
    values = {"rms_norm_eps": 1e-5, "head_dim": 128, **keys.values}
    if values.get("rope_parameters") is None and values.get("rope_scaling") is None:
        values["rope_parameters"] = _ROPE
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(text_fields(config, where))
    nested = {**config, "text_config": keys.values} if config.get("text_config") else keys.values
    result = config_from_hf(architecture, nested, tensors, where)
    rope = keys.table("rope_parameters") or keys.table("rope_scaling")
    beta = rope.number(_BETA, 0.0, zero=True, high=1e3) if rope else 0.0
    if rope is None or not beta:
        return result
    length = rope.integer("original_max_position_embeddings")
    return replace(result, query_temperature=QueryTemperature(beta, length))


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    own = {keys.prefix + _SCALE, keys.prefix + _LENGTH}
    shared = {k: v for k, v in metadata.items() if k not in own}
    config = config_from_gguf(architecture, shared, tensors, where)
    beta = keys.number(_SCALE, 0.0, zero=True, high=1e3)
    if not beta:
        return config
    # Most files leave the length to the rotation's.
    length = keys.integer(_LENGTH) if _LENGTH in keys else keys.integer(_TRAINED)
    return replace(config, query_temperature=QueryTemperature(beta, length))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    temperature = config.query_temperature
    if temperature is None:
        return {}
    return {_SCALE: temperature.scale, _LENGTH: temperature.length}


DIALECT = Dialect(from_gguf=_from_gguf, from_hf=_from_hf, hf_keys=_hf_keys, gguf_keys=_gguf_keys)
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
