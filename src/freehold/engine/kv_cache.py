# SPDX-License-Identifier: Apache-2.0
"""How many cache blocks to make.

Turns the settings, or the machine's free memory, into a block count. The backend makes the
cache itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from freehold.config import EngineConfig
from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import KVCache, KVDtype, KVLayerSpec, Ops

# Bytes per element; q8_0 keeps a 16-bit scale for 32 values.
_ELEMENT_BYTES: dict[KVDtype, float] = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}
# Unless told otherwise: room for this many tokens or one full context, whichever is more...
DEFAULT_CACHE_TOKENS = 16384
# ...and never more than this share of the memory that is free now.
FREE_MEMORY_SHARE = 0.8


def block_bytes(layers: Sequence[KVLayerSpec], block_size: int, dtype: KVDtype) -> int:
    """Bytes one block takes over all layers."""
    width = sum(spec.num_kv_heads * (spec.key_dim + spec.value_dim) for spec in layers)
    return int(width * block_size * _ELEMENT_BYTES[dtype])


def count_blocks(
    layers: Sequence[KVLayerSpec], config: EngineConfig, *, available_bytes: int | None = None
) -> int:
    """Blocks to allocate. `available_bytes` stands in for the machine's free memory.

    Raises CapacityError when not even one sequence of full context length would fit. An
    explicit ``num_blocks`` is taken as it is: the engine then shortens its sequences to the pool.
    """
    if config.num_blocks is not None:
        return config.num_blocks
    per_context = -(-config.context_length // config.block_size)
    per_block = max(1, block_bytes(layers, config.block_size, config.kv_dtype))
    if config.kv_memory_bytes is not None:
        budget = config.kv_memory_bytes
        blocks = budget // per_block
        source, hint = "kv_memory_bytes allows", "raise kv_memory_bytes, or lower context_length"
    else:
        if available_bytes is None:
            available_bytes = int(psutil.virtual_memory().available)
        budget = int(available_bytes * FREE_MEMORY_SHARE)
        wanted = max(per_context, DEFAULT_CACHE_TOKENS // config.block_size)
        blocks = min(wanted, config.max_num_seqs * per_context, budget // per_block)
        source, hint = "free memory allows", "lower context_length, or choose kv_dtype q8_0"
    if blocks < per_context:
        raise CapacityError(
            f"a context of {config.context_length} tokens needs "
            f"{_mib(per_context * per_block)} of cache and {source} {_mib(budget)}",
            hint=hint,
        )
    return blocks


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
