# SPDX-License-Identifier: Apache-2.0
"""The decoder as a composition: an embedding, layers that add to a residual stream, a head.

Knows how norms, attention and feed-forwards follow each other in the layers that families have.
Knows no tensor names, no file format and no device; nothing here is computed outside an op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from freehold.batch import ForwardBatch, IntArray
from freehold.models._feed_forward import FeedForward
from freehold.models.base import ModelConfig
from freehold.ops import Array, FloatArray, KVCache, KVLayerSpec, Ops, Weight


@dataclass(frozen=True, slots=True)
class Step:
    """What all layers of one forward pass share."""

    batch: ForwardBatch
    cache: KVCache
    ops: Ops
    tables: tuple[tuple[Array, Array], ...]  # cos and sin of each of the model's rotations
    temperature: FloatArray | None  # [T] factors of the queries; None = all are 1


class Norm(Protocol):
    """What stands before or after half a layer."""

    def forward(self, x: Array, ops: Ops) -> Array:
        """[T, n] to [T, n]; x stays as it is."""

    def after_add(self, residual: Array, delta: Array, ops: Ops) -> tuple[Array, Array]:
        """residual + delta, and that normed. The memory of `residual` may be reused."""


@dataclass(frozen=True, slots=True)
class RmsNorm:
    """Of the whole row, or of each stretch of it that is as long as the weight (a head)."""

    weight: Array
    eps: float

    def forward(self, x: Array, ops: Ops) -> Array:
        return ops.rms_norm(x, self.weight, self.eps)

    def after_add(self, residual: Array, delta: Array, ops: Ops) -> tuple[Array, Array]:
        return ops.add_rms_norm(residual, delta, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """With the mean taken off, and a bias."""

    weight: Array
    bias: Array | None
    eps: float

    def forward(self, x: Array, ops: Ops) -> Array:
        return ops.layer_norm(x, self.weight, self.bias, self.eps)

    def after_add(self, residual: Array, delta: Array, ops: Ops) -> tuple[Array, Array]:
        total = ops.add(residual, delta)
        return total, self.forward(total, ops)


class Attention(Protocol):
    """The first half of a layer, between its norm and the residual."""

    def forward(self, x: Array, step: Step, rows: IntArray | None) -> Array:
        """Store the keys and values of every row of x [T, hidden], then answer for the wanted
        ones: [T or len(rows), hidden]. With no wanted row, nothing is computed past the keys."""

    def kv_layer(self) -> KVLayerSpec:
        """Shape of its part of the cache."""


class ResidualStream:
    """The running sum of one pass.

    What a half layer adds is held back until somebody norms the sum, because devices add and norm
    in one operation. `scale` multiplies whatever is added (Granite)."""

    def __init__(self, value: Array, ops: Ops, scale: float = 1.0) -> None:
        self._value, self._ops, self._scale = value, ops, scale
        self._pending: Array | None = None

    def add(self, delta: Array) -> None:
        self.value()
        self._pending = delta if self._scale == 1.0 else self._ops.scale(delta, self._scale)

    def value(self) -> Array:
        """The sum: [T, hidden]. Its memory is reused by whatever is added later."""
        if self._pending is not None:
            self._value, self._pending = self._ops.add(self._value, self._pending), None
        return self._value

    def normed(self, norm: Norm | None) -> Array:
        """The sum through `norm`: [T, hidden]."""
        if norm is None:
            return self.value()
        if self._pending is None:
            return norm.forward(self._value, self._ops)
        self._value, normed = norm.after_add(self._value, self._pending, self._ops)
        self._pending = None
        return normed

    def keep(self, rows: IntArray | None) -> bool:
        """Go on with these rows alone (None = all). Whether there is any."""
        if rows is not None:
            self._value = self._ops.take_rows(self.value(), rows)
        return len(self._value) > 0


class Layer(Protocol):
    """One layer of the decoder."""

    @property
    def attention(self) -> Attention: ...

    def forward(self, stream: ResidualStream, step: Step, rows: IntArray | None) -> None:
        """Add to the stream; past the cache, `rows` alone are wanted (None = all)."""


@dataclass(frozen=True, slots=True)
class SequentialLayer:
    """Attention, then feed-forward on their sum. Either may be normed before, after, or both."""

    attn_norm: Norm | None
    attention: Attention
    attn_post_norm: Norm | None
    ffn_norm: Norm | None
    ffn: FeedForward
    ffn_post_norm: Norm | None

    def forward(self, stream: ResidualStream, step: Step, rows: IntArray | None) -> None:
        delta = self.attention.forward(stream.normed(self.attn_norm), step, rows)
        if not stream.keep(rows):
            return
        if self.attn_post_norm is not None:
            delta = self.attn_post_norm.forward(delta, step.ops)
        stream.add(delta)
        delta = self.ffn.forward(stream.normed(self.ffn_norm), step.ops)
        if self.ffn_post_norm is not None:
            delta = self.ffn_post_norm.forward(delta, step.ops)
        stream.add(delta)


@dataclass(frozen=True, slots=True)
class ParallelLayer:
    """Attention and feed-forward side by side, each on its own norm of the same sum."""

    attn_norm: Norm
    attention: Attention
    ffn_norm: Norm
    ffn: FeedForward

    def forward(self, stream: ResidualStream, step: Step, rows: IntArray | None) -> None:
        delta = self.attention.forward(stream.normed(self.attn_norm), step, rows)
        if not stream.keep(rows):
            return
        beside = self.ffn.forward(stream.normed(self.ffn_norm), step.ops)
        stream.add(delta)
        stream.add(beside)


@dataclass(slots=True)
class Decoder:
    """`CausalLM` of the families whose layers are `Layer`s."""

    config: ModelConfig
    embedding: Weight
    layers: tuple[Layer, ...]
    output_norm: Norm
    output: Weight  # the embedding itself where tied
    device_bytes: int
    embedding_norm: Norm | None = None
    # Those of the layers, by canonical name: what an adapter may change.
    matrices: Mapping[str, Weight] = field(default_factory=dict)

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        return tuple(layer.attention.kv_layer() for layer in self.layers)

    def weight_bytes(self) -> int:
        return self.device_bytes

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        config = self.config
        tables = tuple(ops.rope_tables(spec, batch.positions) for spec in config.rotations())
        step = Step(batch, cache, ops, tables, _temperature(config, batch))
        x = ops.embed(self.embedding, batch.token_ids)  # [T, hidden]
        if config.embedding_scale != 1.0:
            x = ops.scale(x, config.embedding_scale)
        if self.embedding_norm is not None:
            x = self.embedding_norm.forward(x, ops)
        stream = ResidualStream(x, ops, config.residual_scale)
        for layer in self.layers[:-1]:
            layer.forward(stream, step, None)
        # Past its keys and values the last layer is needed only where logits are wanted.
        rows = wanted_rows(batch)
        self.layers[-1].forward(stream, step, rows)
        if rows is not None and not len(rows):
            return stream.value()
        return stream.normed(self.output_norm)

    def logits(self, hidden: Array, ops: Ops) -> Array:
        config = self.config
        logits = ops.linear(hidden, self.output)
        if config.logit_scale != 1.0:
            logits = ops.scale(logits, config.logit_scale)
        return ops.softcap(logits, config.final_softcap) if config.final_softcap else logits


def _temperature(config: ModelConfig, batch: ForwardBatch) -> FloatArray | None:
    """Factors of the queries, or None where they change nothing: short of the trained length."""
    if config.query_temperature is None:
        return None
    factors = config.query_temperature.factors(batch.positions)
    return None if bool(np.all(factors == 1.0)) else factors


def wanted_rows(batch: ForwardBatch) -> IntArray | None:
    """`logits_rows`, or None where that is simply every row in order (plain decoding)."""
    rows = batch.logits_rows
    everything = len(rows) == batch.num_tokens and bool(
        np.array_equal(rows, np.arange(batch.num_tokens))
    )
    return None if everything else rows
