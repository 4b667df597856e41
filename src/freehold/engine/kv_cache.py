# SPDX-License-Identifier: Apache-2.0
"""How many cache blocks to make.

Turns the settings, or the machine's free memory, into a block count for each group of layers.
The backend makes the cache itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psutil

from freehold.config import EngineConfig
from freehold.engine.kv_windows import group_windows, most_blocks
from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import KVCache, KVDtype, KVLayerSpec, Ops

# Bytes per element; q8_0 keeps a 16-bit scale for 32 values.
_ELEMENT_BYTES: dict[KVDtype, float] = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
# Unless told otherwise: room for this many tokens or one full context, whichever is more...
DEFAULT_CACHE_TOKENS = 16384
# ...and never more than this share of the memory that is free now.
FREE_MEMORY_SHARE = 0.8
_MOST_BLOCKS = 1 << 50  # beyond any memory; numbers stay small enough to compute with


def block_bytes(layers: Sequence[KVLayerSpec], block_size: int, dtype: KVDtype) -> int:
    """Bytes one block takes over all of some layers."""
    elements = sum(
        spec.num_kv_heads * (spec.key_dim + spec.value_dim) * spec.block_slots(block_size)
        for spec in layers
    )
    return int(elements * _ELEMENT_BYTES[dtype])


def sequence_bytes(
    layers: Sequence[KVLayerSpec], tokens: int, chunk: int, block_size: int, dtype: KVDtype
) -> int:
    """The most bytes one sequence of `tokens` tokens needs while its prompt is computed `chunk`
    tokens at a time. Layers with a window need room for the window and a chunk only."""
    return sum(
        block_bytes([spec], block_size, dtype)
        * most_blocks(spec.window, tokens, min(chunk, tokens), block_size)
        for spec in layers
    )


def longest_context(most: int, budget: int, needs: Callable[[int], int], multiple: int) -> int:
    """The largest multiple of `multiple` up to `most` for which `needs`, which must not fall,
    gives `budget` or less; 0 when there is none."""
    low, high = 0, most // multiple
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needs(middle * multiple) <= budget else (low, middle - 1)
    return low * multiple


def count_blocks(
    layers: Sequence[KVLayerSpec], config: EngineConfig, *, available_bytes: int | None = None
) -> tuple[int, ...]:
    """Blocks to allocate for each group of layers (`ops.kv_groups`). `available_bytes` stands in
    for the machine's free memory.

    Raises CapacityError when not even one sequence of full context length would fit. An
    explicit ``num_blocks`` is taken as it is, for every group: the engine then shortens its
    sequences to the pools.
    """
    windows = group_windows(layers)
    if config.num_blocks is not None:
        return (config.num_blocks,) * len(windows)
    sizes = _Sizes(layers, windows, config)
    if config.kv_memory_bytes is not None:
        budget, wanted = config.kv_memory_bytes, _MOST_BLOCKS
        source, hint = "kv_memory_bytes allows", "raise kv_memory_bytes, or lower context_length"
    else:
        if available_bytes is None:
            available_bytes = int(psutil.virtual_memory().available)
        budget = int(available_bytes * FREE_MEMORY_SHARE)
        wanted = sizes.wanted(config)
        source, hint = "free memory allows", "lower context_length, or choose kv_dtype q8_0"
    if sizes.nbytes(0) > budget:
        raise CapacityError(
            f"a context of {config.context_length} tokens needs "
            f"{_mib(sizes.nbytes(0))} of cache and {source} {_mib(budget)}",
            hint=hint,
        )
    return sizes.blocks(longest_context(wanted, budget, sizes.nbytes, 1))


def cache_need(layers: Sequence[KVLayerSpec], config: EngineConfig) -> tuple[int, int]:
    """Bytes of the cache that holds one whole context, and of the one that is made where memory is
    no limit (never less)."""
    sizes = _Sizes(layers, group_windows(layers), config)
    return sizes.nbytes(0), sizes.nbytes(sizes.wanted(config))


def cache_for(layers: Sequence[KVLayerSpec], config: EngineConfig, sequences: int) -> int:
    """Bytes of the cache that holds so many whole contexts at once."""
    sizes = _Sizes(layers, group_windows(layers), config)
    return sizes.nbytes(sequences * sizes.per_context)


class _Sizes:
    """Pool sizes as a function of one number: how many blocks of positions to hold."""

    def __init__(
        self, layers: Sequence[KVLayerSpec], windows: Sequence[int], config: EngineConfig
    ) -> None:
        size, context = config.block_size, config.context_length
        self.per_context = -(-context // size)
        chunk = min(config.max_num_batched_tokens, context)
        self._default = DEFAULT_CACHE_TOKENS // size
        self._least = [most_blocks(window, context, chunk, size) for window in windows]
        self._bytes = [
            max(1, block_bytes([s for s in layers if s.window == window], size, config.kv_dtype))
            for window in windows
        ]

    def wanted(self, config: EngineConfig) -> int:
        """Blocks of positions to hold where nobody says how many."""
        return min(max(self.per_context, self._default), config.max_num_seqs * self.per_context)

    def blocks(self, positions: int) -> tuple[int, ...]:
        """Blocks of each group.

        At least what one whole context needs. Beyond that a window's pool holds `positions` too as
        long as that is little, because short sequences fill it as fast as any; then as many
        windows as there are whole contexts.
        """
        counts = []
        for least in self._least:
            contexts = -(-positions // self.per_context)
            counts.append(max(least, min(positions, max(self._default, contexts * least))))
        return tuple(counts)

    def nbytes(self, positions: int) -> int:
        """Bytes of the cache."""
        counts = self.blocks(positions)
        return sum(n * per for n, per in zip(counts, self._bytes, strict=True))


def make_kv_cache(ops: Ops, layers: Sequence[KVLayerSpec], config: EngineConfig) -> KVCache:
    """The cache of all layers, sized by `count_blocks`."""
    return ops.alloc_kv(layers, count_blocks(layers, config), config.block_size, config.kv_dtype)


def check_config(config: EngineConfig) -> None:
    """Raise InvalidParameterError for settings that cannot work."""
    for name in ("context_length", "max_num_seqs", "max_num_batched_tokens", "block_size"):
        _need_whole(config, name, 1, "at least 1")
    for name in ("num_blocks", "kv_memory_bytes"):
        if getattr(config, name) is not None:
            _need_whole(config, name, 1, "at least 1")
    _need_whole(config, "speculative_tokens", 0, "0 (off) or more")
    if config.kv_dtype not in _ELEMENT_BYTES:
        raise InvalidParameterError(
            f"kv_dtype must be one of {', '.join(_ELEMENT_BYTES)}, not {config.kv_dtype!r}"
        )


def _need_whole(config: EngineConfig, name: str, least: int, rule: str) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidParameterError(f"{name} must be a whole number, {rule}, not {value!r:.40}")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
