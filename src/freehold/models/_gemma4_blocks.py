# SPDX-License-Identifier: Apache-2.0
"""Gemma 4's decoder over the op set: per-layer shapes of attention and feed-forward, per-layer
embeddings, and experts that run beside the dense feed-forward.

Nothing here knows a device, a file format or a key; nothing is computed outside an op.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from freehold.batch import ForwardBatch
from freehold.formats.checkpoint import Checkpoint
from freehold.models._decoder import wanted_rows
from freehold.models._feed_forward import GatedFeedForward, expected_gated, load_gated
from freehold.models._gemma4_config import Gemma4Config
from freehold.models._per_layer_inputs import (
    PerLayerGate,
    PerLayerInputs,
    expected_gate,
    expected_inputs,
    load_gate,
    load_inputs,
)
from freehold.models._shared_attention import (
    SharedAttention,
    expected_attention,
    last_queries,
    load_attention,
)
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import MoeConfig
from freehold.models.config import read_config, weight_tensors
from freehold.ops import Array, Expert, KVCache, KVLayerSpec, Ops, RoutingSpec, Weight


@dataclass(frozen=True, slots=True)
class Experts:
    """A choice of experts that runs beside the dense feed-forward, each under norms of its own."""

    dense_post_norm: Array
    router_norm: Array  # the router's own scale / √hidden; the norm itself has no weights
    router: Weight  # [experts, hidden]
    expert_scales: Array  # [experts, 1]
    routing: RoutingSpec
    pre_norm: Array
    experts: tuple[Expert, ...]
    post_norm: Array

    def forward(self, dense: Array, residual: Array, config: Gemma4Config, ops: Ops) -> Array:
        """[T, hidden] out of what the dense feed-forward gave and of what went into its norm."""
        eps = config.norm_eps
        logits = ops.linear(ops.rms_norm(residual, self.router_norm, eps), self.router)
        chosen, weights = ops.route(logits, self.routing)
        scales = ops.take_rows(self.expert_scales, chosen.reshape(-1)).reshape(weights.shape)
        mixed = ops.moe(
            ops.rms_norm(residual, self.pre_norm, eps),
            self.experts,
            chosen,
            ops.multiply(weights, scales),
            config.activation,
        )
        mixed = ops.rms_norm(mixed, self.post_norm, eps)
        return ops.add(mixed, ops.rms_norm(dense, self.dense_post_norm, eps))


@dataclass(frozen=True, slots=True)
class Gemma4Layer:
    """One layer's weights on the device, and its numbers."""

    attn_norm: Array
    attention: SharedAttention
    attn_post_norm: Array
    ffn_norm: Array
    ffn: GatedFeedForward
    experts: Experts | None
    ffn_post_norm: Array
    per_layer: PerLayerGate | None
    output_scale: float

    def feed(self, residual: Array, given: Array | None, config: Gemma4Config, ops: Ops) -> Array:
        """Everything after attention: [T, hidden] to [T, hidden]. `given` is the layer's own
        input [T, width]."""
        eps = config.norm_eps
        delta = self.ffn.forward(ops.rms_norm(residual, self.ffn_norm, eps), ops)
        if self.experts is not None:
            delta = self.experts.forward(delta, residual, config, ops)
        residual = ops.add(residual, ops.rms_norm(delta, self.ffn_post_norm, eps))
        if self.per_layer is not None:
            residual = ops.add(residual, self.per_layer.forward(residual, given, eps, ops))
        return residual if self.output_scale == 1.0 else ops.scale(residual, self.output_scale)


@dataclass(slots=True)
class Gemma4Decoder:
    """`CausalLM` of Gemma 4."""

    config: Gemma4Config
    embedding: Weight
    inputs: PerLayerInputs | None
    layers: tuple[Gemma4Layer, ...]
    output_norm: Array
    output: Weight  # the embedding itself where tied
    device_bytes: int

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        return self.config.kv_layers()

    def weight_bytes(self) -> int:
        return self.device_bytes

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        config, eps, rows = self.config, self.config.norm_eps, wanted_rows(batch)
        tables = [ops.rope_tables(spec, batch.positions) for spec in config.rotations()]
        residual = ops.scale(ops.embed(self.embedding, batch.token_ids), config.embedding_scale)
        given = self.inputs.forward(batch.token_ids, residual, ops) if self.inputs else None
        width = config.per_layer_width
        for index, layer in enumerate(self.layers):
            attention = layer.attention
            x = ops.rms_norm(residual, layer.attn_norm, eps)
            q = attention.write(x, batch, cache, tables[attention.rotation], eps, ops)
            if rows is not None and index == config.first_shared - 1:
                if len(rows) == 0:
                    return residual[:0]  # no later layer writes, and nobody wants logits
                if (fewer := last_queries(batch, rows)) is not None:
                    q, residual = ops.take_rows(q, rows), ops.take_rows(residual, rows)
                    given = ops.take_rows(given, rows) if given is not None else None
                    tables = [(ops.take_rows(c, rows), ops.take_rows(s, rows)) for c, s in tables]
                    batch, rows = fewer, None
            mixed = ops.attention(q, cache, attention.cache_layer, batch, attention.spec)
            delta = ops.rms_norm(ops.linear(mixed, attention.output), layer.attn_post_norm, eps)
            own = given[:, index * width : (index + 1) * width] if given is not None else None
            residual = layer.feed(ops.add(residual, delta), own, config, ops)
        if rows is not None:
            residual = ops.take_rows(residual, rows)
        return ops.rms_norm(residual, self.output_norm, eps)

    def logits(self, hidden: Array, ops: Ops) -> Array:
        logits = ops.linear(hidden, self.output)
        cap = self.config.final_softcap
        return ops.softcap(logits, cap) if cap else logits


