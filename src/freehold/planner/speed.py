# SPDX-License-Identifier: Apache-2.0
"""How much work a token is, and how long a machine takes for it.

A step reads every weight it uses once, and the keys and values of each sequence; and it multiplies.
At best it takes the longer of the two at the machine's rates. What is reached of that is in
`calibration`. All multiplications of a limit are counted at the int8 rate; a prediction knows that
attention and matrices of floats are slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freehold.config import DEFAULT_BLOCK_SIZE
from freehold.engine.kv_cache import block_bytes
from freehold.ops import KVDtype, KVLayerSpec
from freehold.planner.machine import Rates
from freehold.planner.sizes import Matrices, ModelSizes


@dataclass(frozen=True, slots=True)
class Work:
    """Per token of output (decode) or input (prefill)."""

    bytes_per_token: float
    operations_per_token: float

    def seconds(self, rates: Rates) -> float:
        """The least time of a token: the longer of reading and multiplying."""
        return max(self.bytes_per_token / rates.read, self.operations_per_token / rates.int8)


def decode_work(
    sizes: ModelSizes, positions: float, *, streams: int = 1, kv_dtype: KVDtype = "f16"
) -> Work:
    """One more token of each of `streams` sequences that have `positions` before it."""
    weights = sum(m.resident_bytes * _share(m, sizes, streams) for m in sizes.matrices)
    cache = streams * kv_bytes_read(sizes.kv_layers, positions, kv_dtype)
    operations = 2 * _elements(sizes, head=True) + _attention_operations(sizes, positions)
    return Work((weights + cache) / streams, operations)


def prefill_work(sizes: ModelSizes, tokens: int, *, kv_dtype: KVDtype = "f16") -> Work:
    """A token of a prompt of so many. Only the last one needs the output matrix."""
    weights = sum(m.resident_bytes * _share(m, sizes, tokens) for m in sizes.matrices)
    per_token = block_bytes(sizes.kv_layers, DEFAULT_BLOCK_SIZE, kv_dtype) / DEFAULT_BLOCK_SIZE
    head = _elements(sizes, head=True) - _elements(sizes, head=False)
    operations = (
        2 * _elements(sizes, head=False)
        + 2 * head / tokens
        + _attention_operations(sizes, (tokens + 1) / 2)
    )
    return Work(weights / tokens + per_token, operations)


def kv_bytes_read(layers: Sequence[KVLayerSpec], positions: float, kv_dtype: KVDtype) -> float:
    """Bytes of cache that a token after `positions` others reads: of a layer with a window no more
    than the window."""
    size = DEFAULT_BLOCK_SIZE
    return sum(
        block_bytes([s], size, kv_dtype) / size * min(positions, s.window or positions)
        for s in layers
    )


def _share(matrices: Matrices, sizes: ModelSizes, tokens: int) -> float:
    """Of matrices, the share that a step of so many tokens reads. Tokens choose experts as if by
    lot: some choose the same."""
    if matrices.use == "lookup":
        return 0.0
    if matrices.use != "expert":
        return 1.0
    return 1.0 - (1.0 - sizes.top_k / sizes.num_experts) ** tokens


def _elements(sizes: ModelSizes, *, head: bool) -> float:
    """Weights that one token is multiplied by."""
    chosen = sizes.top_k / sizes.num_experts if sizes.num_experts else 1.0
    wanted = {"layer": 1.0, "expert": chosen, "head": float(head), "lookup": 0.0}
    return sum(m.elements * wanted[m.use] for m in sizes.matrices)


def _attention_operations(sizes: ModelSizes, positions: float) -> float:
    """Queries times keys, then weights times values; two operations per multiply-add."""
    # Layers may share caches, and an indexer has one of its own: all who read it count.
    per_cache = sizes.num_layers / max(1, len(sizes.kv_layers))
    total = 0.0
    for spec in sizes.kv_layers:
        seen = min(positions, spec.window or positions) / spec.stride
        total += 2 * sizes.num_heads * (spec.key_dim + (spec.value_dim or spec.key_dim)) * seen
    return total * per_cache
