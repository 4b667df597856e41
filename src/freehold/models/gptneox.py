# SPDX-License-Identifier: Apache-2.0
"""GPT-NeoX: Pythia and kin. Layer norms with biases, both halves of a layer side by side, a
feed-forward of two matrices, and rotation of a quarter of each head.

One matrix gives queries, keys and values. Vendors store it head by head, GGUF all queries first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from freehold.errors import UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.models._attention import FusedProjection, SelfAttention
from freehold.models._decoder import Decoder, Layer, LayerNorm, ParallelLayer, SequentialLayer
from freehold.models._family import Dialect, Tensors
from freehold.models._feed_forward import expected_plain_feed_forward, load_plain_feed_forward
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf
from freehold.models._row_order import reordered
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import attention_spec, rotation_of
from freehold.models.config import read_config, weight_tensors
from freehold.ops import Activation, Ops, RawTensor

_EPS, _RMS_EPS = "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"
_PARALLEL = "use_parallel_residual"
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


# -- Hugging Face ----------------------------------------------------------------------------------


def _hf_keys(keys: Fields) -> Fields:
    """`keys` in Llama's terms."""
    values = dict(keys.values)
    for name in ("hidden_act", "num_key_value_heads", "head_dim"):  # no words of this family's
        values.pop(name, None)
    for theirs, ours, default in (
        ("layer_norm_eps", "rms_norm_eps", 1e-5),
        ("rotary_pct", "partial_rotary_factor", 0.25),
        ("rotary_emb_base", "rope_theta", 10000.0),
    ):
        value = values.pop(theirs, None)
        values.setdefault(ours, default if value is None else value)
    return replace(keys, values=values)


def _from_hf(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(config, where)
    name = keys.text("hidden_act", "gelu")
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{where} uses the activation {name[:40]!r} where this family has gelu"
        )
    result = config_from_hf(architecture, _hf_keys(keys).values, tensors, where)
    return replace(
        result, activation=_ACTIVATIONS[name], parallel_residual=keys.boolean(_PARALLEL, True)
    )


def _hf_tensors(tensors: Tensors, keys: Fields) -> Tensors:
    """All queries, all keys, all values: not head by head."""
    heads = keys.integer("num_attention_heads", high=1 << 16)
    width = keys.integer("hidden_size", high=1 << 20)
    order = np.arange(3 * (width // heads) * heads).reshape(heads, 3, -1).swapaxes(0, 1).reshape(-1)
    return {n: reordered(t, order) if ".attn_qkv." in n else t for n, t in tensors.items()}


# -- GGUF ------------------------------------------------------------------------------------------


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    shared = {k: v for k, v in metadata.items() if k != keys.prefix + _PARALLEL}
    shared[keys.prefix + _RMS_EPS] = keys.number(_EPS, high=1.0)
    config = config_from_gguf(architecture, shared, tensors, where)
    parallel = keys.boolean(_PARALLEL, True)
    return replace(config, activation="gelu", parallel_residual=parallel)


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    if config.activation != "gelu":
        raise UnsupportedModelError(
            f"GGUF's gptneox has no key for the activation {config.activation}",
            hint="run the safetensors as they are",
        )
    return {_RMS_EPS: None, _EPS: config.norm_eps, _PARALLEL: config.parallel_residual}


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    hf_keys=_hf_keys,
    hf_tensors=_hf_tensors,
    gguf_keys=_gguf_keys,
    layer_names={
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    },
)


# -- the model -------------------------------------------------------------------------------------


def expected_tensors(config: ModelConfig) -> dict[str, Expected]:
    """Every tensor of the family, by canonical name."""
    hidden, width = config.hidden_size, config.num_heads * config.head_dim
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
        "output_norm.bias": Expected((hidden,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))
    for index in range(config.num_layers):
        blk = f"blk.{index}."
        for name in ("attn_norm", "ffn_norm"):
            table[f"{blk}{name}.weight"] = table[f"{blk}{name}.bias"] = Expected((hidden,))
        table[blk + "attn_qkv.weight"] = Expected((3 * width, hidden))
        table[blk + "attn_qkv.bias"] = Expected((3 * width,), required=False)
        table[blk + "attn_output.weight"] = Expected((hidden, width))
        table[blk + "attn_output.bias"] = Expected((hidden,), required=False)
        table.update(expected_plain_feed_forward(config, index, biases=True))
    return table


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    config = read_config(checkpoint)
    tensors = weight_tensors(checkpoint, config)
    check_tensors(tensors, expected_tensors(config), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    layers = tuple(_load_layer(weights, config, index) for index in range(config.num_layers))
    return Decoder(
        config=config,
        embedding=embedding,
        layers=layers,
        output_norm=_norm(weights, config, "output_norm"),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
    )


def _norm(weights: WeightLoader, config: ModelConfig, name: str) -> LayerNorm:
    return LayerNorm(
        weights.vector(name + ".weight"), weights.vector(name + ".bias"), config.norm_eps
    )


def _load_layer(weights: WeightLoader, config: ModelConfig, index: int) -> Layer:
    blk, width = f"blk.{index}.", config.num_heads * config.head_dim
    attn_norm = _norm(weights, config, blk + "attn_norm")
    ffn_norm = _norm(weights, config, blk + "ffn_norm")
    attention = SelfAttention(
        projection=FusedProjection(
            weights.matrix(blk + "attn_qkv.weight"),
            weights.vector_or_none(blk + "attn_qkv.bias"),
            key_start=width,
            value_start=2 * width,
        ),
        q_norm=None,
        k_norm=None,
        output=weights.matrix(blk + "attn_output.weight"),
        output_bias=weights.vector_or_none(blk + "attn_output.bias"),
        spec=attention_spec(config, index),
        layer=index,
        rotation=rotation_of(config, index),
        interleaved=config.rope.interleaved,
    )
    ffn = load_plain_feed_forward(weights, config, index)
    if config.parallel_residual:
        return ParallelLayer(attn_norm, attention, ffn_norm, ffn)
    return SequentialLayer(attn_norm, attention, None, ffn_norm, ffn, None)
