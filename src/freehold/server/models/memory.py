# SPDX-License-Identifier: Apache-2.0
"""What a model will need of the memory that all models share, told before it is loaded.

Reads headers only. How many bytes they come to is `planner`'s to say, which model has to make room
is `registry`'s.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import psutil

from freehold.config import EngineConfig
from freehold.engine.kv_cache import DEFAULT_CACHE_TOKENS, FREE_MEMORY_SHARE, cache_need
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import open_checkpoint
from freehold.model_names import resolve_model
from freehold.models.adapters import device_bytes
from freehold.models.loader import read_config
from freehold.planner.sizes import sizes_of

# Fields of `EngineConfig` among the keyword arguments of `LLM`.
_CACHE_SETTINGS = ("max_num_seqs", "max_num_batched_tokens", "kv_dtype")


@dataclass(frozen=True, slots=True)
class ServedNeed:
    """Bytes. A model runs with `weights` and `least_cache`; `full_cache` is what it can use."""

    weights: int
    least_cache: int
    full_cache: int

    @property
    def least(self) -> int:
        """Without this much it is not loaded."""
        return self.weights + self.least_cache

    def cache_of(self, room: int, *, alone: bool) -> int:
        """Bytes of cache for a model that finds `room` bytes free, at least `least` of them.

        Where there are other models it takes no more than half of what it could do without, so
        that the next one finds room too.
        """
        spare = room - self.least
        return min(self.full_cache, self.least_cache + (spare if alone else spare // 2))

    def with_adapters(self, paths: Iterable[str]) -> ServedNeed:
        """The need of the model together with the adapters at `paths`, read from their headers."""
        total = 0
        for path in paths:
            with open_adapter(path) as adapter:
                total += device_bytes(adapter)
        return replace(self, weights=self.weights + total)


def memory_need(source: str, engine: Mapping[str, Any]) -> ServedNeed:
    """The need of the model that ``LLM(source, **engine)`` would load.

    Raises what opening raises: ModelNotFoundError, MalformedFileError, UnsupportedModelError.
    """
    with open_checkpoint(resolve_model(source)) as checkpoint:
        config = read_config(checkpoint)
        weights = sizes_of(checkpoint, config).resident_bytes
    layers = config.kv_layers()
    given = {name: engine[name] for name in _CACHE_SETTINGS if name in engine}
    context = engine.get("context_length")
    fixed = engine.get("kv_memory_bytes")
    if fixed is not None:
        return ServedNeed(weights, fixed, fixed)
    _, full = cache_need(layers, EngineConfig(context or config.context_length, **given))
    # Nobody asked for the model's whole context: less will do where memory is short.
    enough = context or min(config.context_length, DEFAULT_CACHE_TOKENS)
    least, _ = cache_need(layers, EngineConfig(enough, **given))
    return ServedNeed(weights, least, max(least, full))


def default_budget() -> int:
    """Bytes for all models of a server that was told no number: a share of what is free now."""
    return int(psutil.virtual_memory().available * FREE_MEMORY_SHARE)


def give_memory_back() -> None:
    """Return what was freed to the system.

    A vocabulary is many small pieces, freed by other threads than made them; glibc would keep them
    for a later day, and a server that loads and lets go all the time would seem to grow.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
