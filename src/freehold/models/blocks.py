# SPDX-License-Identifier: Apache-2.0
"""The pre-norm decoder that Llama, Mistral, Qwen and Gemma share, over the op set.

A family file says by a `DenseLayout` where it differs. Nothing here knows a device, a file
format or a key; nothing here is computed outside an op.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from freehold.batch import ForwardBatch
from freehold.formats.checkpoint import Checkpoint
from freehold.models._feed_forward import (
    FeedForward,
    expected_feed_forward,
    load_feed_forward,
)
from freehold.models._weights import Expected, Progress, WeightLoader, check_tensors
from freehold.models.base import ModelConfig
from freehold.models.config import canonical_tensors, read_config
from freehold.ops import Array, AttentionSpec, KVCache, KVLayerSpec, Ops, Weight

Presence = Literal["required", "optional", "absent"]


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """Which of the variable parts a family's layers have."""

    qkv_bias: Presence = "absent"
    output_bias: Presence = "absent"
    qk_norm: Presence = "absent"  # RMS norm of each query and key head, before rotation
    post_norms: Presence = "absent"  # RMS norm of what attention and feed-forward give


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one layer and what its attention does."""

    attn_norm: Array
    qkv: tuple[Weight, Weight, Weight]
    qkv_bias: tuple[Array | None, Array | None, Array | None]
    q_norm: Array | None
    k_norm: Array | None
    attn_output: Weight
    attn_output_bias: Array | None
    attn_post_norm: Array | None
    ffn_norm: Array
    ffn: FeedForward
    ffn_post_norm: Array | None
    attention: AttentionSpec
    rotation: int  # which of the step's rotary tables


@dataclass(slots=True)
class DenseDecoder:
    """`CausalLM` of the dense families."""

    config: ModelConfig
    embedding: Weight
    layers: tuple[DecoderLayer, ...]
    output_norm: Array
    output: Weight  # the embedding itself where tied
    device_bytes: int

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        spec = KVLayerSpec(self.config.num_kv_heads, self.config.head_dim, self.config.head_dim)
        return (spec,) * len(self.layers)

    def weight_bytes(self) -> int:
        return self.device_bytes

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        config, eps = self.config, self.config.norm_eps
        rows = _wanted_rows(batch)
        tables = [ops.rope_tables(spec, batch.positions) for spec in config.rotations()]
        residual = ops.embed(self.embedding, batch.token_ids)  # [T, hidden]
        if config.embedding_scale != 1.0:
            residual = ops.scale(residual, config.embedding_scale)
        x = ops.rms_norm(residual, self.layers[0].attn_norm, eps)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            q, k, v = self._project(x, layer, tables[layer.rotation], ops)
            ops.write_kv(cache, index, k, v, batch)
            if index == last and rows is not None:
                # Past this point the last layer is needed only where logits are wanted.
                if len(rows) == 0:
                    return residual[:0]
                mixed = ops.attention(q, cache, index, batch, layer.attention)
                mixed = ops.take_rows(mixed, rows)
                residual = ops.take_rows(residual, rows)
            else:
                mixed = ops.attention(q, cache, index, batch, layer.attention)
            delta = ops.linear(mixed, layer.attn_output, layer.attn_output_bias)
            if layer.attn_post_norm is not None:
                delta = ops.rms_norm(delta, layer.attn_post_norm, eps)
            residual, x = ops.add_rms_norm(residual, delta, layer.ffn_norm, eps)
            delta = layer.ffn.forward(x, ops)
            if layer.ffn_post_norm is not None:
                delta = ops.rms_norm(delta, layer.ffn_post_norm, eps)
            following = self.output_norm if index == last else self.layers[index + 1].attn_norm
            residual, x = ops.add_rms_norm(residual, delta, following, eps)
        return x

    def _project(
        self, x: Array, layer: DecoderLayer, table: tuple[Array, Array], ops: Ops
    ) -> tuple[Array, Array, Array]:
        """Queries and keys, normed and rotated, and values: [T, heads · head_dim] each."""
        eps, head_dim = self.config.norm_eps, self.config.head_dim
        q, k, v = ops.linear_many(x, layer.qkv, layer.qkv_bias)
        if layer.q_norm is not None:
            q = ops.rms_norm(q, layer.q_norm, eps)
        if layer.k_norm is not None:
            k = ops.rms_norm(k, layer.k_norm, eps)
        (cos, sin), interleaved = table, self.config.rope.interleaved
        q = ops.rope(q, cos, sin, head_dim, interleaved)
        k = ops.rope(k, cos, sin, head_dim, interleaved)
        return q, k, v

    def logits(self, hidden: Array, ops: Ops) -> Array:
        logits = ops.linear(hidden, self.output)
        cap = self.config.final_softcap
        return ops.softcap(logits, cap) if cap else logits


def _wanted_rows(batch: ForwardBatch) -> np.ndarray[tuple[int], np.dtype[np.int32]] | None:
    """`logits_rows`, or None where that is simply every row in order (plain decoding)."""
    rows = batch.logits_rows
    everything = len(rows) == batch.num_tokens and bool(
        np.array_equal(rows, np.arange(batch.num_tokens))
    )
    return None if everything else rows


def load_dense(
    checkpoint: Checkpoint, ops: Ops, layout: DenseLayout, progress: Progress | None = None
) -> DenseDecoder:
    """Check every tensor against the config, then hand them to the device.

    Raises MalformedFileError or UnsupportedModelError before anything is loaded."""
    config = read_config(checkpoint)
    tensors = canonical_tensors(checkpoint)
    tensors.pop("rope_freqs.weight", None)  # part of `config.rope`
    if config.tied_embeddings:
        tensors.pop("output.weight", None)  # a saved copy of the embedding
    check_tensors(tensors, expected_tensors(config, layout), str(checkpoint.path))
    weights = WeightLoader(tensors, ops, progress)
    embedding = weights.matrix("token_embd.weight")
    layers = tuple(_load_layer(weights, config, index) for index in range(config.num_layers))
    return DenseDecoder(
        config=config,
        embedding=embedding,
        layers=layers,
        output_norm=weights.vector("output_norm.weight"),
        output=embedding if config.tied_embeddings else weights.matrix("output.weight"),
        device_bytes=weights.device_bytes,
    )


def expected_tensors(config: ModelConfig, layout: DenseLayout) -> dict[str, Expected]:
    """Every tensor the layout knows, by canonical name."""
    hidden = config.hidden_size
    q_rows = config.num_heads * config.head_dim
    kv_rows = config.num_kv_heads * config.head_dim
    head = (config.head_dim,)
    table = {
        "token_embd.weight": Expected((config.vocab_size, hidden)),
        "output_norm.weight": Expected((hidden,)),
    }
    if not config.tied_embeddings:
        table["output.weight"] = Expected((config.vocab_size, hidden))

    def add(name: str, shape: tuple[int, ...], presence: Presence = "required") -> None:
        if presence != "absent":
            table[name] = Expected(shape, presence == "required")

    for index in range(config.num_layers):
        blk = f"blk.{index}."
        add(blk + "attn_norm.weight", (hidden,))
        for part, rows in (("attn_q", q_rows), ("attn_k", kv_rows), ("attn_v", kv_rows)):
            add(f"{blk}{part}.weight", (rows, hidden))
            add(f"{blk}{part}.bias", (rows,), layout.qkv_bias)
        add(blk + "attn_q_norm.weight", head, layout.qk_norm)
        add(blk + "attn_k_norm.weight", head, layout.qk_norm)
        add(blk + "attn_output.weight", (hidden, q_rows))
        add(blk + "attn_output.bias", (hidden,), layout.output_bias)
        add(blk + "post_attention_norm.weight", (hidden,), layout.post_norms)
        add(blk + "ffn_norm.weight", (hidden,))
        table.update(expected_feed_forward(config, index))
        add(blk + "post_ffw_norm.weight", (hidden,), layout.post_norms)
    return table


def _load_layer(weights: WeightLoader, config: ModelConfig, index: int) -> DecoderLayer:
    blk = f"blk.{index}."
    matrix, vector, maybe = weights.matrix, weights.vector, weights.vector_or_none
    return DecoderLayer(
        attn_norm=vector(blk + "attn_norm.weight"),
        qkv=(
            matrix(blk + "attn_q.weight"),
            matrix(blk + "attn_k.weight"),
            matrix(blk + "attn_v.weight"),
        ),
        qkv_bias=(
            maybe(blk + "attn_q.bias"),
            maybe(blk + "attn_k.bias"),
            maybe(blk + "attn_v.bias"),
        ),
        q_norm=maybe(blk + "attn_q_norm.weight"),
        k_norm=maybe(blk + "attn_k_norm.weight"),
        attn_output=matrix(blk + "attn_output.weight"),
        attn_output_bias=maybe(blk + "attn_output.bias"),
        attn_post_norm=maybe(blk + "post_attention_norm.weight"),
        ffn_norm=vector(blk + "ffn_norm.weight"),
        ffn=load_feed_forward(weights, config, index),
        ffn_post_norm=maybe(blk + "post_ffw_norm.weight"),
        attention=AttentionSpec(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            value_dim=config.head_dim,
            scale=config.attention_scale or config.head_dim**-0.5,
            window=config.window(index),
            softcap=config.attn_softcap,
        ),
        rotation=1 if config.local_rope is not None and config.window(index) else 0,
    )
