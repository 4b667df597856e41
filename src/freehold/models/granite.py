# SPDX-License-Identifier: Apache-2.0
"""Granite 3 and the dense Granite 4: Llama with four constants.

They multiply the embedding, the scores of attention and whatever a half layer adds, and divide the
logits. Models without rotation exist. The dense Granite 4 calls itself a hybrid of which nothing
but attention is left, and keeps gate and up in one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.errors import UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._expert_tensors import rows_of
from freehold.models._family import Dialect, Tensors
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops, RawTensor

_GGUF = ("embedding_scale", "attention.scale", "residual_scale", "logit_scale")
_HF = ("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling")
_HYBRID = "granitemoehybrid"
_NO_ROTATION = "rope.scaling.finetuned"  # false = none, a second meaning of an old key


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms."""
    if keys.get("model_type") != _HYBRID:
        return keys
    kinds = keys.get("layer_types") or keys.get("layers_block_type")
    attention = ("attention", "full_attention")
    if not isinstance(kinds, list) or any(kind not in attention for kind in kinds):
        raise UnsupportedModelError(
            f"{keys.where} has layers of another kind than attention (layer_types), "
            "which freehold cannot run"
        )
    if keys.integer("num_local_experts", 8, low=0):
        raise UnsupportedModelError(
            f"{keys.where} has experts, which this family does not have here"
        )
    values = {
        "position_embedding_type": "none",
        **{k: v for k, v in keys.values.items() if v is not None},
        "intermediate_size": keys.integer("shared_intermediate_size", 1024, high=1 << 24),
    }
    for name in ("layer_types", "layers_block_type"):
        values.pop(name, None)
    return replace(keys, values=values)


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """Gate and up as two matrices where they are one."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        blk, fused, _ = name.partition("ffn_gate_up.weight")
        if not fused or len(tensor.shape) != 2 or tensor.shape[0] % 2 or 0 in tensor.shape:
            result[name] = tensor
            continue
        rows = tensor.shape[0]
        result[blk + "ffn_gate.weight"] = rows_of(tensor, 0, rows // 2, tensor.name)
        result[blk + "ffn_up.weight"] = rows_of(tensor, rows // 2, rows, tensor.name)
    return result


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
    keys = _hf_keys(Fields(config, where))
    constants = [keys.number(name, 1.0) for name in _HF]
    rotates = keys.text("position_embedding_type", "rope") == "rope"
    result = config_from_hf(architecture, keys.values, tensors, where)
    return _with_constants(result, constants, rotates)


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    shared = {k: v for k, v in metadata.items() if k not in {keys.prefix + name for name in _GGUF}}
    config = config_from_gguf(architecture, shared, tensors, where)
    # Readers take 0 for "as usual", which for scores is 1/√head_dim.
    usual = {"attention.scale": config.head_dim**-0.5}
    constants = [keys.number(n, 0.0, zero=True) or usual.get(n, 1.0) for n in _GGUF]
    return _with_constants(config, constants, keys.boolean(_NO_ROTATION, True))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "embedding_scale": config.embedding_scale,
        "attention.scale": config.attention_scale,
        "residual_scale": config.residual_scale,
        "logit_scale": 1.0 / config.logit_scale,
    }
    return keys | ({_NO_ROTATION: False} if config.nope_layers else {})


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    hf_tensors=_hf_tensors,
    gguf_keys=_gguf_keys,
    layer_names={
        "shared_mlp.input_linear": "ffn_gate_up",
        "shared_mlp.output_linear": "ffn_down",
    },
)
LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)
