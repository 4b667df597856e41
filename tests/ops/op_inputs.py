# SPDX-License-Identifier: Apache-2.0
"""Inputs for op tests: stored weights of every type, activations, filled caches."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from batching import make_batch
from freehold import quants
from freehold.ops import KVCache, KVLayerSpec, Ops
from random_blocks import stored

FLOATS = ("F32", "F16", "BF16")
BLOCKS_OF_32 = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4")
BLOCKS_OF_64 = ("NVFP4", "Q2_0")
BLOCKS_OF_128 = ("Q1_0",)
BLOCKS_OF_256 = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "TQ1_0", "TQ2_0", "IQ1_S",
                 "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")  # fmt: skip
QTYPES = FLOATS + BLOCKS_OF_32 + BLOCKS_OF_64 + BLOCKS_OF_128 + BLOCKS_OF_256


@dataclass
class StoredMatrix:
    """A tensor in memory: all that `ops.RawTensor` promises, and no more."""

    name: str
    shape: tuple[int, ...]
    qtype: str
    data: np.ndarray

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def bytes(self) -> np.ndarray:
        return self.data

    def file_span(self) -> None:
        return None

    def to_f32(self) -> np.ndarray:
        return quants.get(self.qtype).decode(self.data).reshape(self.shape)


@functools.lru_cache(maxsize=256)
def matrix(qtype: str, rows: int, columns: int, seed: int = 0) -> StoredMatrix:
    """Random weights of spread 1/√columns, each row scaled differently."""
    rng = np.random.default_rng([seed, rows, columns])
    values = rng.standard_normal((rows, columns)) / np.sqrt(columns)
    values *= rng.uniform(0.5, 2.0, (rows, 1))
    data = stored(qtype, values, seed)
    return StoredMatrix(f"{qtype}-{rows}x{columns}", (rows, columns), qtype, data)


def shapes(qtype: str) -> list[tuple[int, int]]:
    """[rows, columns] around every boundary a kernel could have."""
    if qtype in BLOCKS_OF_256:
        return [(1, 256), (15, 512), (16, 256), (17, 768), (33, 1280), (64, 2048)]
    if qtype in BLOCKS_OF_64 + BLOCKS_OF_128:
        block = quants.get(qtype).block_size
        return [(1, block), (15, 2 * block), (16, 3 * block), (17, 512), (33, 5 * block)]
    odd = [(1, 32), (15, 64), (16, 96), (17, 160), (33, 288), (48, 1056)]
    return odd if qtype in BLOCKS_OF_32 else [*odd, (5, 1), (18, 33), (20, 172)]


def whole_blocks(qtype: str, columns: int) -> int:
    """`columns`, rounded up to whole blocks."""
    block = quants.get(qtype).block_size
    return -(-columns // block) * block


def activations(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Normal values; rows differ in size by many orders, and one is zero."""
    rng = np.random.default_rng([seed, rows, columns, 1])
    x = rng.standard_normal((rows, columns)) * 10.0 ** rng.uniform(-4, 3, (rows, 1))
    if rows > 2:
        x[rows // 2] = 0.0
    return x.astype(np.float32)


def exact_activations(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Values that int8 and bfloat16 hold without error: whole multiples, up to ±127, of a power
    of two per row, with a ±127 in every stretch of 32. What a device makes of them is off by
    its float32 sums alone, so a wrong term cannot hide in the noise of rounding."""
    rng = np.random.default_rng([seed, rows, columns, 2])
    x = rng.integers(-126, 127, (rows, columns)).astype(np.float32)
    for start in range(0, columns, 32):
        stop = min(start + 32, columns)
        at = rng.integers(start, stop, rows)
        x[np.arange(rows), at] = rng.choice([-127.0, 127.0], rows)
    return (x * 2.0 ** rng.integers(-6, 6, (rows, 1))).astype(np.float32)


def on_q8_grid(x: np.ndarray) -> np.ndarray:
    """`x` after one pass through Q8_0; a second pass changes nothing."""
    kind = quants.get("Q8_0")
    return kind.decode(kind.encode(x.ravel())).reshape(x.shape)


@dataclass
class AttentionCase:
    """Several sequences mid-way: their whole keys and values, and the new queries."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    block_size: int
    past: list[int]
    new: list[int]
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, self.heads, self.key_dim])
        self.totals = [p + n for p, n in zip(self.past, self.new, strict=True)]

        def normal(rows: int, heads: int, dim: int) -> np.ndarray:
            return rng.standard_normal((rows, heads * dim)).astype(np.float32)

        self.keys = [2 * normal(t, self.kv_heads, self.key_dim) for t in self.totals]
        self.values = [normal(t, self.kv_heads, self.value_dim) for t in self.totals]
        self.queries = [2 * normal(t, self.heads, self.key_dim) for t in self.totals]
        needed = [-(-t // self.block_size) for t in self.totals]
        self.num_blocks = sum(needed) + 3
        free = rng.permutation(self.num_blocks).tolist()
        self.tables = [[free.pop() for _ in range(n)] for n in needed]

    def new_rows(self, arrays: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([a[p:] for a, p in zip(arrays, self.past, strict=True)])

    def batch(self) -> Any:
        return make_batch([[0] * n for n in self.new], self.past, self.tables, self.block_size)

    def filled(self, ops: Ops, kv_dtype: str, garbage: float = 100.0) -> KVCache:
        """A cache that holds the past and the new rows, and `garbage` in every other slot; without
        values where `value_dim` is 0."""
        spec = KVLayerSpec(self.kv_heads, self.key_dim, self.value_dim)
        other = KVLayerSpec(self.kv_heads, self.key_dim, self.value_dim)
        cache = ops.alloc_kv([other, spec], self.num_blocks, self.block_size, kv_dtype)
        slots = self.num_blocks * self.block_size
        everywhere = make_batch([[0] * slots], [0], [range(self.num_blocks)], self.block_size)
        full_k = np.full((slots, self.kv_heads * self.key_dim), garbage, dtype=np.float32)
        full_v = np.full((slots, self.kv_heads * self.value_dim), garbage, dtype=np.float32)
        for layer in (0, 1):
            ops.write_kv(cache, layer, full_k, full_v if self.value_dim else None, everywhere)
        keys, values = np.concatenate(self.keys), np.concatenate(self.values)
        if kv_dtype == "q8_0":
            # Already on the grid: or else a value between two steps could go either way.
            keys, values = on_q8_grid(keys), on_q8_grid(values)
        whole = make_batch([[0] * t for t in self.totals], [0] * len(self.new), self.tables,
                           self.block_size)  # fmt: skip
        ops.write_kv(cache, 1, keys, values if self.value_dim else None, whole)
        return cache
