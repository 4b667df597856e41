# SPDX-License-Identifier: Apache-2.0
"""The CPU: `Ops` over the native kernels.

Knows how arrays and handles cross into `freehold._native`; the arithmetic is there. Weights are
repacked once, while they are read, into groups of 16 interleaved rows (same bits, same size) in
huge pages. Matrices are read with pread, never through a mapping of the file.

Results do not depend on the number of rows in a call, so a sequence's logits have the same bits
whatever else is in the batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil

from freehold import _native
from freehold.backends._compressed import (
    attend_with_entries,
    compress,
    search_entries,
    stream_weights,
)
from freehold.backends._cpu_memory import CpuKVCache, Pool, allocate_cache
from freehold.backends._experts import choose_experts
from freehold.batch import ForwardBatch
from freehold.config import env_isa, env_threads
from freehold.errors import (
    CapacityError,
    EngineError,
    InvalidParameterError,
    MalformedFileError,
    UnsupportedModelError,
)
from freehold.ops import (
    Activation,
    AttentionSpec,
    Expert,
    FloatArray,
    KVCache,
    KVDtype,
    KVLayerSpec,
    PlainActivation,
    RawTensor,
    RopeSpec,
    RoutingSpec,
    RowUpdate,
    Weight,
    Xielu,
)

NATIVE_TYPES = frozenset(_native.weight_types())


def available_isas() -> list[str]:
    """Kernel levels this processor can run, slowest first."""
    return list(_native.available_isas())


def default_threads() -> int:
    """One thread per physical core this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    physical = psutil.cpu_count(logical=False)
    return max(1, min(usable or 1, physical or usable or 1))