def expected_tensors(config: Gemma4Config) -> dict[str, Expected]:
    """Every tensor the family knows, by canonical name."""
    hidden = config.hidden_size
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))
    if config.per_layer_width:
        table.update(expected_inputs(config))
    for index in range(config.num_layers):
        blk = f"blk.{index}."
        for norm in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            table[f"{blk}{norm}.weight"] = Expected((hidden,))
        table.update(expected_attention(config, index))
        table.update(expected_gated(blk, "", config.ffn_sizes[index], hidden))
        table[blk + "layer_output_scale.weight"] = Expected((1,), required=False)
        if config.per_layer_width:
            table.update(expected_gate(config, index))
        if config.moe is not None and index not in config.moe.dense_layers:
            table.update(_expected_experts(blk, config.moe, hidden))
    return table


def _expected_experts(blk: str, moe: MoeConfig, hidden: int) -> Iterator[tuple[str, Expected]]:
    count, ffn = moe.num_experts, moe.expert_ffn_size
    yield blk + "ffn_gate_inp.weight", Expected((count, hidden))
    yield blk + "ffn_gate_inp.scale", Expected((hidden,))
    yield blk + "ffn_gate_exps.weight", Expected((count, ffn, hidden))
    yield blk + "ffn_up_exps.weight", Expected((count, ffn, hidden))
    yield blk + "ffn_down_exps.weight", Expected((count, hidden, ffn))
    yield blk + "ffn_down_exps.scale", Expected((count,))
    for norm in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
        yield f"{blk}{norm}.weight", Expected((hidden,))


def load_gemma4(
    checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None
) -> Gemma4Decoder:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded."""
    config = read_config(checkpoint)
    assert isinstance(config, Gemma4Config)
    tensors = weight_tensors(checkpoint, config)
    check_tensors(tensors, expected_tensors(config), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    inputs = load_inputs(weights, config) if config.per_layer_width else None
    layers = tuple(_load_layer(weights, config, index) for index in range(config.num_layers))
    return Gemma4Decoder(
        config=config,
        embedding=embedding,
        inputs=inputs,
        layers=layers,
        output_norm=weights.vector("output_norm.weight"),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
    )


def _load_layer(weights: WeightLoader, config: Gemma4Config, index: int) -> Gemma4Layer:
    blk = f"blk.{index}."
    has_experts = config.moe is not None and index not in config.moe.dense_layers
    scale = blk + "layer_output_scale.weight"
    return Gemma4Layer(
        attn_norm=weights.vector(blk + "attn_norm.weight"),
        attention=load_attention(weights, config, index),
        attn_post_norm=weights.vector(blk + "post_attention_norm.weight"),
        ffn_norm=weights.vector(blk + "ffn_norm.weight"),
        ffn=load_gated(weights, blk, "", config.activation),
        experts=_load_experts(weights, config, blk) if has_experts else None,
        ffn_post_norm=weights.vector(blk + "post_ffw_norm.weight"),
        per_layer=load_gate(weights, config, index) if config.per_layer_width else None,
        output_scale=float(weights.values(scale)[0]) if weights.has(scale) else 1.0,
    )


def _load_experts(weights: WeightLoader, config: Gemma4Config, blk: str) -> Experts:
    assert config.moe is not None
    parts = [weights.expert_matrices(f"{blk}ffn_{p}_exps.weight") for p in ("gate", "up", "down")]
    scale = weights.values(blk + "ffn_gate_inp.scale") * np.float32(config.hidden_size**-0.5)
    scales = weights.values(blk + "ffn_down_exps.scale")
    return Experts(
        dense_post_norm=weights.vector(blk + "post_ffw_norm_1.weight"),
        router_norm=weights.made_vector(scale),
        router=weights.matrix_in_f32(blk + "ffn_gate_inp.weight"),
        expert_scales=weights.made_vector(scales).reshape(-1, 1),
        routing=config.moe.routing,
        pre_norm=weights.vector(blk + "pre_ffw_norm_2.weight"),
        experts=tuple(Expert(*matrices) for matrices in zip(*parts, strict=True)),
        post_norm=weights.vector(blk + "post_ffw_norm_2.weight"),
    )
