# SPDX-License-Identifier: Apache-2.0
"""What a caller may hand to `LLM`, looked at before anything is loaded or run.

Knows shapes and ranges of arguments; knows no engine and no text.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import psutil

from freehold.config import DEFAULT_BLOCK_SIZE
from freehold.engine.kv_cache import FREE_MEMORY_SHARE, longest_context
from freehold.errors import CapacityError, InvalidParameterError
from freehold.formats.checkpoint import Checkpoint
from freehold.models.base import ModelConfig
from freehold.ops import FloatArray
from freehold.planner.machine import this_machine
from freehold.planner.sizes import sizes_of
from freehold.types import Constraint, SamplingParams

Params: TypeAlias = SamplingParams | Sequence[SamplingParams] | None
Constraints: TypeAlias = Constraint | Sequence[Constraint | None] | None
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "vocab.txt")


def is_single(prompts: Any) -> bool:
    """Text, or a sequence of token ids, as opposed to a list of prompts."""
    if isinstance(prompts, str):
        return True
    if not isinstance(prompts, (Sequence, np.ndarray)):
        raise InvalidParameterError(
            f"a prompt is text or a list of token ids, not {type(prompts).__name__}"
        )
    return len(prompts) > 0 and isinstance(prompts[0], (int, np.integer))


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items are the same."""
    same = (a == b for a, b in zip(left, right, strict=False))
    return next((n for n, equal in enumerate(same) if not equal), min(len(left), len(right)))


def stacked(vectors: Sequence[FloatArray], width: int, normalize: bool) -> FloatArray:
    """Vectors as rows, of length 1 where `normalize`: float32 [n, width]."""
    rows = np.zeros((len(vectors), width), np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        row[:] = vector
    if normalize:
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows


def per_prompt(params: Params, count: int) -> list[SamplingParams]:
    if params is None or isinstance(params, SamplingParams):
        return [params or SamplingParams()] * count
    if len(params) != count:
        raise InvalidParameterError(f"{len(params)} params for {count} prompts")
    return list(params)


def per_constraint(constraint: Constraints, count: int) -> list[Constraint | None]:
    if constraint is None or isinstance(constraint, Constraint):
        return [constraint] * count
    if len(constraint) != count:
        raise InvalidParameterError(f"{len(constraint)} constraints for {count} prompts")
    return list(constraint)


def check_context(wanted: int | None, own: int) -> None:
    if wanted is None:
        return
    if wanted < 1:
        raise InvalidParameterError(f"context_length must be at least 1, not {wanted}")
    if wanted > own:
        raise InvalidParameterError(
            f"context_length is {wanted:,} and the model was made for {own:,}",
            hint=f"use at most {own}",
        )


def check_free_memory(checkpoint: Checkpoint, config: ModelConfig) -> None:
    """Raise CapacityError for weights that are larger than the memory that is free, swap included:
    loading them would end in the system ending the process, or others."""
    wanted = sizes_of(checkpoint, config).resident_bytes
    machine = this_machine(gpus=False)
    free = machine.free + int(psutil.swap_memory().free)
    if wanted > free:
        raise CapacityError(
            f"{checkpoint.path}: the weights take {wanted / 1e9:,.2f} GB of memory and "
            f"{free / 1e9:,.2f} GB are free",
            hint="`freehold plan` tells what fits; ignore_memory (--ignore-memory) loads it anyway",
        )


def backend_options(threads: int | None, isa: str | None) -> dict[str, Any]:
    """Only what was asked for: not every backend knows these."""
    options = {"threads": threads, "isa": isa}
    return {name: value for name, value in options.items() if value is not None}


def has_tokenizer(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint declares a tokenizer, sound or not."""
    if checkpoint.format == "gguf":
        return checkpoint.metadata.get("tokenizer.ggml.model") not in (None, "none", "no_vocab")
    return any((checkpoint.directory / name).is_file() for name in _TOKENIZER_FILES)


def context_that_fits(own: int, needs: Callable[[int], int], budget: int | None) -> int:
    """The model's `own` context, or the most that `budget` bytes of cache hold, where a sequence
    of n tokens `needs(n)` bytes.

    Without a budget, a share of the memory that is free now counts.
    """
    if budget is None:
        budget = int(psutil.virtual_memory().available * FREE_MEMORY_SHARE)
    if needs(own) <= budget:
        return own
    # When not even a block fits, the engine says what is missing.
    return longest_context(own, budget, needs, DEFAULT_BLOCK_SIZE) or own


def file_marks(checkpoint: Checkpoint) -> tuple[object, ...]:
    """What tells a model's files from others without reading them whole: of each its size, the time
    of its last change and a hash of its beginning and of samples all over it."""
    marks: list[object] = []
    paths = list(checkpoint.files)
    if checkpoint.format != "gguf":
        paths.extend(p for p in [checkpoint.directory / "config.json"] if p.is_file())
    for path in paths:
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            digest.update(stream.read(1 << 20))
            for part in range(64):
                stream.seek(stat.st_size * part // 64)
                digest.update(stream.read(4096))
        marks.append((stat.st_size, stat.st_mtime_ns, digest.hexdigest()))
    return tuple(marks)
