# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V4's parts: residual streams, compressed attention, experts chosen by token.

The residual is several streams (hyper-connections, arXiv:2512.24880): each half layer gathers them
into one vector, and what it makes of that goes into all of them, which are mixed besides. Attention
has one key head whose keys are its values, rotated; the rotation is undone on what comes out. Next
to a window of keys it sees entries, each made of many positions. Knows no tensor names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.batch import ForwardBatch, IntArray
from freehold.models._decoder import RmsNorm
from freehold.models._deepseek4_sizes import CompressedConfig, LayerCaches
from freehold.ops import Array, AttentionSpec, Expert, KVCache, Ops, RopeSpec, RoutingSpec, Weight

Rotation = tuple[Array, Array]  # cos and sin
Streams = tuple[Array, ...]  # each [T, hidden]


class Pass:
    """What all layers of one forward pass share. Rotations are made when first asked for."""

    def __init__(
        self, batch: ForwardBatch, cache: KVCache, ops: Ops, plain: RopeSpec, compressed: RopeSpec
    ) -> None:
        self.batch, self.cache, self.ops = batch, cache, ops
        self._specs = (plain, compressed)
        self._made: dict[tuple[bool, int], Rotation] = {}

    def rotation(self, compressed: bool) -> Rotation:
        """Of every row."""
        return self._rotation(compressed, 0)

    def undoing(self, compressed: bool) -> Rotation:
        """The opposite of `rotation`."""
        return self._rotation(compressed, -1)

    def entry_rotation(self, ratio: int) -> Rotation:
        """Of the entries that this batch ends, each at its first position."""
        return self._rotation(True, ratio)

    def _rotation(self, compressed: bool, kind: int) -> Rotation:
        key = (compressed, kind)
        if key not in self._made:
            spec, positions = self._specs[compressed], self.batch.positions
            if kind < 0:
                spec = RopeSpec(-spec.inv_freq, spec.interleaved, spec.magnitude)
            if kind > 0:
                positions = positions[(positions + 1) % kind == 0] + np.int32(1 - kind)
            self._made[key] = self.ops.rope_tables(spec, positions)
        return self._made[key]


@dataclass(frozen=True, slots=True)
class StreamMixer:
    """The weights with which streams are gathered, and fed what was made of them."""

    project: Weight  # [(2 + S) · S, S · hidden]; [S, S · hidden] behind the last layer
    base: Array
    scale: Array
    ones: Array  # [S · hidden], of a norm without weights
    norm_eps: float
    rounds: int
    eps: float

    def gather(self, streams: Streams, ops: Ops) -> tuple[Array, Array | None]:
        """The streams as one, [T, hidden], and what `feed` needs of them."""
        normed = ops.rms_norm(ops.join(streams), self.ones, self.norm_eps)
        gathered, shares = ops.stream_weights(
            ops.linear(normed, self.project), self.base, self.scale, len(streams), self.rounds,
            self.eps,
        )  # fmt: skip
        return ops.mix_streams(streams, gathered)[0], shares


def feed(streams: Streams, made: Array, shares: Array | None, ops: Ops) -> Streams:
    """The streams mixed, with what a half layer made of them in each."""
    assert shares is not None
    return ops.mix_streams((*streams, made), shares)


@dataclass(frozen=True, slots=True)
class Compressor:
    """Makes entries: of every `ratio` positions one, that overlaps the one before if so told."""

    key: Weight
    gate: Weight
    bias: Array  # [ratio, rows of key]
    norm: RmsNorm
    dim: int
    ratio: int
    overlap: bool
    raw: int  # cache layers
    entries: int

    def write(self, x: Array, step: Pass, rotated_dim: int) -> None:
        """Store what entries are made of for every row of x [T, hidden], and the entries that
        these rows end."""
        ops = step.ops
        keys, gates = ops.linear_many(x, (self.key, self.gate), (None, None))
        ops.write_kv(step.cache, self.raw, keys, gates, step.batch)
        made = ops.compress(step.cache, self.raw, step.batch, self.bias, self.overlap)
        if len(made):
            cos, sin = step.entry_rotation(self.ratio)
            made = self.norm.forward(made, ops)
            made = ops.rope(made, cos, sin, self.dim, True, self.dim - rotated_dim)
        ops.write_kv(step.cache, self.entries, made, None, step.batch)


