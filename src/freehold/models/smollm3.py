# SPDX-License-Identifier: Apache-2.0
"""SmolLM3: Llama without rotation in every fourth layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.errors import UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops, RawTensor

_PERIOD = 4  # the last of so many layers has no rotation; in no GGUF file
_DEFAULTS = {"rope_theta": 2e6, "tie_word_embeddings": True}


def _every(period: int, layers: int) -> frozenset[int]:
    return frozenset(range(period - 1, layers, period))


def _nope_layers(keys: Fields) -> frozenset[int]:
    layers = keys.integer("num_hidden_layers", high=4096)
    flags = keys.get("no_rope_layers")  # 1 = with rotation, in spite of the name
    if flags is None:
        return _every(keys.integer("no_rope_layer_interval", _PERIOD, high=4096), layers)
    if not isinstance(flags, list) or len(flags) < layers or any(f not in (0, 1) for f in flags):
        raise keys.bad("no_rope_layers", f"a list of at least {layers} zeros and ones")
    return frozenset(i for i in range(layers) if not flags[i])


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms: a window only where it is switched on."""
    values = {**_DEFAULTS, **keys.values}
    if not keys.boolean("use_sliding_window", False) or not values.get("sliding_window"):
        for name in ("sliding_window", "layer_types"):
            values.pop(name, None)
    elif values.get("layer_types") is None:
        nope = _nope_layers(keys)
        values["layer_types"] = [
            "sliding_attention" if i in nope else "full_attention"
            for i in range(keys.integer("num_hidden_layers", high=4096))
        ]
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = _hf_keys(Fields(config, where))
    result = config_from_hf(architecture, keys.values, tensors, where)
    return replace(result, nope_layers=_nope_layers(keys))


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    config = config_from_gguf(architecture, metadata, tensors, where)
    return replace(config, nope_layers=_every(_PERIOD, config.num_layers))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    if config.nope_layers != _every(_PERIOD, config.num_layers) or config.sliding_window:
        # Readers take every fourth layer for granted, and no window.
        raise UnsupportedModelError(
            "GGUF's smollm3 has no keys for this model's choice of layers without rotation, or "
            "for its window",
            hint="run the safetensors as they are",
        )
    return {}


DIALECT = Dialect(from_gguf=_from_gguf, from_hf=_from_hf, hf_keys=_hf_keys, gguf_keys=_gguf_keys)
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