class CpuOps:
    """`Ops` on the processor's vector units.

    ``threads``: workers, default `FREEHOLD_THREADS`, else one per physical core. ``isa``: one of
    `available_isas`, default `FREEHOLD_ISA`, else the best. Raises InvalidParameterError for values
    this machine does not have."""

    name = "cpu"

    def __init__(self, *, threads: int | None = None, isa: str | None = None) -> None:
        threads = threads if threads is not None else env_threads() or default_threads()
        isa = isa if isa is not None else env_isa()
        if not 1 <= threads <= 1024:
            raise InvalidParameterError(f"threads must be between 1 and 1024, not {threads}")
        if isa is not None and isa not in available_isas():
            raise InvalidParameterError(
                f"kernel level {isa!r} is not available here",
                hint=f"choose one of {', '.join(available_isas())}",
            )
        self._context = _native.Context(threads, isa)
        if not self._context.self_check():
            raise EngineError(
                f"the {self.isa} kernels give wrong results on this processor",
                hint="set FREEHOLD_ISA=baseline and please report the processor",
            )
        self._pool = Pool()

    @property
    def isa(self) -> str:
        """The kernel level in use."""
        return self._context.isa

    @property
    def threads(self) -> int:
        return self._context.threads

    # -- loading ---------------------------------------------------------------------------

    def load_weight(self, tensor: RawTensor) -> Weight:
        if len(tensor.shape) != 2:
            raise MalformedFileError(f"tensor {tensor.name!r} is no matrix: shape {tensor.shape}")
        if tensor.qtype not in NATIVE_TYPES:
            raise UnsupportedModelError(
                f"tensor {tensor.name!r} has type {tensor.qtype}, which the cpu backend cannot run",
                hint="convert it first: freehold quantize IN OUT --type Q4_K_M --allow-requantize",
            )
        rows, cols = tensor.shape
        span = tensor.file_span()
        try:
            if span is not None:
                return self._context.pack_file(tensor.qtype, rows, cols, *span)
            return self._context.pack_bytes(tensor.qtype, rows, cols, tensor.bytes())
        except (OSError, ValueError) as error:
            raise MalformedFileError(f"tensor {tensor.name!r}: {error}") from error
        except MemoryError as error:
            raise CapacityError(
                f"not enough memory for tensor {tensor.name!r}",
                hint="close other programs, or use a smaller model or quantisation",
            ) from error

    def load_vector(self, values: FloatArray) -> FloatArray:
        return np.ascontiguousarray(values, np.float32)

    def alloc_kv(
        self,
        layers: Sequence[KVLayerSpec],
        num_blocks: int | Sequence[int],
        block_size: int,
        dtype: KVDtype,
    ) -> KVCache:
        return allocate_cache(layers, num_blocks, block_size, dtype)

    # -- per token -------------------------------------------------------------------------

    def embed(self, table: Weight, ids: npt.NDArray[np.int32]) -> FloatArray:
        out = self._pool.take(len(ids), table.in_features)
        self._context.embed(table, ids, out)
        return out

    def rms_norm(self, x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
        out = self._pool.take(*x.shape)
        self._context.rms_norm(x, weight, eps, out, None)
        return out

    def add_rms_norm(
        self, residual: FloatArray, delta: FloatArray, weight: FloatArray, eps: float
    ) -> tuple[FloatArray, FloatArray]:
        out = self._pool.take(*delta.shape)
        self._context.rms_norm(delta, weight, eps, out, residual)
        return residual, out

    def add(self, residual: FloatArray, delta: FloatArray) -> FloatArray:
        residual += delta
        return residual

    def layer_norm(
        self, x: FloatArray, weight: FloatArray, bias: FloatArray | None, eps: float
    ) -> FloatArray:
        out = self._pool.take(*x.shape)
        self._context.layer_norm(x, weight, bias, eps, out)
        return out

    def scale_rows(self, x: FloatArray, factors: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            x *= factors[:, None]
        return x

    def scale(self, x: FloatArray, factor: float) -> FloatArray:
        with np.errstate(all="ignore"):
            x *= np.float32(factor)
        return x

    def softcap(self, x: FloatArray, cap: float) -> FloatArray:
        with np.errstate(all="ignore"):
            x /= np.float32(cap)
            np.tanh(x, out=x)
            x *= np.float32(cap)
        return x

    def multiply(self, x: FloatArray, factor: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return np.multiply(x, factor, out=self._pool.take(*x.shape))

    def sparse_gate(self, x: FloatArray, deviations: float) -> FloatArray:
        self._context.sparse_gate(x, deviations)
        return x

    def mix_streams(
        self, streams: Sequence[FloatArray], weights: FloatArray
    ) -> tuple[FloatArray, ...]:
        count = weights.shape[1] // len(streams)
        mixed = [self._pool.take(*streams[0].shape) for _ in range(count)]
        self._context.mix_streams(list(streams), weights, mixed)
        return tuple(mixed)

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
            # Squared in float64 first: each row is then summed alone, the same in any company.
            own = np.square(x, dtype=np.float64).mean(axis=1, keepdims=True)
            wanted = np.square(like, dtype=np.float64).mean(axis=1, keepdims=True)
            x *= np.sqrt(wanted / np.maximum(own, floor)).astype(np.float32)
        return x

    def linear(self, x: FloatArray, weight: Weight, bias: FloatArray | None = None) -> FloatArray:
        out = self._pool.take(x.shape[0], weight.out_features)
        self._context.linear(x, [weight], [bias], [out])
        return out

    def linear_many(
        self, x: FloatArray, weights: Sequence[Weight], biases: Sequence[FloatArray | None]
    ) -> tuple[FloatArray, ...]:
        outs = [self._pool.take(x.shape[0], w.out_features) for w in weights]
        self._context.linear(x, list(weights), list(biases), outs)
        return tuple(outs)

    def add_low_rank(
        self, x: FloatArray, outs: Sequence[FloatArray], updates: Sequence[RowUpdate]
    ) -> None:
        self._context.add_low_rank(x, outs, updates)

    def linear_heads(self, x: FloatArray, weights: Sequence[Weight]) -> FloatArray:
        beyond = x.shape[1] - len(weights) * weights[0].in_features
        out = self._pool.take(x.shape[0], len(weights) * weights[0].out_features + beyond)
        self._context.linear_heads(x, list(weights), out)
        return out

    def join(self, parts: Sequence[FloatArray]) -> FloatArray:
        out = self._pool.take(len(parts[0]), sum(part.shape[1] for part in parts))
        return np.concatenate(parts, axis=1, out=out)

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
        if updates:
            if limit != 0 or activation == "swiglu_oai":
                raise EngineError("adapters on a feed-forward with a limit")
            # The kernel below takes the same steps on each value, so rows without update have its
            # bits.
            products = self.linear_many(x, (gate, up), (gate_bias, up_bias))
            self.add_low_rank(x, products, updates)
            gated = self.activate(products[0], activation)
            with np.errstate(all="ignore"):
                gated *= products[1]
            return gated
        out = self._pool.take(x.shape[0], gate.out_features)
        self._context.gate_up(x, gate, up, activation, out, limit, gate_bias, up_bias)
        return out

    def activate(self, x: FloatArray, activation: PlainActivation) -> FloatArray:
        if isinstance(activation, Xielu):
            spec = activation
            self._context.activate(x, "xielu", spec.alpha_p, spec.alpha_n, spec.beta, spec.eps)
        else:
            self._context.activate(x, activation, 0.0, 0.0, 0.0, 0.0)
        return x

    def sigmoid_gate(self, x: FloatArray, gate: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            x *= (1.0 / (1.0 + np.exp(-gate.astype(np.float64)))).astype(np.float32)
        return x

    def route(
        self,
        logits: FloatArray,
        spec: RoutingSpec,
        bias: FloatArray | None = None,
        fixed: npt.NDArray[np.int32] | None = None,
    ) -> tuple[npt.NDArray[np.int32], FloatArray]:
        plain = spec.scoring == "softmax" and spec.num_groups == 1
        if not plain or bias is not None or fixed is not None:
            return choose_experts(logits, spec, bias, fixed)
        chosen = np.empty((len(logits), spec.top_k), np.int32)
        weights = np.empty(chosen.shape, np.float32)
        self._context.route(logits, spec.normalise, spec.scale, chosen, weights)
        return chosen, weights

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
        out = self._pool.take(*x.shape)
        self._context.moe(x, experts, chosen, weights, activation, limit, weigh_input, out)
        return out

    def rope_tables(
        self, spec: RopeSpec, positions: npt.NDArray[np.int32]
    ) -> tuple[FloatArray, FloatArray]:
        angles = positions[:, None] * spec.inv_freq[None, :]  # float64 [T, rotary_dim / 2]
        cos, sin = np.cos(angles), np.sin(angles)
        if spec.magnitude != 1.0:
            cos *= spec.magnitude
            sin *= spec.magnitude
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
        self._context.rope(x, cos, sin, head_dim, interleaved, offset)
        return x

    def write_kv(
        self,
        cache: KVCache,
        layer: int,
        k: FloatArray,
        v: FloatArray | None,
        batch: ForwardBatch,
    ) -> None:
        assert isinstance(cache, CpuKVCache)
        if layer in cache.rows:
            cache.rows[layer].write(k, v, batch)
        else:
            store, index, group = cache.native(layer)
            self._context.write_kv(store, index, k, v, batch.tables[group].slot_mapping)

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
        assert isinstance(cache, CpuKVCache)
        store, index, group = cache.native(layer)
        out = self._pool.take(q.shape[0], spec.num_heads * spec.value_dim)
        self._context.attention(
            q, store, index, out, batch.query_start_loc, batch.seq_lens,
            batch.tables[group].block_tables, spec.num_heads, spec.value_dim, spec.scale,
            spec.window, spec.chunk, spec.softcap, sinks, selected,
        )  # fmt: skip
        return out

    def top_keys(
        self,
        q: FloatArray,
        weights: FloatArray,
        cache: KVCache,
        layer: int,
        batch: ForwardBatch,
        count: int,
    ) -> npt.NDArray[np.uint64] | None:
        assert isinstance(cache, CpuKVCache)
        if layer in cache.rows:
            return search_entries(q, weights, cache.rows[layer], batch, count)
        if count < 1:
            raise InvalidParameterError("at least one key must be kept")
        longest = int(batch.seq_lens.max(initial=0))
        if longest <= count:
            return None
        store, index, group = cache.native(layer)
        bits = np.zeros((len(q), -(-longest // 64)), np.uint64)
        self._context.top_keys(
            q, weights, store, index, bits, batch.query_start_loc, batch.seq_lens,
            batch.tables[group].block_tables, count,
        )  # fmt: skip
        return bits

    def compress(
        self, cache: KVCache, layer: int, batch: ForwardBatch, bias: FloatArray, overlap: bool
    ) -> FloatArray:
        assert isinstance(cache, CpuKVCache)
        return compress(cache.rows[layer], batch, bias, overlap)

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
        assert isinstance(cache, CpuKVCache)
        layers = cache.rows[layer], cache.rows[entries]
        return attend_with_entries(q, *layers, batch, spec, sinks, selected)

    def take_rows(self, x: FloatArray, rows: npt.NDArray[np.int32]) -> FloatArray:
        return x[rows]

    # -- between steps -----------------------------------------------------------------------

    def copy_blocks(
        self, cache: KVCache, group: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32]
    ) -> None:
        assert isinstance(cache, CpuKVCache)
        store = cache.stores[group]
        if store is not None:
            store.copy_blocks(src, dst)
        for layer in cache.rows.values():
            if layer.group == group:
                layer.copy_blocks(src, dst)

    def read_blocks(
        self, cache: KVCache, group: int, blocks: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.uint8]:
        assert isinstance(cache, CpuKVCache)
        return cache.read_blocks(group, blocks)

    def write_blocks(
        self,
        cache: KVCache,
        group: int,
        blocks: npt.NDArray[np.int32],
        data: npt.NDArray[np.uint8],
    ) -> None:
        assert isinstance(cache, CpuKVCache)
        cache.write_blocks(group, blocks, data)

    def to_numpy(self, x: FloatArray) -> FloatArray:
        return x

    # -- the machine -------------------------------------------------------------------------

    def machine_limits(self, *, buffer_bytes: int = 512 << 20) -> dict[str, float]:
        """Measured now, with this object's threads and kernels: read bandwidth of memory (best of
        five passes over a buffer in huge pages) and the rate of the byte dot product on registers
        alone."""
        return {
            "read_gbps": self._context.read_gbps(buffer_bytes),
            "int8_gops": self._context.int8_gops(0.3),
        }


def create(*, threads: int | None = None, isa: str | None = None) -> CpuOps:
    """Open this backend: see `CpuOps`."""
    return CpuOps(threads=threads, isa=isa)
