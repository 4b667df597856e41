# SPDX-License-Identifier: Apache-2.0
"""DeepSeek MoE 16B (arXiv:2401.06066): Llama with many small experts and shared ones.

DeepSeek LLM and Coder of the same year are plain Llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from freehold.formats.checkpoint import Checkpoint
from freehold.models._deepseek_moe import deepseek_moe_keys, moe_from_gguf, moe_from_hf
from freehold.models._family import Dialect
from freehold.models._fields import Fields
from freehold.models._gguf_config import config_from_gguf
from freehold.models._hf_config import config_from_hf, text_fields
from freehold.models._weights import Progress
from freehold.models.base import CausalLM, ModelConfig
from freehold.models.blocks import DenseLayout, load_dense
from freehold.ops import Ops, RawTensor

LAYOUT = DenseLayout(qkv_bias="optional", output_bias="optional")


def load(checkpoint: Checkpoint, ops: Ops, progress: Progress | None = None) -> CausalLM:
    """Load onto the device of `ops`. Errors as `blocks.load_dense`."""
    return load_dense(checkpoint, ops, LAYOUT, progress)


def _from_gguf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    keys = Fields(metadata, where, f"{architecture}.")
    plain = {k: v for k, v in metadata.items() if k != f"{architecture}.expert_count"}
    config = config_from_gguf(architecture, plain, tensors, where)
    return replace(config, moe=moe_from_gguf(keys, tensors, config.num_layers))


def _from_hf(
    architecture: str, metadata: Mapping[str, object], tensors: Mapping[str, RawTensor], where: str
) -> ModelConfig:
    config = config_from_hf(architecture, metadata, tensors, where)
    keys = text_fields(metadata, where)
    return replace(config, moe=moe_from_hf(keys, config.num_layers))


def _gguf_keys(config: ModelConfig) -> dict[str, Any]:
    return {} if config.moe is None else deepseek_moe_keys(config.moe)


DIALECT = Dialect(
    from_gguf=_from_gguf,
    from_hf=_from_hf,
    gguf_keys=_gguf_keys,
    layer_names={
        f"mlp.shared_experts.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")
    },
)
