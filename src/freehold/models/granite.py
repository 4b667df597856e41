# SPDX-License-Identifier: Apache-2.0
"""Granite 3 and the dense Granite 4: Llama with four constants.

They multiply the embedding, the scores of attention and whatever a half layer adds, and divide the
logits. Models without rotation exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.formats.checkpoint import Checkpoint
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops, RawTensor

_GGUF = ("embedding_scale", "attention.scale", "residual_scale", "logit_scale")
_HF = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
_NO_ROTATION = "rope.scaling.finetuned"  # false = none, a second meaning of an old key


def _with_constants(config: ModelConfig, values: list[float], rotates: bool) -> ModelConfig:
    embedding, attention, residual, logits = values
    return replace(
        config,
        embedding_scale=embedding,
        attention_scale=attention,
        residual_scale=residual,
        logit_scale=1.0 / logits,
        nope_layers=frozenset() if rotates else frozenset(range(config.num_layers)),
    )


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(config, where)
    constants = [keys.number(name, 1.0) for name in _HF]
    rotates = keys.text("position_embedding_type", "rope") == "rope"
    result = config_from_hf(architecture, config, tensors, where)
    return _with_constants(result, constants, rotates)


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    shared = {k: v for k, v in metadata.items() if k not in {keys.prefix + name for name in _GGUF}}
    config = config_from_gguf(architecture, shared, tensors, where)
    # Readers take 0 for "as usual", which for scores is 1/√head_dim.
    usual = {"attention.scale": config.head_dim**-0.5}
    constants = [keys.number(n, 0.0, above=-1e-9) or usual.get(n, 1.0) for n in _GGUF]
    return _with_constants(config, constants, keys.boolean(_NO_ROTATION, True))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "embedding_scale": config.embedding_scale,
        "attention.scale": config.attention_scale,
        "residual_scale": config.residual_scale,
        "logit_scale": 1.0 / config.logit_scale,
    }
    return keys | ({_NO_ROTATION: False} if config.nope_layers else {})


DIALECT = Dialect(from_gguf=_from_gguf, from_hf=_from_hf, gguf_keys=_gguf_keys)
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
