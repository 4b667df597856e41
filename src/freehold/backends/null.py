# SPDX-License-Identifier: Apache-2.0
"""A backend that computes nothing: right shapes, no arithmetic, no memory for weights.

It is for testing what surrounds the model. Its only behaviour: the token id rides in the first
column through the whole network, and every `linear` answers with a one in column
``(id + 1) mod N``, so a greedy run of a null model counts upwards from its last prompt token.
Attention and the cache are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.batch import ForwardBatch
from freehold.errors import InvalidParameterError
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
    blocks_per_group,
)


@dataclass(slots=True)
class NullWeight:
    """The outline of a matrix."""

    out_features: int
    in_features: int
    qtype: str
    nbytes: int


@dataclass(slots=True)
class NullKVCache:
    """The outline of a cache."""

    num_blocks: tuple[int, ...]
    block_size: int
    dtype: KVDtype
    nbytes: int = 0


def _zeros(rows: int, columns: int) -> FloatArray:
    return np.zeros((rows, columns), dtype=np.float32)


class NullOps:
    """`ops.Ops` without the arithmetic."""

    name = "null"

    def load_weight(self, tensor: RawTensor) -> NullWeight:
        if len(tensor.shape) != 2:
            raise InvalidParameterError(
                f"a weight has two dimensions, but {tensor.name} has shape {tensor.shape}"
            )
        return NullWeight(tensor.shape[0], tensor.shape[1], tensor.qtype, tensor.nbytes)

    def load_vector(self, values: FloatArray) -> FloatArray:
        return np.array(values, dtype=np.float32, copy=True)

    def alloc_kv(
        self,
        layers: Sequence[KVLayerSpec],
        num_blocks: int | Sequence[int],
        block_size: int,
        dtype: KVDtype,
    ) -> NullKVCache:
        return NullKVCache(blocks_per_group(layers, num_blocks), block_size, dtype)

    def embed(self, table: Weight, ids: npt.NDArray[np.int32]) -> FloatArray:
        x = _zeros(len(ids), table.in_features)
        x[:, 0] = ids
        return x

    def rms_norm(self, x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
        return x

    def add_rms_norm(
        self, residual: FloatArray, delta: FloatArray, weight: FloatArray, eps: float
    ) -> tuple[FloatArray, FloatArray]:
        return residual, residual

    def add(self, residual: FloatArray, delta: FloatArray) -> FloatArray:
        return residual

    def layer_norm(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None, eps: float
    ) -> FloatArray:
        return x

    def scale_rows(self, x: FloatArray, factors: FloatArray) -> FloatArray:
        return x

    def scale(self, x: FloatArray, factor: float) -> FloatArray:
        return x

    def softcap(self, x: FloatArray, cap: float) -> FloatArray:
        return x

    def multiply(self, x: FloatArray, factor: FloatArray) -> FloatArray:
        return x

    def sparse_gate(self, x: FloatArray, deviations: float) -> FloatArray:
        return x

    def mix_streams(
        self, streams: Sequence[FloatArray], weights: FloatArray
    ) -> tuple[FloatArray, ...]:
        count = int(weights.shape[1]) // len(streams)
        return (streams[0],) * count

    def stream_weights(
        self,
        x: FloatArray,
        base: FloatArray,
        scale: FloatArray,
        streams: int,
        rounds: int,
        eps: float,
    ) -> tuple[FloatArray, FloatArray | None]:
        shares = None if x.shape[1] == streams else _zeros(len(x), streams * (streams + 1))
        return _zeros(len(x), streams), shares

    def match_magnitude(self, x: FloatArray, like: FloatArray, floor: float) -> FloatArray:
        return x

    def linear(self, x: FloatArray, weight: Weight, bias: FloatArray | None = None) -> FloatArray:
        out = _zeros(len(x), weight.out_features)
        columns = (x[:, 0].astype(np.int64) + 1) % weight.out_features
        out[np.arange(len(x)), columns] = 1.0
        return out

    def linear_many(
        self, x: FloatArray, weights: Sequence[Weight], biases: Sequence[FloatArray | None]
    ) -> tuple[FloatArray, ...]:
        return tuple(_zeros(len(x), weight.out_features) for weight in weights)

    def add_low_rank(
        self, x: FloatArray, outs: Sequence[FloatArray], updates: Sequence[RowUpdate]
    ) -> None:
        """Nothing was computed, so nothing changes."""

    def linear_heads(self, x: FloatArray, weights: Sequence[Weight]) -> FloatArray:
        beyond = x.shape[1] - len(weights) * weights[0].in_features
        return _zeros(len(x), len(weights) * weights[0].out_features + beyond)

    def join(self, parts: Sequence[FloatArray]) -> FloatArray:
        return _zeros(len(parts[0]), sum(part.shape[1] for part in parts))

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
        return _zeros(len(x), up.out_features)

    def activate(self, x: FloatArray, activation: PlainActivation) -> FloatArray:
        return x

    def sigmoid_gate(self, x: FloatArray, gate: FloatArray) -> FloatArray:
        return x

    def route(
        self,
        logits: FloatArray,
        spec: RoutingSpec,
        bias: FloatArray | None = None,
        fixed: npt.NDArray[np.int32] | None = None,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        chosen = np.tile(np.arange(spec.top_k, dtype=np.int32), (len(logits), 1))
        return chosen, _zeros(len(logits), spec.top_k)

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
        return _zeros(*x.shape)

    def rope_tables(
        self, spec: RopeSpec, positions: npt.NDArray[np.int32]
    ) -> tuple[FloatArray, FloatArray]:
        table = _zeros(len(positions), len(spec.inv_freq))
        return table, table

    def rope(
        self,
        x: FloatArray,
        cos: FloatArray,
        sin: FloatArray,
        head_dim: int,
        interleaved: bool,
        offset: int = 0,
    ) -> FloatArray:
        return x

    def write_kv(
        self,
        cache: KVCache,
        layer: int,
        k: FloatArray,
        v: FloatArray | None,
        batch: ForwardBatch,
    ) -> None:
        return None

    def attention(
        self,
        q: FloatArray,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: FloatArray | None = None,
        selected: npt.NDArray[np.uint64] | None = None,
    ) -> FloatArray:
        return _zeros(len(q), spec.num_heads * spec.value_dim)

    def top_keys(
        self,
        q: FloatArray,
        weights: FloatArray,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        count: int,
    ) -> None:
        return None

    def compress(
        self, cache: KVCache, layer: int, batch: ForwardBatch, bias: FloatArray, overlap: bool
    ) -> FloatArray:
        ends = int(np.count_nonzero((batch.positions + 1) % len(bias) == 0))
        return _zeros(ends, bias.shape[1] // 2 if overlap else bias.shape[1])

    def attention_with_entries(
        self,
        q: FloatArray,
        cache: KVCache,
        layer: int,
        entries: int,
        batch: ForwardBatch,
        spec: AttentionSpec,
        sinks: FloatArray,
        selected: npt.NDArray[np.uint64] | None = None,
    ) -> FloatArray:
        return _zeros(len(q), spec.num_heads * spec.value_dim)

    def take_rows(self, x: FloatArray, rows: npt.NDArray[np.int32]) -> FloatArray:
        return x[rows]

    def copy_blocks(
        self, cache: KVCache, group: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]
    ) -> None:
        return None

    def read_blocks(
        self, cache: KVCache, group: int, blocks: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.uint8]:
        return np.zeros((len(blocks), 0), np.uint8)

    def write_blocks(
        self,
        cache: KVCache,
        group: int,
        blocks: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> None:
        return None

    def to_numpy(self, x: FloatArray) -> FloatArray:
        return np.asarray(x, dtype=np.float32)


def create(**options: Any) -> Ops:
    """Takes no options."""
    if options:
        raise InvalidParameterError(f"the null backend has no option {sorted(options)[0]!r}")
    return NullOps()
