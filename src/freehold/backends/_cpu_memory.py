# SPDX-License-Identifier: Apache-2.0
"""Memory of the CPU backend: the paged cache, and arrays for results.

Knows which store a layer's keys and values lie in; what is computed on them is `cpu`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold import _native
from freehold.backends._compressed import RowLayer, read_layer_blocks, write_layer_blocks
from freehold.backends._kv_store import allocate_rows
from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import FloatArray, KVDtype, KVLayerSpec, blocks_per_group, kv_groups

# Below this many bytes NumPy's allocator answers from its own cache; above, every new array costs
# page faults as long as the multiplication that fills it.
_POOLED_BYTES = 1 << 16


@dataclass(slots=True)
class CpuKVCache:
    """Handle given to models; the memory is native, one store for each group of layers, but for
    layers with rows, which NumPy reads."""

    num_blocks: tuple[int, ...]
    block_size: int
    dtype: KVDtype
    nbytes: int
    stores: list[_native.KVStore | None]  # None for a group of layers with rows alone
    places: list[tuple[int, int]]  # of each layer: its group, and its index in the group's store
    rows: dict[int, RowLayer]  # layers with rows, which have no place in a store

    def native(self, layer: int) -> tuple[_native.KVStore, int, int]:
        """The store of a layer, its index there, and its group."""
        group, index = self.places[layer]
        store = self.stores[group]
        assert store is not None
        return store, index, group

    def _rows_of(self, group: int) -> list[RowLayer]:
        return [layer for layer in self.rows.values() if layer.group == group]

    def read_blocks(self, group: int, blocks: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        """`Ops.read_blocks`."""
        store, before = self.stores[group], []
        if store is not None:
            before.append(np.empty((len(blocks), store.block_nbytes), np.uint8))
            store.read_blocks(blocks, before[0])
        return read_layer_blocks(self._rows_of(group), blocks, before=before)

    def write_blocks(
        self, group: int, blocks: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]
    ) -> None:
        """`Ops.write_blocks`."""
        store, own = self.stores[group], 0
        if store is not None:
            own = store.block_nbytes
            store.write_blocks(blocks, np.ascontiguousarray(data[:, :own]))
        write_layer_blocks(self._rows_of(group), blocks, data[:, own:])


class Pool:
    """Recycles large result arrays once nobody refers to them."""

    def __init__(self) -> None:
        self._buffers: list[npt.NDArray[np.float32]] = []

    def take(self, rows: int, width: int) -> FloatArray:
        size = rows * width
        if size * 4 < _POOLED_BYTES:
            return np.empty((rows, width), np.float32)
        best = None
        for buffer in self._buffers:
            # list, loop variable, getrefcount's argument: three references mean it is free
            if (
                buffer.size >= size
                and sys.getrefcount(buffer) <= 3
                and (best is None or buffer.size < best.size)
            ):
                best = buffer
        if best is None:
            # drop what is free and too small, or the pool would keep every size ever asked for
            self._buffers = [b for b in self._buffers if sys.getrefcount(b) > 3]
            best = np.empty(size, np.float32)
            self._buffers.append(best)
        return best[:size].reshape(rows, width)


def allocate_cache(
    layers: Sequence[KVLayerSpec], num_blocks: int | Sequence[int], block_size: int, dtype: KVDtype
) -> CpuKVCache:
    """`Ops.alloc_kv`."""
    counts = blocks_per_group(layers, num_blocks)
    shapes: list[list[list[int]]] = [[] for _ in counts]
    places = []
    for spec, group in zip(layers, kv_groups(layers), strict=True):
        places.append((group, len(shapes[group])))
        if not spec.rows:
            shapes[group].append([spec.num_kv_heads, spec.key_dim, spec.value_dim])
    try:
        stores = [
            _native.KVStore(shape, count, block_size, dtype) if shape else None
            for shape, count in zip(shapes, counts, strict=True)
        ]
    except ValueError as error:
        raise InvalidParameterError(f"cannot make this cache: {error}") from error
    except MemoryError as error:
        raise CapacityError(
            f"not enough memory for {sum(counts)} cache blocks of {block_size} tokens",
            hint="use a shorter context, fewer sequences or a smaller cache type",
        ) from error
    rows = {}
    for layer, (spec, (group, _)) in enumerate(zip(layers, places, strict=True)):
        if spec.rows:
            pair = allocate_rows(spec, counts[group], block_size, dtype)
            rows[layer] = RowLayer(*pair, group, spec.stride, block_size)
    nbytes = sum(store.nbytes for store in stores if store is not None)
    nbytes += sum(layer.keys.nbytes + layer.values.nbytes for layer in rows.values())
    return CpuKVCache(counts, block_size, dtype, nbytes, stores, places, rows)
