# SPDX-License-Identifier: Apache-2.0
"""Compressed attention and hyper-connections, for the backends whose activations are NumPy arrays.

Knows how entries lie in blocks, how one is made of the rows before it, and one softmax over a
window of keys and the entries. float64 inside, and each row is computed from itself alone, by
products whose shapes depend on its position only: its bits are the same in any company. Knows no
weights, and of speed only to read what it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from freehold.backends._kv_store import Rows
from freehold.backends._reference_attention import WORD, Bits, first_visible, search, spread
from freehold.batch import ForwardBatch, KVTables
from freehold.errors import InvalidParameterError
from freehold.ops import AttentionSpec, FloatArray

Wide = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RowLayer:
    """One layer of a cache whose rows can be read, and how its positions become slots."""

    keys: Rows
    values: Rows
    group: int
    stride: int
    block_size: int

    def write(self, k: FloatArray, v: FloatArray | None, batch: ForwardBatch) -> None:
        """`Ops.write_kv`. Raises InvalidParameterError where rows or values do not agree."""
        if (v is None) != (self.values.dim == 0):
            raise InvalidParameterError("values go to layers that store some, and to no other")
        tables = batch.tables[self.group]
        if self.stride == 1:
            slots = tables.slot_mapping.astype(np.int64)
        else:
            rows, sequences = ending_rows(batch, self.stride)
            ended = batch.positions[rows].astype(np.int64) // self.stride
            slots = self._slots(tables, sequences, ended)
        if len(k) != len(slots):
            raise InvalidParameterError(f"{len(slots)} rows are due, not {len(k)}")
        with np.errstate(all="ignore"):  # a key beyond f16's range is stored as infinity
            self.keys.write(slots, k)
            if v is not None:
                self.values.write(slots, v)

    def slots(self, batch: ForwardBatch, sequences: Places | int, places: Places) -> Places:
        """Where the given positions, or with a stride entries, of those sequences lie."""
        return self._slots(batch.tables[self.group], sequences, places)

    def read_blocks(self, blocks: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """Bytes of whole blocks: [blocks, bytes]."""
        slots = -(-self.block_size // self.stride)
        both = [rows.read_blocks(blocks, slots) for rows in (self.keys, self.values)]
        return np.concatenate(both, axis=1)

    def write_blocks(self, blocks: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> None:
        """Put back what `read_blocks` gave."""
        slots = -(-self.block_size // self.stride)
        middle = self.keys.block_nbytes(slots)
        self.keys.write_blocks(blocks, slots, data[:, :middle])
        self.values.write_blocks(blocks, slots, data[:, middle:])

    @property
    def num_blocks(self) -> int:
        """Blocks of its group."""
        return self.keys.slots // -(-self.block_size // self.stride)

    def block_nbytes(self) -> int:
        """Bytes of a block."""
        slots = -(-self.block_size // self.stride)
        return self.keys.block_nbytes(slots) + self.values.block_nbytes(slots)

    def copy_blocks(self, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]) -> None:
        inside = np.arange(-(-self.block_size // self.stride), dtype=np.int64)
        pairs = [(ids.astype(np.int64)[:, None] * len(inside) + inside).ravel()
                 for ids in (src, dst)]  # fmt: skip
        self.keys.copy(*pairs)
        self.values.copy(*pairs)

    def _slots(self, tables: KVTables, sequences: Places | int, places: Places) -> Places:
        block = (places * self.stride + self.stride - 1) // self.block_size
        # The first entry that ends in the block may begin before it.
        within = places - block * self.block_size // self.stride
        table = tables.block_tables[sequences, block].astype(np.int64)
        return np.asarray(table * -(-self.block_size // self.stride) + within)


def ending_rows(batch: ForwardBatch, stride: int) -> tuple[Places, Places]:
    """Rows of the batch whose position ends an entry, and their sequences."""
    rows = np.flatnonzero((batch.positions.astype(np.int64) + 1) % stride == 0)
    counts = np.diff(batch.query_start_loc)
    return rows, np.repeat(np.arange(len(counts)), counts)[rows]


def compress(layer: RowLayer, batch: ForwardBatch, bias: FloatArray, overlap: bool) -> FloatArray:
    """`Ops.compress`."""
    ratio, width = bias.shape
    rows, sequences = ending_rows(batch, ratio)
    span = 2 * ratio if overlap else ratio
    places = batch.positions[rows].astype(np.int64)[:, None] + np.arange(1 - span, 1)
    before = places < 0  # of the very first entry
    slots = layer.slots(batch, sequences[:, None], np.maximum(places, 0))
    shape = (len(rows), span, width)
    keys = layer.keys.read(slots.ravel()).reshape(shape).astype(np.float64)
    gates = layer.values.read(slots.ravel()).reshape(shape).astype(np.float64)
    gates += np.tile(bias, (span // ratio, 1))
    if overlap:
        keys, gates = (_crossed(part, ratio) for part in (keys, gates))
    with np.errstate(all="ignore"):
        gates[before] = -np.inf
        keys[before] = 0.0
        shares = np.exp(gates - gates.max(axis=1, keepdims=True, initial=-np.inf))
        total = shares.sum(axis=1)
        return np.asarray((shares * keys).sum(axis=1) / total, dtype=np.float32)


def attend_with_entries(
    q: FloatArray,
    window: RowLayer,
    entries: RowLayer,
    batch: ForwardBatch,
    spec: AttentionSpec,
    sinks: FloatArray,
    selected: Bits | None,
) -> FloatArray:
    """`Ops.attention_with_entries`."""
    out = np.empty((len(q), spec.num_heads * spec.value_dim), dtype=np.float32)
    queries = q.reshape(len(q), spec.num_heads, spec.head_dim)
    floor = sinks.astype(np.float64)[:, None]
    for sequence, (start, stop) in enumerate(pairwise(batch.query_start_loc.tolist())):
        if start == stop:
            continue
        positions = batch.positions[start:stop].tolist()
        first, last = first_visible(positions[0], spec), positions[-1]
        near = window.keys.read(window.slots(batch, sequence, np.arange(first, last + 1)))[:, 0]
        slots = entries.slots(batch, sequence, np.arange((last + 1) // entries.stride))
        far = entries.keys.read(slots)[:, 0] if selected is None else None
        for row, position in enumerate(positions, start):
            seen = (position + 1) // entries.stride
            if selected is None:
                entry_keys = far[:seen] if far is not None else near[:0]
            else:
                chosen = np.flatnonzero(spread(selected[row : row + 1], seen)[0])
                entry_keys = entries.keys.read(slots[chosen])[:, 0]
            begin = first_visible(position, spec) - first
            both = (near[begin : position - first + 1], entry_keys)
            keys = np.concatenate(both).astype(np.float64)
            out[row] = _softmax_row(queries[row], keys, spec, floor)
    return out


def search_entries(
    q: FloatArray, weights: FloatArray, layer: RowLayer, batch: ForwardBatch, count: int
) -> Bits | None:
    """`Ops.top_keys` in a layer with a stride."""
    if count < 1:
        raise InvalidParameterError("at least one key must be kept")
    longest = int(batch.seq_lens.max(initial=0)) // layer.stride
    if longest <= count:
        return None
    words = -(-longest // WORD)
    bits = np.zeros((len(q), words), dtype=np.uint64)
    for sequence, (start, stop) in enumerate(pairwise(batch.query_start_loc.tolist())):
        ends = (batch.positions[start:stop].astype(np.int32) + 1) // layer.stride
        slots = layer.slots(batch, sequence, np.arange(int(ends.max(initial=0))))
        keys = layer.keys.read(slots)[:, 0]
        for row, seen in enumerate(ends, start):
            one = slice(row, row + 1)
            last = np.array([seen - 1], dtype=np.int32)
            if seen:
                bits[one] = search(q[one], weights[one], keys[:seen], last, count, words)
    return bits


def stream_weights(
    x: FloatArray, base: FloatArray, scale: FloatArray, streams: int, rounds: int, eps: float
) -> tuple[FloatArray, FloatArray | None]:
    """`Ops.stream_weights`."""
    wide, offsets, factors = (part.astype(np.float64) for part in (x, base, scale))
    with np.errstate(all="ignore"):
        gathered = _sigmoid(wide[:, :streams] * factors[0] + offsets[:streams]) + eps
        if x.shape[1] == streams:
            return gathered.astype(np.float32), None
        spread_out = 2.0 * _sigmoid(
            wide[:, streams : 2 * streams] * factors[1] + offsets[streams : 2 * streams]
        )
        mix = wide[:, 2 * streams :] * factors[2] + offsets[2 * streams :]
        mix = mix.reshape(-1, streams, streams)  # [T, from, to]
        mix = np.exp(mix - mix.max(axis=2, keepdims=True))
        mix = mix / mix.sum(axis=2, keepdims=True) + eps
        mix = mix / (mix.sum(axis=1, keepdims=True) + eps)
        for _ in range(rounds - 1):
            mix = mix / (mix.sum(axis=2, keepdims=True) + eps)
            mix = mix / (mix.sum(axis=1, keepdims=True) + eps)
    shares = np.concatenate([mix.transpose(0, 2, 1), spread_out[:, :, None]], axis=2)
    return gathered.astype(np.float32), shares.reshape(len(x), -1).astype(np.float32)


def _crossed(values: Wide, ratio: int) -> Wide:
    """[C, 2 · ratio, 2 · D]: the first dimensions of the former rows, the last of the latter."""
    half = values.shape[2] // 2
    return np.concatenate([values[:, :ratio, :half], values[:, ratio:, half:]], axis=1)


def _softmax_row(query: FloatArray, keys: Wide, spec: AttentionSpec, floor: Wide) -> FloatArray:
    """One position: [heads · value_dim] of query [heads, head_dim] and all keys it sees."""
    with np.errstate(all="ignore"):
        scores = query.astype(np.float64) @ keys.T * spec.scale  # [heads, keys]
        top = np.maximum(scores.max(axis=1, keepdims=True), floor)
        weights = np.exp(scores - top)
        weights /= weights.sum(axis=1, keepdims=True) + np.exp(floor - top)
        mixed = weights @ keys[:, : spec.value_dim]
        return np.asarray(mixed.reshape(-1), dtype=np.float32)


def _sigmoid(x: Wide) -> Wide:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def read_layer_blocks(
    layers: Sequence[RowLayer], blocks: npt.NDArray[np.int32], *, before: list[Bytes]
) -> Bytes:
    """`Ops.read_blocks` of layers with rows, after the bytes of others: [blocks, bytes]."""
    parts = [*before, *(layer.read_blocks(blocks) for layer in layers)]
    empty = np.zeros((len(blocks), 0), np.uint8)
    return np.ascontiguousarray(np.concatenate([empty, *parts], axis=1))


def write_layer_blocks(
    layers: Sequence[RowLayer], blocks: npt.NDArray[np.int32], data: Bytes
) -> None:
    """`Ops.write_blocks` of layers with rows. Raises InvalidParameterError."""
    sizes = [layer.block_nbytes() for layer in layers]
    if data.dtype != np.uint8 or data.shape != (len(blocks), sum(sizes)):
        raise InvalidParameterError("a row of bytes is as long as a block, one per block")
    at = 0
    for layer, size in zip(layers, sizes, strict=True):
        if len(blocks) and not 0 <= blocks.min() <= blocks.max() < layer.num_blocks:
            raise InvalidParameterError("block outside the cache")
        layer.write_blocks(blocks, data[:, at : at + size])
        at += size
