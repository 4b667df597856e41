# SPDX-License-Identifier: Apache-2.0
"""Grouped-query attention over the paged cache, put together from ops.

Knows the order of its steps: projections, norms of queries and keys, rotation, temperature,
attention, gate, output. Knows no tensor names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from freehold.batch import IntArray
from freehold.models._decoder import Norm, Step
from freehold.ops import Array, AttentionSpec, KVLayerSpec, Ops, Weight


class Projection(Protocol):
    """From the layer's input to queries, keys and values."""

    def forward(self, x: Array, ops: Ops) -> tuple[Array, Array, Array]:
        """[T, hidden] to three arrays [T, heads · head_dim]."""


@dataclass(frozen=True, slots=True)
class SplitProjection:
    """A matrix each for queries, keys and values."""

    weights: tuple[Weight, Weight, Weight]
    biases: tuple[Array | None, Array | None, Array | None]

    def forward(self, x: Array, ops: Ops) -> tuple[Array, Array, Array]:
        q, k, v = ops.linear_many(x, self.weights, self.biases)
        return q, k, v


@dataclass(frozen=True, slots=True)
class FusedProjection:
    """One matrix: the rows of all queries, then those of the keys, then those of the values."""

    weight: Weight
    bias: Array | None
    key_start: int
    value_start: int

    def forward(self, x: Array, ops: Ops) -> tuple[Array, Array, Array]:
        fused = ops.linear(x, self.weight, self.bias)
        first, second = self.key_start, self.value_start
        return fused[:, :first], fused[:, first:second], fused[:, second:]


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """`_decoder.Attention` of the dense families."""

    projection: Projection
    q_norm: Norm | None  # before rotation
    k_norm: Norm | None
    output: Weight
    output_bias: Array | None
    spec: AttentionSpec
    layer: int  # of the cache
    rotation: int | None  # which of the step's tables; None = positions do not enter
    interleaved: bool
    tempered: bool = False  # whether the step's temperature multiplies the queries
    late_norm: Norm | None = None  # of queries and keys, after rotation
    sinks: Array | None = None  # [heads] what each head's softmax gives to no key
    gate: Weight | None = None  # the sigmoid of its product multiplies what attention gives

    def kv_layer(self) -> KVLayerSpec:
        spec = self.spec
        return KVLayerSpec(spec.num_kv_heads, spec.head_dim, spec.value_dim, spec.reach)

    def forward(self, x: Array, step: Step, rows: IntArray | None) -> Array:
        ops, spec = step.ops, self.spec
        q, k, v = self.projection.forward(x, ops)
        if self.q_norm is not None:
            q = self.q_norm.forward(q, ops)
        if self.k_norm is not None:
            k = self.k_norm.forward(k, ops)
        if self.rotation is not None:
            cos, sin = step.tables[self.rotation]
            q = ops.rope(q, cos, sin, spec.head_dim, self.interleaved)
            k = ops.rope(k, cos, sin, spec.head_dim, self.interleaved)
        if self.late_norm is not None:
            q, k = self.late_norm.forward(q, ops), self.late_norm.forward(k, ops)
        if self.tempered and step.temperature is not None:
            q = ops.scale_rows(q, step.temperature)
        ops.write_kv(step.cache, self.layer, k, v, step.batch)
        if rows is not None and not len(rows):
            return x[:0]
        # Mostly those are the last ones of their sequences, and no other needs to look at its keys.
        batch, wanted = step.batch, rows
        if rows is not None and (alone := batch.of_last_rows(rows)) is not None:
            q, batch, wanted = ops.take_rows(q, rows), alone, None
        mixed = ops.attention(q, step.cache, self.layer, batch, spec, self.sinks)
        if wanted is not None:
            mixed = ops.take_rows(mixed, wanted)
        if rows is not None:
            x = ops.take_rows(x, rows)
        if self.gate is not None:
            mixed = ops.sigmoid_gate(mixed, ops.linear(x, self.gate))
        return ops.linear(mixed, self.output, self.output_bias)
