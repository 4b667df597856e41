# SPDX-License-Identifier: Apache-2.0
"""What a model file says of itself, for dialects that describe models they have not loaded.

Reads headers only, and each file once as long as it does not change.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from freehold._llm_advice import recommended_sampling
from freehold._llm_inputs import file_marks
from freehold.chat.answer_format import answer_format
from freehold.chat.template import chat_template_sources
from freehold.errors import FreeholdError
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.model_names import resolve_model
from freehold.models.loader import read_config

_LONG = 1000  # items of a list that is told only to who asks for everything


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model. What a file does not say is empty."""

    format: str  # "gguf" or "safetensors"
    family: str
    nbytes: int  # of its files
    parameters: int
    quantization: str  # the type that most of its bytes are stored in
    digest: str  # SHA-256, 64 hex digits, of samples of the files: a name, not a proof
    modified: float  # seconds since 1970
    template: str
    licence: str
    sampling: Mapping[str, float | int]  # the vendor's, by field of `SamplingParams`
    info: Mapping[str, Any]  # metadata as GGUF spells it
    thinks: bool
    calls_tools: bool
    fills_in: bool  # as far as its metadata says


def model_facts(source: str) -> ModelFacts:
    """The facts of what `LLM` opens under `source`.

    Raises what opening raises: ModelNotFoundError, MalformedFileError.
    """
    path = resolve_model(source)
    stat = path.stat() if path.exists() else None
    return _read(source, None if stat is None else (stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=64)
def _read(source: str, version: object) -> ModelFacts:
    with open_checkpoint(resolve_model(source)) as checkpoint:
        stats = [file.stat() for file in checkpoint.files]
        stored = Counter[str]()
        for tensor in checkpoint.tensors.values():
            stored[tensor.qtype] += tensor.nbytes
        parameters = sum(tensor.num_elements for tensor in checkpoint.tensors.values())
        sources = _or_empty(chat_template_sources, checkpoint)
        answers = answer_format(sources.values(), None)
        licence = checkpoint.metadata.get("general.license")
        return ModelFacts(
            format=checkpoint.format,
            family=checkpoint.architecture,
            nbytes=sum(stat.st_size for stat in stats),
            parameters=parameters,
            quantization=stored.most_common(1)[0][0] if stored else "",
            digest=hashlib.sha256(repr(file_marks(checkpoint)).encode()).hexdigest(),
            modified=max((stat.st_mtime for stat in stats), default=0.0),
            template=sources.get("default", ""),
            licence=licence if isinstance(licence, str) else "",
            sampling=_or_empty(recommended_sampling, checkpoint),
            info=_info(checkpoint, parameters),
            thinks=answers.thinks,
            calls_tools=answers.tool_format is not None,
            fills_in="tokenizer.ggml.fim_mid_token_id" in checkpoint.metadata,
        )


def _or_empty(read: Any, checkpoint: Checkpoint) -> dict[str, Any]:
    """What `read` finds; a file that is wrong there is described all the same."""
    try:
        return dict(read(checkpoint))
    except FreeholdError:
        return {}


def _info(checkpoint: Checkpoint, parameters: int) -> dict[str, Any]:
    family = checkpoint.architecture
    if checkpoint.format == "gguf":
        found = {
            key: _plain(value)
            for key, value in checkpoint.metadata.items()
            if not key.startswith("tokenizer.chat_template")
        }
    else:
        found = {"general.architecture": family, **_sizes(checkpoint, family)}
    return {**found, "general.parameter_count": parameters}


def _plain(value: Any) -> Any:
    """A value as JSON has it; long lists, and what JSON has no word for, are null."""
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None  # no infinity, no NaN
    if hasattr(value, "__len__"):
        if len(value) > _LONG:
            return None
        return [_plain(item.item() if hasattr(item, "item") else item) for item in value]
    return _plain(value.item()) if hasattr(value, "item") else None


def _sizes(checkpoint: Checkpoint, family: str) -> dict[str, int]:
    names = {
        "context_length": "context_length",
        "embedding_length": "hidden_size",
        "block_count": "num_layers",
        "attention.head_count": "num_heads",
        "attention.head_count_kv": "num_kv_heads",
        "vocab_size": "vocab_size",
    }
    try:
        config = read_config(checkpoint)
    except FreeholdError:
        return {}
    found = {key: getattr(config, name, None) for key, name in names.items()}
    return {f"{family}.{key}": value for key, value in found.items() if isinstance(value, int)}
