# SPDX-License-Identifier: Apache-2.0
"""Sizes of DeepSeek V4, whichever file they came from, and the cache they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from freehold.models.base import ModelConfig
from freehold.ops import KVLayerSpec, RopeSpec

# What a layer sees beyond its window: nothing; entries of a few positions that overlap, of which
# an indexer picks some; all entries of many positions.
LayerKind = Literal["sliding", "sparse", "heavy"]


@dataclass(frozen=True, slots=True)
class CompressedConfig:
    """Windows, entries, streams and tables of DeepSeek V4."""

    kinds: tuple[LayerKind, ...]  # of each layer
    ratios: tuple[int, ...]  # positions per entry; 0 where there are none
    window: int
    query_rank: int
    output_groups: int  # of heads, each with an output matrix of its own
    output_rank: int
    rotated_dim: int  # at the end of a head
    compressed_rope: RopeSpec  # of the layers with entries; `ModelConfig.rope` is the others'
    compressed_base: float  # that its frequencies were made from
    index_heads: int
    index_dim: int
    index_top_k: int
    streams: int
    rounds: int  # of making the mix of streams doubly stochastic
    stream_eps: float
    hashed_layers: frozenset[int]  # choose experts by token
    limit: float  # of gate and up


@dataclass(frozen=True, slots=True)
class LayerCaches:
    """Indices of what one layer keeps; -1 = it has none."""

    window: int
    raw: int = -1
    entries: int = -1
    index_raw: int = -1
    index_entries: int = -1


@dataclass(frozen=True, slots=True)
class DeepSeek4Config(ModelConfig):
    """`head_dim` is that of the one key head, whose vectors are its values as well."""

    compressed: CompressedConfig = field(kw_only=True)

    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """Layer after layer: the keys of the window; where there are entries, what the next ones
        will be made of, and the entries; in sparse layers the same two of the indexer."""
        specs: list[KVLayerSpec] = []
        for layer in range(self.num_layers):
            sizes, ratio = self.compressed, self.compressed.ratios[layer]
            plain = sizes.kinds[layer] == "sliding"
            specs.append(KVLayerSpec(1, self.head_dim, 0, sizes.window, rows=not plain))
            if plain:
                continue
            sparse = sizes.kinds[layer] == "sparse"
            specs += _entry_layers(self.head_dim, ratio, sparse)
            if sparse:
                specs += _entry_layers(sizes.index_dim, ratio, sparse)
        return tuple(specs)

    def caches(self, layer: int) -> LayerCaches:
        """Where in `kv_layers` the parts of a layer are."""
        counts = {"sliding": 1, "heavy": 3, "sparse": 5}
        kinds = self.compressed.kinds
        first = sum(counts[kind] for kind in kinds[:layer])
        return LayerCaches(*range(first, first + counts[kinds[layer]]))


def _entry_layers(dim: int, ratio: int, overlap: bool) -> list[KVLayerSpec]:
    """What entries are made of, for as long as one may need it, and the entries."""
    factor = 2 if overlap else 1
    raw = KVLayerSpec(1, factor * dim, factor * dim, factor * ratio, rows=True)
    return [raw, KVLayerSpec(1, dim, 0, rows=True, stride=ratio)]
