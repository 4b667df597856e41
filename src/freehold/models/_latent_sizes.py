# SPDX-License-Identifier: Apache-2.0
"""Sizes of models with latent attention, whichever file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from freehold.models.base import ModelConfig
from freehold.ops import KVLayerSpec


@dataclass(frozen=True, slots=True)
class IndexerConfig:
    """What picks the keys that attention looks at (DeepSeek V3.2)."""

    num_heads: int
    head_dim: int
    top_k: int  # keys picked


@dataclass(frozen=True, slots=True)
class LatentConfig:
    """Multi-head latent attention (arXiv:2405.04434 §2.1): keys and values of all heads come out
    of one vector a token."""

    rank: int  # of the vector that is cached, beside the rotated part of the key
    query_rank: int  # of the vector that queries come out of; 0 = straight from the input
    nope_dim: int  # dimensions of a query that are not rotated
    rotated_dim: int
    value_dim: int
    norm_eps: float  # of the norms of both vectors
    # YaRN scales scores by (1 + this · ln factor)²; part of `attention_scale`
    score_log_multiplier: float = 0.0
    indexer: IndexerConfig | None = None


@dataclass(frozen=True, slots=True)
class LatentModelConfig(ModelConfig):
    """`head_dim` is that of a query: what is not rotated of it, then what is. What is cached are
    one key head and no values."""

    latent: LatentConfig = field(kw_only=True)

    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """Of each layer; then of each layer's indexer, where there are any."""
        latent, indexer = self.latent, self.latent.indexer
        layers = (KVLayerSpec(1, latent.rank + latent.rotated_dim, 0),) * self.num_layers
        if indexer is None:
            return layers
        return layers + (KVLayerSpec(1, indexer.head_dim, 0),) * self.num_layers


def with_latent(config: ModelConfig, latent: LatentConfig) -> LatentModelConfig:
    """`config` and the sizes of the latent together."""
    shared = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    return LatentModelConfig(**shared, latent=latent)
