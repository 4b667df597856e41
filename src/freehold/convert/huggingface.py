# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face checkpoint seen as a GGUF file: metadata keys and tensors under GGUF's names.

Sizes come checked from `models.config`; here they get GGUF's keys. Knows that the Llama family
stores Q and K with the rows of each head interleaved. Knows no encodings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.convert.model_card import general_keys
from freehold.convert.tokenizer import tokenizer_keys
from freehold.errors import UnsupportedModelError
from freehold.formats.checkpoint import Checkpoint
from freehold.formats.strict_json import parse_json_object
from freehold.formats.tensor_view import LazyTensor, StoredTensor
from freehold.models._family import Dialect, dialect_of
from freehold.models._gguf_config import FRACTIONAL_YARN, INTERLEAVED
from freehold.models._hf_config import text_fields
from freehold.models._moe_config import moe_keys
from freehold.models._row_order import interleaved_rows
from freehold.models._weights import check_tensors
from freehold.models.base import ModelConfig
from freehold.models.blocks import expected_of
from freehold.models.config import architecture_of, family_of, read_config, weight_tensors
from freehold.models.rope import yarn_magnitude
from freehold.ops import RawTensor

# Architectures whose readers expect `yarn_log_multiplier`, and what it holds for a mscale_all_dim
# of 1: not the same in all.
_LOG_MULTIPLIER = {"mistral3": 1.0}
_MAX_JSON_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Converted:
    """What a GGUF file of the model holds, with the weights as they are stored at the source."""

    architecture: str
    config: ModelConfig
    metadata: dict[str, Any]
    tensors: list[StoredTensor]
    notes: tuple[str, ...] = field(default=())


def convert(checkpoint: Checkpoint) -> Converted:
    """View a safetensors checkpoint as GGUF. No weight is read yet.

    Raises MalformedFileError, UnsupportedModelError or TokenizerError naming what is wrong."""
    assert checkpoint.format == "safetensors"
    family = family_of(checkpoint)
    architecture = architecture_of(family)
    config = read_config(checkpoint)
    stored = weight_tensors(checkpoint, config)
    check_tensors(stored, expected_of(family, config), str(checkpoint.path))
    tokenizer = tokenizer_keys(checkpoint, config.vocab_size, architecture)
    parameters = sum(int(np.prod(tensor.shape)) for tensor in stored.values())
    metadata = {"general.architecture": architecture, "general.type": "model"}
    metadata |= general_keys(checkpoint.directory, parameters)
    metadata |= _sampling_keys(checkpoint.directory)
    metadata |= size_keys(checkpoint, config)
    metadata |= tokenizer.metadata
    tensors = [_tensor(name, tensor, config) for name, tensor in stored.items()]
    rope = _rope_table(checkpoint, dialect_of(family))
    if rope.get("rope_type", rope.get("type")) in ("llama3", "proportional"):
        tensors.insert(0, _rope_freqs(config, rope))
    return Converted(architecture, config, metadata, tensors, tokenizer.notes)


# -- keys ------------------------------------------------------------------------------------------


def size_keys(checkpoint: Checkpoint, config: ModelConfig) -> dict[str, Any]:
    """What GGUF metadata say of the sizes and constants of a checkpoint's model."""
    dialect = dialect_of(family_of(checkpoint))
    keys = _model_keys(config, _rope_table(checkpoint, dialect)) | dialect.gguf_keys(config)
    prefixed = {f"{config.architecture}.{k}": v for k, v in keys.items() if v is not None}
    return prefixed | dialect.bare_keys(config)


def _rope_table(checkpoint: Checkpoint, dialect: Dialect) -> dict[str, Any]:
    """Rotary settings, old spelling and new, in one table; `read_config` has checked them."""
    keys = dialect.hf_keys(text_fields(checkpoint.metadata, str(checkpoint.path)))
    nested = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    table = {k: v for k, v in nested.items() if v is not None}
    if "rope_theta" in keys:
        table.setdefault("rope_theta", keys.get("rope_theta"))
    if "original_max_position_embeddings" in keys:  # counts before the nested one
        table["original_max_position_embeddings"] = keys.get("original_max_position_embeddings")
    return table


