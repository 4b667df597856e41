# SPDX-License-Identifier: Apache-2.0
"""The NumPy backend that defines what each op means.

Everything is computed in float64 and rounded to float32 once, at the op's result, so that
other backends can be judged against it. It knows nothing of speed: weights are decoded whole,
at load. ``precision="float32"`` halves the memory and lets NumPy's float32 matrix product do
the work; use it to run a small model, never to judge a backend.

Rows do not influence each other except through the last bits of the float64 matrix product,
whose order of summation NumPy does not promise; after rounding to float32 that shows about
once in 10⁸ results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.backends._compressed import (
    RowLayer,
    attend_with_entries,
    compress,
    read_layer_blocks,
    search_entries,
    stream_weights,
    write_layer_blocks,
)
from freehold.backends._experts import check_choice, choose_experts
from freehold.backends._kv_store import ReferenceKVCache, allocate
from freehold.backends._reference_attention import WORD, Bits, attend, first_visible, search
from freehold.batch import ForwardBatch
from freehold.errors import EngineError, InvalidParameterError
from freehold.ops import (
    Activation,
    AttentionSpec,
    Expert,
    FloatArray,
    KVCache,
    KVDtype,
    KVLayerSpec,
    Ops,
    PlainActivation,
    RawTensor,
    RopeSpec,
    RoutingSpec,
    RowUpdate,
    Weight,
    Xielu,
)

Wide: TypeAlias = npt.NDArray[np.floating[Any]]
Precision = Literal["float64", "float32"]

_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(slots=True)
class ReferenceWeight:
    """A decoded matrix; `qtype` remembers what it was decoded from."""

    out_features: int
    in_features: int
    qtype: str
    nbytes: int
    values: Wide  # [N, K]


def _activate(x: Wide, activation: Activation) -> Wide:
    if activation == "silu":
        return x / (1.0 + np.exp(-x))
    if activation == "gelu_tanh":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + np.tanh(inner))
    if activation == "gelu":
        error: Wide = _erf(x / math.sqrt(2.0)).astype(x.dtype)
        return 0.5 * x * (1.0 + error)
    raise InvalidParameterError(f"there is no activation named {activation!r}")


def _xielu(x: Wide, spec: Xielu) -> Wide:
    below = (np.expm1(np.minimum(x, spec.eps)) - x) * spec.alpha_n
    bent: Wide = np.where(x > 0, spec.alpha_p * x * x, below)
    return bent + spec.beta * x


def _gate(gate: Wide, up: Wide, activation: Activation, limit: float) -> Wide:
    """`Ops.gate_up` of the two products."""
    swiglu_oai = activation == "swiglu_oai"
    if limit == 0 and swiglu_oai:
        limit = 7.0
    if limit > 0:
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    if swiglu_oai:
        gated: Wide = gate / (1.0 + np.exp(-1.702 * gate)) * (up + 1.0)
        return gated
    return _activate(gate, activation) * up


class ReferenceOps:
    """`ops.Ops` in plain NumPy."""

    name = "reference"

    def __init__(self, precision: Precision = "float64") -> None:
        if precision not in ("float64", "float32"):
            raise InvalidParameterError(f"precision must be float64 or float32, not {precision!r}")
        self._wide = np.dtype(precision)

    # -- loading ---------------------------------------------------------------------------
    def load_weight(self, tensor: RawTensor) -> ReferenceWeight:
        if len(tensor.shape) != 2:
            raise InvalidParameterError(
                f"a weight has two dimensions, but {tensor.name} has shape {tensor.shape}"
            )
        rows, columns = tensor.shape
        # A copy even where nothing is converted: the file may be closed afterwards.
        values = np.array(tensor.to_f32(), dtype=self._wide, copy=True)
        return ReferenceWeight(rows, columns, tensor.qtype, values.nbytes, values)

    def load_vector(self, values: FloatArray) -> FloatArray:
        return np.array(values, dtype=np.float32, copy=True)

    def alloc_kv(
        self,
        layers: Sequence[KVLayerSpec],
        num_blocks: int | Sequence[int],
        block_size: int,
        dtype: KVDtype,
    ) -> ReferenceKVCache:
        return allocate(layers, num_blocks, block_size, dtype)

    # -- per token -------------------------------------------------------------------------
    def embed(self, table: Weight, ids: npt.NDArray[np.int32]) -> FloatArray:
        values = _values(table)
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < len(values):
            raise InvalidParameterError(
                f"token ids run from {ids.min()} to {ids.max()}, "
                f"but the vocabulary has {len(values)} rows"
            )
        return np.asarray(values[ids], dtype=np.float32)

    def rms_norm(self, x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
        heads = x.reshape(len(x), -1, len(weight)).astype(np.float64)
        with np.errstate(all="ignore"):
            mean_square = np.mean(heads * heads, axis=-1, keepdims=True)
            normed = heads / np.sqrt(mean_square + eps) * weight
            return np.asarray(normed.reshape(x.shape), dtype=np.float32)

    def add_rms_norm(
        self, residual: FloatArray, delta: FloatArray, weight: FloatArray, eps: float
    ) -> tuple[FloatArray, FloatArray]:
        total = self.add(residual, delta)
        return total, self.rms_norm(total, weight, eps)

    def add(self, residual: FloatArray, delta: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return residual + delta

    def layer_norm(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None, eps: float
    ) -> FloatArray:
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            wide = wide - np.mean(wide, axis=-1, keepdims=True)
            normed = wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + eps) * weight
            return np.asarray(normed if bias is None else normed + bias, dtype=np.float32)

    def scale_rows(self, x: FloatArray, factors: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return (x.astype(np.float64) * factors[:, None]).astype(np.float32)

    def scale(self, x: FloatArray, factor: float) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.asarray(x.astype(np.float64) * factor, dtype=np.float32)

    def softcap(self, x: FloatArray, cap: float) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.asarray(cap * np.tanh(x.astype(np.float64) / cap), dtype=np.float32)

    def multiply(self, x: FloatArray, factor: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.asarray(x.astype(np.float64) * factor, dtype=np.float32)

    def sparse_gate(self, x: FloatArray, deviations: float) -> FloatArray:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            cutoff = wide.mean(axis=1, keepdims=True) + deviations * wide.std(axis=1, keepdims=True)
            return np.asarray(np.maximum(wide - cutoff, 0.0), dtype=np.float32)

    def mix_streams(
        self, streams: Sequence[FloatArray], weights: FloatArray
    ) -> tuple[FloatArray, ...]:
        shares = weights.astype(np.float64).reshape(len(weights), -1, len(streams))  # [T, R, S]
        wide = np.stack(streams, axis=1).astype(np.float64)  # [T, S, K]
        with np.errstate(all="ignore"):
            mixed = (shares[..., None] * wide[:, None]).sum(axis=2).astype(np.float32)
        return tuple(mixed[:, r] for r in range(mixed.shape[1]))

    def stream_weights(
        self,
        x: FloatArray,
        base: FloatArray,
        scale: FloatArray,
        streams: int,
        rounds: int,
        eps: float,
    ) -> tuple[FloatArray, FloatArray | None]:
        return stream_weights(x, base, scale, streams, rounds, eps)

    def match_magnitude(self, x: FloatArray, like: FloatArray, floor: float) -> FloatArray:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64)
            own = np.maximum(np.mean(wide * wide, axis=1, keepdims=True), floor)
            wanted = np.mean(like.astype(np.float64) ** 2, axis=1, keepdims=True)
            return np.asarray(wide * np.sqrt(wanted / own), dtype=np.float32)

    def linear(self, x: FloatArray, weight: Weight, bias: FloatArray | None = None) -> FloatArray:
        return self._product(x, weight, bias).astype(np.float32)

    def linear_many(
        self, x: FloatArray, weights: Sequence[Weight], biases: Sequence[FloatArray | None]
    ) -> tuple[FloatArray, ...]:
        return tuple(self.linear(x, w, b) for w, b in zip(weights, biases, strict=True))

    def add_low_rank(
        self, x: FloatArray, outs: Sequence[FloatArray], updates: Sequence[RowUpdate]
    ) -> None:
        self._add_low_rank(x, outs, updates)

    def linear_heads(self, x: FloatArray, weights: Sequence[Weight]) -> FloatArray:
        heads = x.reshape(len(x), len(weights), -1)
        rank = weights[0].in_features
        out = [self._product(heads[:, h, :rank], w, None) for h, w in enumerate(weights)]
        joined = np.concatenate([np.stack(out, axis=1), heads[..., rank:]], axis=-1)
        return joined.reshape(len(x), -1).astype(np.float32)

    def join(self, parts: Sequence[FloatArray]) -> FloatArray:
        return np.concatenate(parts, axis=1)

    def gate_up(
        self,
        x: FloatArray,
        gate: Weight,
        up: Weight,
        activation: Activation,
        *,
        limit: float = 0.0,
        gate_bias: FloatArray | None = None,
        up_bias: FloatArray | None = None,
        updates: Sequence[RowUpdate] = (),
    ) -> FloatArray:
        with np.errstate(all="ignore"):
            products = self._product(x, gate, gate_bias), self._product(x, up, up_bias)
            self._add_low_rank(x, products, updates)
            return _gate(*products, activation, limit).astype(np.float32)

    def activate(self, x: FloatArray, activation: PlainActivation) -> FloatArray:
        wide = x.astype(np.float64)
        with np.errstate(all="ignore"):
            if isinstance(activation, Xielu):
                return _xielu(wide, activation).astype(np.float32)
            if activation == "relu2":
                return (np.maximum(wide, 0.0) ** 2).astype(np.float32)
            return _activate(wide, activation).astype(np.float32)

    def sigmoid_gate(self, x: FloatArray, gate: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            wide = x.astype(np.float64) / (1.0 + np.exp(-gate.astype(np.float64)))
            return wide.astype(np.float32)

    def route(
        self,
        logits: FloatArray,
        spec: RoutingSpec,
        bias: FloatArray | None = None,
        fixed: npt.NDArray[np.int32] | None = None,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        return choose_experts(logits, spec, bias, fixed)

    def moe(
        self,
        x: FloatArray,
        experts: Sequence[Expert],
        chosen: npt.NDArray[np.int32],
        weights: FloatArray,
        activation: Activation,
        *,
        limit: float = 0.0,
        weigh_input: bool = False,
    ) -> FloatArray:
        check_choice(x, experts, chosen, weights)
        total = np.zeros(x.shape, dtype=self._wide)
        with np.errstate(all="ignore"):
            for slot in range(chosen.shape[1]):
                for index in np.unique(chosen[:, slot]):
                    expert, rows = experts[index], chosen[:, slot] == index
                    share = weights[rows, slot, None].astype(self._wide)
                    inputs = share * x[rows] if weigh_input else x[rows]
                    gate = self._product(inputs, expert.gate, expert.gate_bias)
                    up = self._product(inputs, expert.up, expert.up_bias)
                    gated = _gate(gate, up, activation, limit)
                    out = self._product(gated, expert.down, expert.down_bias)
                    total[rows] += out if weigh_input else share * out
            return total.astype(np.float32)

    def rope_tables(
        self, spec: RopeSpec, positions: npt.NDArray[np.int32]
    ) -> tuple[FloatArray, FloatArray]:
        angles = positions.astype(np.float64)[:, None] * spec.inv_freq  # [T, rotary_dim / 2]
        cos, sin = np.cos(angles) * spec.magnitude, np.sin(angles) * spec.magnitude
        return cos.astype(np.float32), sin.astype(np.float32)

    def rope(
        self,
        x: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        head_dim: int,
        interleaved: bool,
        offset: int = 0,
    ) -> FloatArray:
        half, end = cos.shape[1], offset + 2 * cos.shape[1]
        out = np.array(x, dtype=np.float32, copy=True).reshape(len(x), -1, head_dim)
        if interleaved:
            first, second = slice(offset, end, 2), slice(offset + 1, end, 2)
        else:
            first, second = slice(offset, offset + half), slice(offset + half, end)
        a, b = out[..., first].astype(np.float64), out[..., second].astype(np.float64)
        c, s = cos[:, None, :].astype(np.float64), sin[:, None, :].astype(np.float64)
        with np.errstate(all="ignore"):
            out[..., first] = a * c - b * s
            out[..., second] = b * c + a * s
        return out.reshape(x.shape)

    def write_kv(
        self,
        cache: KVCache,
        layer: int,
        k: FloatArray,
        v: FloatArray | None,
        batch: ForwardBatch,
    ) -> None:
        _row_layer(cache, layer).write(k, v, batch)

    def attention(
        self,
        q: FloatArray,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: FloatArray | None = None,
        selected: Bits | None = None,
    ) -> FloatArray:
        store = _cache(cache)
        stored, latent = store.values[layer], store.values[layer].dim == 0
        out = np.empty((len(q), spec.num_heads * spec.value_dim), dtype=np.float32)
        for s, rows in enumerate(_rows(batch)):
            if rows.start == rows.stop:
                continue
            positions = batch.positions[rows]
            first = first_visible(int(positions[0]), spec)
            slots = _slots(store, layer, batch, s, first)
            keys = store.keys[layer].read(slots)
            values = keys[..., : spec.value_dim] if latent else stored.read(slots)
            chosen = None if selected is None else selected[rows]
            out[rows] = attend(q[rows], keys, values, first, positions, spec, sinks, chosen)
        return out

    def top_keys(
        self,
        q: FloatArray,
        weights: FloatArray,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        count: int,
    ) -> Bits | None:
        store, longest = _cache(cache), int(batch.seq_lens.max(initial=0))
        if store.strides[layer] > 1:
            return search_entries(q, weights, _row_layer(cache, layer), batch, count)
        if count < 1:
            raise InvalidParameterError("at least one key must be kept")
        if longest <= count:
            return None
        words = -(-longest // WORD)
        parts = [np.empty((0, words), dtype=np.uint64)]
        for s, rows in enumerate(_rows(batch)):
            keys = store.keys[layer].read(_slots(store, layer, batch, s, 0))[:, 0]
            parts.append(search(q[rows], weights[rows], keys, batch.positions[rows], count, words))
        return np.concatenate(parts)

    def compress(
        self, cache: KVCache, layer: int, batch: ForwardBatch, bias: FloatArray, overlap: bool
    ) -> FloatArray:
        return compress(_row_layer(cache, layer), batch, bias, overlap)

    def attention_with_entries(
        self,
        q: FloatArray,
        cache: KVCache,
        layer: int,
        entries: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: FloatArray,
        selected: Bits | None = None,
    ) -> FloatArray:
        layers = _row_layer(cache, layer), _row_layer(cache, entries)
        return attend_with_entries(q, *layers, batch, spec, sinks, selected)

    def take_rows(self, x: FloatArray, rows: npt.NDArray[np.int32]) -> FloatArray:
        return x[rows]

    # -- between steps -----------------------------------------------------------------------
    def copy_blocks(
        self, cache: KVCache, group: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]
    ) -> None:
        for layer, owner in enumerate(_cache(cache).groups):
            if owner == group:
                _row_layer(cache, layer).copy_blocks(src, dst)

    def read_blocks(
        self, cache: KVCache, group: int, blocks: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.uint8]:
        return read_layer_blocks(_layers_of(cache, group), blocks, before=[])

    def write_blocks(
        self,
        cache: KVCache,
        group: int,
        blocks: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> None:
        write_layer_blocks(_layers_of(cache, group), blocks, data)

    def to_numpy(self, x: FloatArray) -> FloatArray:
        return np.asarray(x, dtype=np.float32)

    def _add_low_rank(self, x: Wide, outs: Sequence[Wide], updates: Sequence[RowUpdate]) -> None:
        with np.errstate(all="ignore"):
            for update in updates:
                rows = slice(None) if update.rows is None else update.rows
                for out, change in zip(outs, update.changes, strict=True):
                    if change is not None:
                        low = self._product(x[rows], change.down, None) * change.scale
                        out[rows] = out[rows] + self._product(low, change.up, None)

    def _product(self, x: Wide, weight: Weight, bias: FloatArray | None) -> Wide:
        values = _values(weight)
        with np.errstate(all="ignore"):
            product: Wide = x.astype(self._wide) @ values.T
            return product if bias is None else product + bias


def _layers_of(cache: KVCache, group: int) -> list[RowLayer]:
    groups = enumerate(_cache(cache).groups)
    return [_row_layer(cache, layer) for layer, owner in groups if owner == group]


def _rows(batch: ForwardBatch) -> list[slice]:
    """The rows of each sequence."""
    bounds = batch.query_start_loc.tolist()
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _slots(
    store: ReferenceKVCache, layer: int, batch: ForwardBatch, sequence: int, first: int
) -> npt.NDArray[np.int64]:
    """Where positions ``first ..`` of a sequence lie in the cache of `layer`."""
    place = np.arange(first, int(batch.seq_lens[sequence]), dtype=np.int64)
    block, offset = np.divmod(place, store.block_size)
    table = batch.tables[store.groups[layer]].block_tables[sequence].astype(np.int64)
    return np.asarray(table[block] * store.block_size + offset)


def _values(weight: Weight) -> Wide:
    if not isinstance(weight, ReferenceWeight):
        raise EngineError("the reference backend was given another backend's weight")
    return weight.values


def _cache(cache: KVCache) -> ReferenceKVCache:
    if not isinstance(cache, ReferenceKVCache):
        raise EngineError("the reference backend was given another backend's cache")
    return cache


def _row_layer(cache: KVCache, layer: int) -> RowLayer:
    store = _cache(cache)
    group, stride = store.groups[layer], store.strides[layer]
    return RowLayer(store.keys[layer], store.values[layer], group, stride, store.block_size)


def create(**options: Any) -> Ops:
    """Options: ``precision`` ("float64" or "float32")."""
    unknown = sorted(set(options) - {"precision"})
    if unknown:
        raise InvalidParameterError(f"the reference backend has no option {unknown[0]!r}")
    return ReferenceOps(**options)
