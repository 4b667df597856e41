# SPDX-License-Identifier: Apache-2.0
"""Attention of Gemma 3n and 4: queries, keys and values normed per head, scores not scaled, and
layers that read an earlier layer's keys and values instead of having any.

Knows ops and tensor names; what surrounds attention in a layer is the families' business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from freehold.batch import ForwardBatch, IntArray, KVTables
from freehold.models._gemma4_config import Gemma4Config
from freehold.models._weights import Expected, WeightLoader
from freehold.ops import Array, AttentionSpec, KVCache, Ops, Weight

Table = tuple[Array, Array]  # cosines and sines


@dataclass(frozen=True, slots=True)
class SharedAttention:
    """One layer's; `key` is None where it reads another's, `value` also where keys serve as
    values, which are then taken before their norm and rotation."""

    query: Weight  # [heads · head_dim, hidden]
    key: Weight | None  # [kv_heads · head_dim, hidden]
    value: Weight | None
    query_norm: Array  # [head_dim]
    key_norm: Array | None
    value_norm: Array | None  # ones: the norm has no weights
    output: Weight  # [hidden, heads · head_dim]
    spec: AttentionSpec
    cache_layer: int  # where its keys and values lie
    rotation: int  # index among the rotations of the model

    def write(
        self, x: Array, batch: ForwardBatch, cache: KVCache, table: Table, eps: float, ops: Ops
    ) -> Array:
        """Store keys and values of x [T, hidden] where the layer has any; its queries, normed and
        rotated: [T, heads · head_dim]."""
        weights = [w for w in (self.query, self.key, self.value) if w is not None]
        projected = ops.linear_many(x, weights, [None] * len(weights))
        q = ops.rms_norm(projected[0], self.query_norm, eps)
        if self.key_norm is not None and self.value_norm is not None:
            k = ops.rms_norm(projected[1], self.key_norm, eps)
            v = ops.rms_norm(projected[-1], self.value_norm, eps)
            k = ops.rope(k, *table, self.spec.head_dim, False)
            ops.write_kv(cache, self.cache_layer, k, v, batch)
        return ops.rope(q, *table, self.spec.head_dim, False)


def last_queries(batch: ForwardBatch, rows: IntArray) -> ForwardBatch | None:
    """`batch` as if only `rows`, ascending, asked; sequences without any fall away. None where
    they are not the last rows of their sequences, which no batch can say.

    Past the last layer that writes keys nobody looks at other rows: for a prompt that leaves one
    row in hundreds, over all layers that share keys."""
    bounds = batch.query_start_loc
    counts = np.searchsorted(rows, bounds[1:]) - np.searchsorted(rows, bounds[:-1])
    ends = zip(bounds[1:].tolist(), counts.tolist(), strict=True)
    last = np.concatenate([np.arange(stop - count, stop) for stop, count in ends])
    if not np.array_equal(last, rows):
        return None
    asking = counts > 0
    starts = np.concatenate([[0], np.cumsum(counts[asking])]).astype(np.int32)
    return ForwardBatch(
        token_ids=batch.token_ids[rows],
        positions=batch.positions[rows],
        query_start_loc=starts,
        seq_lens=batch.seq_lens[asking],
        tables=tuple(KVTables(t.slot_mapping[rows], t.block_tables[asking]) for t in batch.tables),
        logits_rows=np.arange(len(rows), dtype=np.int32),
    )


def expected_attention(config: Gemma4Config, layer: int) -> Iterator[tuple[str, Expected]]:
    """Canonical name and shape of each tensor of the layer's attention, norms around it left out.

    Published files hold keys and values of layers that share others'; they are not used."""
    blk, hidden, dim = f"blk.{layer}.", config.hidden_size, config.head_dims[layer]
    kv_rows = config.kv_heads[layer] * dim
    own = layer < config.first_shared
    yield blk + "attn_q.weight", Expected((config.num_heads * dim, hidden))
    yield blk + "attn_q_norm.weight", Expected((dim,))
    yield blk + "attn_k.weight", Expected((kv_rows, hidden), own)
    yield blk + "attn_k_norm.weight", Expected((dim,), own)
    if layer not in config.keys_are_values:
        yield blk + "attn_v.weight", Expected((kv_rows, hidden), own)
    yield blk + "attn_output.weight", Expected((hidden, config.num_heads * dim))


def load_attention(weights: WeightLoader, config: Gemma4Config, layer: int) -> SharedAttention:
    """Hand the tensors of `layer` to the device; they have been checked."""
    blk, dim = f"blk.{layer}.", config.head_dims[layer]
    own = layer < config.first_shared
    has_values = own and layer not in config.keys_are_values
    return SharedAttention(
        query=weights.matrix(blk + "attn_q.weight"),
        key=weights.matrix(blk + "attn_k.weight") if own else None,
        value=weights.matrix(blk + "attn_v.weight") if has_values else None,
        query_norm=weights.vector(blk + "attn_q_norm.weight"),
        key_norm=weights.vector(blk + "attn_k_norm.weight") if own else None,
        value_norm=weights.made_vector(np.ones(dim, dtype=np.float32)) if own else None,
        output=weights.matrix(blk + "attn_output.weight"),
        spec=AttentionSpec(
            num_heads=config.num_heads,
            num_kv_heads=config.kv_heads[layer],
            head_dim=dim,
            value_dim=dim,
            scale=config.attention_scale,
            window=config.window(layer),
        ),
        cache_layer=config.source(layer),  # layers with keys of their own come first
        rotation=1 if config.window(layer) else 0,
    )