def _model_keys(config: ModelConfig, rope: Mapping[str, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.ffn_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": 2 * len(config.rope.inv_freq),
        "rope.freq_base": float(rope.get("rope_theta", 10000.0)),
    }
    if config.sliding_window:
        keys["attention.sliding_window"] = config.sliding_window
        if config.full_attention_layers:
            pattern = [i not in config.full_attention_layers for i in range(config.num_layers)]
            keys["attention.sliding_window_pattern"] = pattern
    if config.moe is not None:
        keys |= moe_keys(config.architecture, config.moe)
    return keys | _scaling_keys(config, rope)


def _scaling_keys(config: ModelConfig, rope: Mapping[str, Any]) -> dict[str, Any]:
    """Linear and yarn have keys; llama3 becomes a tensor."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("linear", "yarn"):
        return {}
    if kind == "linear":
        return {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    whole = rope.get("truncate") is not False
    if whole == (config.architecture in FRACTIONAL_YARN):
        raise UnsupportedModelError(
            f"GGUF has no key for a YaRN ramp between {'whole' if whole else 'fractional'} "
            f"dimensions (truncate = {'true' if whole else 'false'}) in {config.architecture}"
        )
    trained = int(rope.get("original_max_position_embeddings", config.context_length))
    factor = float(rope.get("factor", config.context_length / trained))
    keys: dict[str, Any] = {
        "rope.scaling.type": kind,
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": trained,
    }
    for name in ("beta_fast", "beta_slow"):
        if rope.get(name):
            keys[f"rope.scaling.yarn_{name}"] = float(rope[name])
    magnitude, usual = config.rope.magnitude, yarn_magnitude(factor)
    unit, mscale_all = _LOG_MULTIPLIER.get(config.architecture), rope.get("mscale_all_dim")
    if unit and mscale_all and np.isclose(magnitude * yarn_magnitude(factor, mscale_all), usual):
        keys["rope.scaling.yarn_log_multiplier"] = unit * float(mscale_all)
    elif not np.isclose(magnitude, usual, rtol=1e-6):
        keys["rope.scaling.yarn_attn_factor"] = magnitude
    return keys


def _sampling_keys(directory: Path) -> dict[str, Any]:
    """Sampling the vendor advises, from generation_config.json."""
    path = directory / "generation_config.json"
    if not path.is_file() or path.stat().st_size > _MAX_JSON_BYTES:
        return {}
    settings = parse_json_object(path.read_bytes(), str(path))
    if settings.get("do_sample") is not True:
        return {}  # the numbers are the library's fillers, not anybody's advice
    keys: dict[str, Any] = {}
    for name, key in (
        ("temperature", "temp"), ("top_p", "top_p"), ("min_p", "min_p"),
        ("repetition_penalty", "penalty_repeat"),
    ):  # fmt: skip
        value = settings.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            keys[f"general.sampling.{key}"] = float(value)
    top_k = settings.get("top_k")
    if isinstance(top_k, int) and not isinstance(top_k, bool) and 0 <= top_k < 2**31:
        keys["general.sampling.top_k"] = np.int32(top_k)
    return keys


# -- tensors ---------------------------------------------------------------------------------------


def _tensor(name: str, tensor: RawTensor, config: ModelConfig) -> StoredTensor:
    rows: npt.NDArray[np.intp] | None = None
    # Its GGUF files pair rotated dimensions (2i, 2i+1) where config.json's model pairs
    # (i, i + half).
    if config.architecture in INTERLEAVED and not config.rope.interleaved:
        part = name.split(".")[-2]
        if part in ("attn_q", "attn_k"):
            heads = config.num_heads if part == "attn_q" else config.num_kv_heads
            rows = interleaved_rows(heads, config.head_dim, 2 * len(config.rope.inv_freq))
    if rows is None:
        # A matrix of one row to its family, a vector in GGUF.
        shape = tensor.shape[1:] if name.endswith("ffn_gate_inp_shexp.weight") else tensor.shape
        return LazyTensor(name, shape, tensor.qtype, tensor.bytes)

    def make() -> npt.NDArray[np.uint8]:
        return tensor.bytes().reshape(len(rows), -1)[rows].reshape(-1)

    return LazyTensor(name, tensor.shape, tensor.qtype, make)


def _rope_freqs(config: ModelConfig, rope: Mapping[str, Any]) -> StoredTensor:
    """The stretching of each frequency, which GGUF keeps as a tensor of divisors."""
    frequencies = config.rope.inv_freq
    count = len(frequencies)
    plain = float(rope.get("rope_theta", 10000.0)) ** -(np.arange(count) / count)
    turned = frequencies > 0  # elsewhere a divisor that leaves next to nothing
    divisors = np.where(turned, plain / np.where(turned, frequencies, 1.0), 1e30).astype("<f4")
    return LazyTensor("rope_freqs.weight", (count,), "F32", lambda: divisors.view(np.uint8))
