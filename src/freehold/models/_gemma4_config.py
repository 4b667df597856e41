# SPDX-License-Identifier: Apache-2.0
"""Keys of Gemma 4, and the constants that are in no file.

What differs between layers is spelled out per layer in `Gemma4Config`, whichever way a file says
it: Hugging Face by kind of layer or by exceptions per layer, GGUF by keys that end in ``_swa`` and
by lists. `_gemma3n_config` builds upon it.

Sources: Gemma 4 as in Hugging Face transformers 5.23 and llama.cpp of October 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from freehold.errors import MalformedFileError
from freehold.models.base import ModelConfig
from freehold.models.rope import Frequencies, RopeScaling, inverse_frequencies
from freehold.ops import KVLayerSpec

LOCAL_BASE, GLOBAL_BASE = 10_000.0, 1_000_000.0
MAX_WIDTH = 1 << 20
MAX_HEAD_DIM = 1 << 14
MAX_EXPERTS = 4096
LAYER_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}


@dataclass(frozen=True, slots=True)
class Gemma4Config(ModelConfig):
    """Sizes that layers do not share. `head_dim` and `num_kv_heads` of the base are those of the
    layers with a window, `ffn_size` is that of the first layer; `rope` is for layers without a
    window, `local_rope` for the others."""

    head_dims: tuple[int, ...] = ()  # of each layer
    kv_heads: tuple[int, ...] = ()  # of each layer
    ffn_sizes: tuple[int, ...] = ()  # of each layer
    shared_layers: int = 0  # so many last layers have no keys and values of their own
    keys_are_values: frozenset[int] = frozenset()  # layers that project both at once
    per_layer_width: int = 0  # of each layer's own embedding; 0 = there is none

    @property
    def first_shared(self) -> int:
        """The first layer that reads another's keys; the number of layers where none does."""
        return self.num_layers - self.shared_layers

    def source(self, layer: int) -> int:
        """The layer whose keys and values `layer` reads: its own, or those of the last layer of
        its kind that has any."""
        if layer < self.first_shared:
            return layer
        alike = (i for i in range(self.first_shared) if self._alike(i, layer))
        return max(alike, default=-1)

    def kv_layers(self) -> tuple[KVLayerSpec, ...]:
        """Shape of the cache of each layer that has keys of its own; they come first."""
        return tuple(
            KVLayerSpec(self.kv_heads[i], self.head_dims[i], self.head_dims[i], self.window(i))
            for i in range(self.first_shared)
        )

    def _alike(self, one: int, other: int) -> bool:
        return bool(self.window(one)) == bool(self.window(other))


def check_sharing(config: Gemma4Config, where: str) -> None:
    """Raises MalformedFileError where a layer shall share keys that no layer has."""
    for layer in range(config.first_shared, config.num_layers):
        source = config.source(layer)
        if source < 0 or (config.kv_heads[source], config.head_dims[source]) != (
            config.kv_heads[layer], config.head_dims[layer]
        ):  # fmt: skip
            raise MalformedFileError(
                f"{where}: layer {layer} shares the keys of an earlier layer of its kind, "
                "but there is none of its shape"
            )


def widened(base: ModelConfig, kind: type[Gemma4Config], **more: Any) -> Any:
    """`base` as a `kind`, with `more` fields set."""
    values = {f.name: getattr(base, f.name) for f in fields(ModelConfig)}
    return kind(**{**values, **more})


def proportional(head_dim: int, base: float, share: float, factor: float) -> Frequencies:
    """Frequencies of a whole head of which only the first `share` rotates: the rest are 0."""
    plain = inverse_frequencies(head_dim, base, RopeScaling()) / factor
    plain[int(share * head_dim // 2) :] = 0.0
    return plain


def finished(config: Gemma4Config, final_softcap: float, where: str) -> Gemma4Config:
    """`config` with the constants of the family; checked."""
    result = replace(
        config,
        activation="gelu_tanh",
        embedding_scale=config.hidden_size**0.5,  # not rounded to the weights' type
        attention_scale=1.0,
        final_softcap=final_softcap,
    )
    check_sharing(result, where)
    return result
