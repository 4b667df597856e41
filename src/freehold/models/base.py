# SPDX-License-Identifier: Apache-2.0
"""What a model is to the rest of freehold.

A family file gives `load(checkpoint, ops) -> CausalLM`; the engine knows only this protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from freehold.batch import ForwardBatch
from freehold.models.rope import QueryTemperature
from freehold.ops import (
    Activation,
    Array,
    KVCache,
    KVLayerSpec,
    Ops,
    RopeSpec,
    RoutingSpec,
    Xielu,
)


@dataclass(frozen=True, slots=True)
class MoeConfig:
    """The layers whose feed-forward is a choice of experts."""

    num_experts: int
    expert_ffn_size: int
    routing: RoutingSpec
    shared_ffn_size: int = 0  # of the expert every token passes through; 0 = there is none
    shared_is_gated: bool = False  # a sigmoid of its own weighs it
    selection_bias: bool = False  # a number per expert that counts in the choice alone
    dense_layers: frozenset[int] = frozenset()  # layers with an ordinary feed-forward
    weigh_input: bool = False  # a token is multiplied by its weight before the expert, not after
    biases: bool = False  # of the router and of every expert's matrices


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
    chunk: int = 0  # 0 = none; else keys are seen within stretches of so many positions
    full_attention_layers: frozenset[int] = frozenset()  # layers that window and chunk spare
    local_rope: RopeSpec | None = None  # rotation of the layers with a window, if another
    activation: Activation = "silu"  # of the feed-forward gate
    embedding_scale: float = 1.0
    embedding_norm: bool = False  # RMS norm without weights
    post_norm_eps: float = 0.0  # of norms after attention and feed-forward; 0 = norm_eps
    qk_norm_after_rope: bool = False  # RMS norm without weights, in layers that rotate
    attention_scale: float = 0.0  # 0 = 1/√head_dim
    attn_softcap: float = 0.0  # 0 = none; else scores become c · tanh(score / c)
    final_softcap: float = 0.0  # the same for logits
    moe: MoeConfig | None = None
    nope_layers: frozenset[int] = frozenset()  # layers without rotation
    query_temperature: QueryTemperature | None = None  # of the layers that have one
    residual_scale: float = 1.0  # of what each half layer adds
    logit_scale: float = 1.0  # before `final_softcap`
    parallel_residual: bool = False  # both halves of a layer on the same sum
    xielu: tuple[Xielu, ...] = ()  # of each layer, in families with that activation

    def window(self, layer: int) -> int:
        """Keys a query of `layer` sees, itself included; 0 = all."""
        return 0 if layer in self.full_attention_layers else self.sliding_window

    def chunk_of(self, layer: int) -> int:
        """Positions of the stretches within which a query of `layer` sees keys; 0 = one stretch."""
        return 0 if layer in self.full_attention_layers else self.chunk

    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """Cache shape of each layer, first layer first: what `show` plans with before anything
        is loaded. A family whose cache looks different says so here."""
        reaches = (
            min((limit for limit in (self.window(i), self.chunk_of(i)) if limit), default=0)
            for i in range(self.num_layers)
        )
        return tuple(
            KVLayerSpec(self.num_kv_heads, self.head_dim, self.head_dim, reach) for reach in reaches
        )

    def tempered(self, layer: int) -> bool:
        """Whether queries of `layer` grow with their position."""
        temperature = self.query_temperature
        return temperature is not None and (layer in self.nope_layers or not temperature.nope_only)

    @property
    def num_experts(self) -> int:
        """Of each layer that has any; 0 = none has."""
        return self.moe.num_experts if self.moe else 0

    def rotations(self) -> tuple[RopeSpec, ...]:
        """The rotary embeddings of the model: `rope`, then `local_rope` where there is one."""
        return (self.rope,) if self.local_rope is None else (self.rope, self.local_rope)


class CausalLM(Protocol):
    """A loaded model: weights live on the device of the `Ops` that loaded them."""

    @property
    def config(self) -> ModelConfig: ...

    def kv_layers(self) -> Sequence[KVLayerSpec]:
        """Cache shape of each layer, first layer first."""

    def forward(self, batch: ForwardBatch, cache: KVCache, ops: Ops) -> Array:
        """Run the layers, write the cache; final-normed hidden state of
        ``batch.logits_rows``: [R, hidden_size]."""

    def logits(self, hidden: Array, ops: Ops) -> Array:
        """[R, hidden_size] to [R, vocab_size]."""

    def weight_bytes(self) -> int:
        """Bytes the weights occupy on the device."""
