# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention (arXiv:2405.04434 §2.1) in its absorbed form, and the indexer of
DeepSeek Sparse Attention.

What is cached of a token is one vector for all heads: the latent, normed, and the rotated part of
the key. Queries are carried into the latent's space, where they meet it as it is, and what
attention gives is carried out of it head by head. Prompts go the same way as single tokens, so
that a token's bits do not hang on how its prompt was cut; ARCHITECTURE.md counts what that costs.
Knows no tensor names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freehold.batch import IntArray
from freehold.models._decoder import Decoder, Norm, Step
from freehold.models._latent_sizes import LatentModelConfig
from freehold.ops import Array, AttentionSpec, KVLayerSpec, Weight


@dataclass(frozen=True, slots=True)
class Indexer:
    """Picks the positions that are worth attending to, by small heads and keys of its own."""

    query: Weight  # [heads · dim, query rank]
    key: Weight  # [dim, hidden]
    key_norm: Norm
    head_weights: Weight  # [heads, hidden]
    heads: int
    dim: int
    count: int  # positions to pick
    layer: int  # of the cache

    def write(self, x: Array, step: Step) -> None:
        """Store the keys of every row of x [T, hidden]."""
        ops, (cos, sin) = step.ops, step.tables[0]
        key = self.key_norm.forward(ops.linear(x, self.key), ops)
        # Halves of the first dimensions, where attention itself rotates neighbours.
        key = ops.rope(key, cos, sin, self.dim, False)
        ops.write_kv(step.cache, self.layer, key, None, step.batch)

    def select(self, x: Array, query_latent: Array, step: Step) -> Array | None:
        """What `Ops.attention` takes as ``selected``."""
        ops, (cos, sin) = step.ops, step.tables[0]
        query = ops.rope(ops.linear(query_latent, self.query), cos, sin, self.dim, False)
        weights = ops.scale(ops.linear(x, self.head_weights), (self.heads * self.dim) ** -0.5)
        return ops.top_keys(query, weights, step.cache, self.layer, step.batch, self.count)


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """`_decoder.Attention` over a cache of latents."""

    query_down: Weight | None  # [query rank, hidden]; None where queries come straight
    query_down_bias: Array | None
    query_norm: Norm | None
    query: Weight  # [heads · (nope + rotated), query rank or hidden]
    latent: Weight  # [rank + rotated, hidden]
    latent_bias: Array | None
    latent_norm: Norm
    into_latent: tuple[Weight, ...]  # of each head, [rank, nope]
    out_of_latent: tuple[Weight, ...]  # of each head, [value_dim, rank]
    output: Weight
    output_bias: Array | None
    spec: AttentionSpec  # one key head of rank + rotated dimensions
    nope_dim: int
    layer: int  # of the cache
    interleaved: bool
    tempered: bool
    indexer: Indexer | None

    def kv_layer(self) -> KVLayerSpec:
        return KVLayerSpec(1, self.spec.head_dim, 0)

    def forward(self, x: Array, step: Step, rows: IntArray | None) -> Array:
        ops, spec = step.ops, self.spec
        if self.query_down is None or self.query_norm is None:
            query_latent = x
            query, latent = ops.linear_many(x, (self.query, self.latent), (None, self.latent_bias))
        else:
            weights = (self.query_down, self.latent)
            query_latent, latent = ops.linear_many(
                x, weights, (self.query_down_bias, self.latent_bias)
            )
            query_latent = self.query_norm.forward(query_latent, ops)
            query = ops.linear(query_latent, self.query)
        self._write(latent, step)
        if self.indexer is not None:
            self.indexer.write(x, step)
        if rows is not None and not len(rows):
            return x[:0]
        selected = None if self.indexer is None else self.indexer.select(x, query_latent, step)
        query = self._carried(query, step)
        mixed = ops.attention(query, step.cache, self.layer, step.batch, spec, selected=selected)
        if rows is not None:
            mixed = ops.take_rows(mixed, rows)
        return ops.linear(
            ops.linear_heads(mixed, self.out_of_latent), self.output, self.output_bias
        )

    def _write(self, latent: Array, step: Step) -> None:
        """Norm the latent, rotate what stands behind it, store both as the key."""
        ops, rank, (cos, sin) = step.ops, self.spec.value_dim, step.tables[0]
        normed = self.latent_norm.forward(latent[:, :rank], ops)
        rotated_dim = self.spec.head_dim - rank
        rotated = ops.rope(latent[:, rank:], cos, sin, rotated_dim, self.interleaved)
        key = ops.join((normed, rotated))
        ops.write_kv(step.cache, self.layer, key, None, step.batch)

    def _carried(self, query: Array, step: Step) -> Array:
        """Queries in the latent's space: [T, heads · (rank + rotated)]."""
        ops, (cos, sin) = step.ops, step.tables[0]
        head_dim = self.nope_dim + self.spec.head_dim - self.spec.value_dim
        query = ops.rope(query, cos, sin, head_dim, self.interleaved, self.nope_dim)
        if self.tempered and step.temperature is not None:
            query = ops.scale_rows(query, step.temperature)
        return ops.linear_heads(query, self.into_latent)


class LatentDecoder(Decoder):
    """A decoder whose cache layers are those of its attention, then those of its indexers."""

    __slots__ = ()

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        assert isinstance(self.config, LatentModelConfig)
        return self.config.kv_layers()