@dataclass(frozen=True, slots=True)
class EntryIndexer:
    """Picks the entries that are worth attending to, by small entries of its own."""

    compressor: Compressor
    query: Weight  # [heads · dim, query rank]
    head_weights: Weight  # [heads, hidden]
    heads: int
    count: int

    def select(self, x: Array, query_latent: Array, step: Pass, rotated_dim: int) -> Array | None:
        """What `Ops.attention_with_entries` takes as ``selected``."""
        ops, dim, (cos, sin) = step.ops, self.compressor.dim, step.rotation(True)
        query = ops.linear(query_latent, self.query)
        query = ops.rope(query, cos, sin, dim, True, dim - rotated_dim)
        weights = ops.scale(ops.linear(x, self.head_weights), (self.heads * dim) ** -0.5)
        layer = self.compressor.entries
        return ops.top_keys(query, weights, step.cache, layer, step.batch, self.count)


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """One key head that is its own value, in a window, and perhaps entries beyond it."""

    query_down: Weight  # [query rank, hidden]
    query_norm: RmsNorm
    query: Weight  # [heads · head_dim, query rank]
    head_norm: RmsNorm  # of each query, without weights
    key: Weight  # [head_dim, hidden]
    key_norm: RmsNorm
    output_parts: tuple[Weight, ...]  # of each group of heads
    output: Weight  # [hidden, groups · rank]
    sinks: Array  # [heads]
    spec: AttentionSpec
    rotated_dim: int
    caches: LayerCaches
    compressor: Compressor | None
    indexer: EntryIndexer | None

    def forward(self, x: Array, step: Pass, rows: IntArray | None) -> Array:
        """Store what every row of x [T, hidden] leaves behind, then answer for the wanted ones
        (None = all): [T or len(rows), hidden]."""
        ops, dim, compressed = step.ops, self.spec.head_dim, self.compressor is not None
        (cos, sin), offset = step.rotation(compressed), dim - self.rotated_dim
        latent, key = ops.linear_many(x, (self.query_down, self.key), (None, None))
        latent, key = self.query_norm.forward(latent, ops), self.key_norm.forward(key, ops)
        key = ops.rope(key, cos, sin, dim, True, offset)
        ops.write_kv(step.cache, self.caches.window, key, None, step.batch)
        if self.compressor is not None:
            self.compressor.write(x, step, self.rotated_dim)
        if self.indexer is not None:
            self.indexer.compressor.write(x, step, self.rotated_dim)
        if rows is not None and not len(rows):
            return x[:0]
        query = self.head_norm.forward(ops.linear(latent, self.query), ops)
        query = ops.rope(query, cos, sin, dim, True, offset)
        mixed = self._attend(query, x, latent, step)
        mixed = ops.rope(mixed, *step.undoing(compressed), dim, True, offset)
        if rows is not None:
            mixed = ops.take_rows(mixed, rows)
        return ops.linear(ops.linear_heads(mixed, self.output_parts), self.output)

    def _attend(self, query: Array, x: Array, latent: Array, step: Pass) -> Array:
        ops, caches = step.ops, self.caches
        if self.compressor is None:
            return ops.attention(
                query, step.cache, caches.window, step.batch, self.spec, sinks=self.sinks
            )
        selected = None
        if self.indexer is not None:
            selected = self.indexer.select(x, latent, step, self.rotated_dim)
        return ops.attention_with_entries(
            query, step.cache, caches.window, caches.entries, step.batch, self.spec, self.sinks,
            selected,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenExperts:
    """Experts chosen by score and bias, or by a table of tokens; and one that all pass through."""

    router: Weight  # [experts, hidden]
    experts: tuple[Expert, ...]
    shared: Expert
    routing: RoutingSpec
    bias: Array | None  # [experts], of the choice
    table: npt.NDArray[np.int32] | None  # [vocabulary, top_k]
    limit: float

    def forward(self, x: Array, tokens: IntArray, ops: Ops) -> Array:
        """[T, hidden] to [T, hidden]; `tokens` [T] are what the rows stand for."""
        fixed = None if self.table is None else self.table[tokens]
        chosen, weights = ops.route(ops.linear(x, self.router), self.routing, self.bias, fixed)
        mixed = ops.moe(x, self.experts, chosen, weights, "silu", limit=self.limit)
        always = ops.gate_up(x, self.shared.gate, self.shared.up, "silu", limit=self.limit)
        return ops.add(mixed, ops.linear(always, self.shared.down))


@dataclass(frozen=True, slots=True)
class StreamLayer:
    """Attention and experts, each between the streams."""

    attn_mixer: StreamMixer
    attn_norm: RmsNorm
    attention: CompressedAttention
    ffn_mixer: StreamMixer
    ffn_norm: RmsNorm
    experts: TokenExperts

    def forward(self, streams: Streams, step: Pass, rows: IntArray | None) -> Streams:
        """The streams behind the layer, of the wanted rows (None = all)."""
        ops, tokens = step.ops, step.batch.token_ids
        x, shares = self.attn_mixer.gather(streams, ops)
        made = self.attention.forward(self.attn_norm.forward(x, ops), step, rows)
        if rows is not None:
            streams = tuple(ops.take_rows(stream, rows) for stream in streams)
            if not len(rows):
                return streams
            assert shares is not None
            tokens, shares = tokens[rows], ops.take_rows(shares, rows)
        streams = feed(streams, made, shares, ops)
        x, shares = self.ffn_mixer.gather(streams, ops)
        return feed(
            streams, self.experts.forward(self.ffn_norm.forward(x, ops), tokens, ops), shares, ops
        )


def attention_spec(heads: int, head_dim: int, sizes: CompressedConfig) -> AttentionSpec:
    """All layers see the same window."""
    return AttentionSpec(heads, 1, head_dim, head_dim, head_dim**-0.5, window=sizes.window)
