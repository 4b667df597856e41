# SPDX-License-Identifier: Apache-2.0
"""Settings that a model's vendor wrote beside the weights: for sampling, and for embeddings.

Knows where files keep them and how they spell them. Applies none: `LLM` exposes them, and only
the interactive commands use them, saying so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freehold.engine.measuring import Pooling
from freehold.errors import InvalidParameterError, MalformedFileError
from freehold.formats.checkpoint import Checkpoint
from freehold.formats.strict_json import parse_json_object
from freehold.types import SamplingParams

_GGUF_PREFIX = "general.sampling."
# As GGUF spells them, and the field each one is here.
_GGUF_NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "repetition_penalty",
}
_HF_NAMES = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_GGUF_LAST = 3  # of GGUF's kinds of pooling: 0 none, 1 mean, 2 first, 3 last, 4 a rank
_WHOLE = frozenset({"top_k", "penalty_last_n"})


def recommended_sampling(checkpoint: Checkpoint) -> dict[str, float | int]:
    """Recommended settings by `SamplingParams` field; empty where the vendor gave none.

    Read from ``general.sampling.*``, or from `generation_config.json` unless that asks for greedy
    decoding. Raises MalformedFileError for a value that can be no sampling parameter.
    """
    if checkpoint.format == "gguf":
        get = checkpoint.metadata.get
        found = {field: get(_GGUF_PREFIX + key) for key, field in _GGUF_NAMES.items()}
    else:
        path = checkpoint.directory / "generation_config.json"
        config: Mapping[str, Any] = {}
        if path.is_file():
            config = parse_json_object(path.read_bytes(), str(path))
        if config.get("do_sample") is False:
            config = {}
        found = {field: config.get(field) for field in _HF_NAMES}
    return {
        field: _checked(checkpoint, field, value)
        for field, value in found.items()
        if value is not None
    }


def recommended_pooling(checkpoint: Checkpoint) -> Pooling:
    """How hidden states become one vector: ``<architecture>.pooling_type``, or the pooling module
    of a sentence-transformers folder; the mean where nothing is said."""
    if checkpoint.format == "gguf":
        architecture = checkpoint.metadata.get("general.architecture")
        kind = checkpoint.metadata.get(f"{architecture}.pooling_type")
        return "last" if kind == _GGUF_LAST else "mean"
    path = checkpoint.directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    config = parse_json_object(path.read_bytes(), str(path))
    return "last" if config.get("pooling_mode_lasttoken") is True else "mean"


def _checked(checkpoint: Checkpoint, field: str, value: Any) -> float | int:
    number = value.item() if hasattr(value, "item") else value
    if field in _WHOLE and isinstance(number, float) and number.is_integer():
        number = int(number)
    try:
        SamplingParams(**{field: number})
    except InvalidParameterError as error:
        raise MalformedFileError(
            f"{checkpoint.path}: the recommended {error.message}",
            hint="--no-recommended ignores the model's sampling settings",
        ) from None
    if not isinstance(number, float):
        return int(number)
    # Stored as 32 bits: 0.95 comes out as 0.949999988, which nobody chose.
    return float(f"{number:.7g}")
