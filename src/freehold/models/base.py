# SPDX-License-Identifier: Apache-2.0
"""What a model is to the rest of freehold.

A family file gives `load(checkpoint, ops) -> CausalLM`; the engine knows only this protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from freehold.batch import ForwardBatch
from freehold.ops import Array, KVCache, KVLayerSpec, Ops, RopeSpec


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants of a decoder-only transformer, whichever file they came from."""

    architecture: str  # GGUF name: "llama", "qwen2", "qwen3"
    vocab_size: int  # rows of the embedding table
    context_length: int
    hidden_size: int
    ffn_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    rope: RopeSpec
    tied_embeddings: bool
    sliding_window: int = 0  # 0 = none
    full_attention_layers: frozenset[int] = frozenset()  # layers the window spares

    def window(self, layer: int) -> int:
        """Keys a query of `layer` sees, itself included; 0 = all."""
        return 0 if layer in self.full_attention_layers else self.sliding_window


class CausalLM(Protocol):
    """A loaded model: weights live on the device of the `Ops` that loaded them."""

    config: ModelConfig

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        """Cache shape of each layer, first layer first."""

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        """Run the layers, write the cache; final-normed hidden state of
        ``batch.logits_rows``: [R, hidden_size]."""

    def logits(self, hidden: Array, ops: Ops) -> Array:
        """[R, hidden_size] to [R, vocab_size]."""

    def weight_bytes(self) -> int:
        """Bytes the weights occupy on the device."""
