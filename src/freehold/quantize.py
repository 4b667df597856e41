# SPDX-License-Identifier: Apache-2.0
"""`quantize`: write a model as a GGUF file in a named mix of quant types.

Knows the order of the work and what to refuse. Which tensor gets which type is `quants.mixes`,
the bits are the types' own, keys and names of a Hugging Face source are `convert`.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold import quants
from freehold.config import env_threads
from freehold.errors import (
    CapacityError,
    InvalidParameterError,
    MalformedFileError,
    UnsupportedModelError,
)
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.formats.gguf_types import TENSOR_TYPES_BY_NAME, ValueType
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor, StoredTensor
from freehold.model_names import resolve_model
from freehold.quants import QuantType, mixes
from freehold.quants.mixes import Mix, ModelShape

# Work done, work in all (values), and the tensor at hand.
Progress: TypeAlias = Callable[[int, int, str], None]
ByteArray: TypeAlias = npt.NDArray[np.uint8]

# Sources that lose nothing worth mentioning; others were rounded once already.
_FINE_SOURCES = frozenset({"F32", "F16", "BF16", "Q8_0"})
_CHUNK_VALUES = 1 << 20  # decoded at a time by one thread: 4 MiB
_HEADER_ALLOWANCE = 64 << 20  # vocabulary and padding, when asking whether the disk has room
_OWN_KEYS = ("general.file_type", "general.quantization_version")


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was written."""

    path: Path
    mix: str
    source_bytes: int  # of the tensors
    bytes: int  # of the file
    tensors: dict[str, str]  # name to type
    seconds: float
    notes: tuple[str, ...] = field(default=())  # what could not be carried over

    @property
    def types(self) -> dict[str, int]:
        """Number of tensors of each type."""
        return dict(Counter(self.tensors.values()))


@dataclass(frozen=True, slots=True)
class _Source:
    """A model as GGUF would describe it, weights as they are stored."""

    shape: ModelShape
    metadata: dict[str, Any]
    value_types: dict[str, ValueType]
    tensors: list[StoredTensor]
    notes: tuple[str, ...] = ()


def quantize(
    source: str | Path,
    destination: str | Path,
    mix: str,
    *,
    progress: Progress | None = None,
    overwrite: bool = False,
    allow_requantize: bool = False,
) -> QuantizeReport:
    """Write the model at `source` (GGUF, a Hugging Face directory, or a model's name) to the GGUF
    file `destination` in the mix called `mix` ("Q4_K_M").

    Nothing appears at `destination` unless all of it is written. Weights that are quantised
    already are refused unless `allow_requantize`; a tensor that has its type keeps its bytes.
    Raises InvalidParameterError, CapacityError when the disk is too small, and whatever reading
    the source raises."""
    started = time.perf_counter()
    chosen = mixes.get(mix)
    source, destination = resolve_model(source), Path(destination)
    with open_checkpoint(source) as checkpoint:
        _check_destination(checkpoint, destination, overwrite)
        model = _describe(checkpoint)
        types = {t.name: _type_of(chosen, t, model.shape) for t in model.tensors}
        _check_sources(model.tensors, types, allow_requantize, source)
        needed = sum(_nbytes(t.shape, types[t.name]) for t in model.tensors)
        _check_room(destination, needed)
        metadata = model.metadata | {
            "general.file_type": chosen.file_type, "general.quantization_version": 2,
        }  # fmt: skip
        value_types = {k: v for k, v in model.value_types.items() if k not in _OWN_KEYS}
        with _Encoder(model.tensors, types, progress, str(source)) as encoder:
            write_gguf(destination, metadata, encoder.lazy_tensors(), value_types=value_types)
    return QuantizeReport(
        path=destination,
        mix=chosen.name,
        source_bytes=sum(_nbytes(t.shape, t.qtype) for t in model.tensors),
        bytes=destination.stat().st_size,
        tensors=types,
        seconds=time.perf_counter() - started,
        notes=model.notes,
    )


# -- the source ------------------------------------------------------------------------------------


def _describe(checkpoint: Checkpoint) -> _Source:
    if checkpoint.format == "gguf":
        return _Source(
            _shape_from_gguf(checkpoint),
            {k: v for k, v in checkpoint.metadata.items() if not k.startswith("split.")},
            dict(checkpoint.value_types),
            list(checkpoint.tensors.values()),
        )
    from freehold.convert.huggingface import convert  # brings the tokenizer library

    made = convert(checkpoint)
    config = made.config
    shape = ModelShape(
        made.architecture,
        config.num_layers,
        config.num_heads,
        config.num_kv_heads,
        num_experts=config.num_experts,
        tied_embeddings=config.tied_embeddings,
    )
    return _Source(shape, made.metadata, {}, made.tensors, made.notes)


def _shape_from_gguf(checkpoint: Checkpoint) -> ModelShape:
    """Any architecture will do: the rules ask only for a few counts."""
    prefix = checkpoint.architecture + "."

    def count(key: str, default: int) -> int:
        value = checkpoint.get(prefix + key)
        if isinstance(value, np.ndarray) and value.size and value.dtype.kind in "iu":
            value = int(value.max())  # per layer; zeros stand for layers without attention
        return value if isinstance(value, int) and 0 < value < 2**31 else default

    if not checkpoint.tensors:
        raise MalformedFileError(f"{checkpoint.path}: no tensors, so nothing to quantise")
    heads = count("attention.head_count", 1)
    return ModelShape(
        checkpoint.architecture,
        count("block_count", 1),
        heads,
        count("attention.head_count_kv", heads),
        num_experts=count("expert_count", 0),
        tied_embeddings="output.weight" not in checkpoint.tensors,
    )


def _type_of(mix: Mix, tensor: StoredTensor, shape: ModelShape) -> str:
    if tensor.qtype not in quants.names():
        stored = TENSOR_TYPES_BY_NAME.get(tensor.qtype)
        if stored is not None and stored.block_size == 1 and tensor.qtype != "F64":
            return tensor.qtype  # an index table of whole numbers
        raise UnsupportedModelError(
            f"tensor {tensor.name!r} is stored as {tensor.qtype}, which freehold cannot decode",
            hint="start from the unquantised model",
        )
    return mixes.choose(mix, tensor.name, tensor.shape, shape)


def _nbytes(shape: tuple[int, ...], qtype: str) -> int:
    kind = TENSOR_TYPES_BY_NAME[qtype]
    return math.prod(shape) // kind.block_size * kind.type_size


# -- what is refused -------------------------------------------------------------------------------


def _check_destination(checkpoint: Checkpoint, destination: Path, overwrite: bool) -> None:
    if destination.is_dir():
        raise InvalidParameterError(
            f"{destination} is a directory", hint="name the GGUF file to write"
        )
    if not destination.parent.is_dir():
        raise InvalidParameterError(f"{destination.parent}: no such directory")
    if not destination.exists():
        return
    if any(file.exists() and file.samefile(destination) for file in checkpoint.files):
        raise InvalidParameterError(
            f"{destination} is the file to read as well as to write", hint="name another output"
        )
    if not overwrite:
        raise InvalidParameterError(
            f"{destination} exists already",
            hint="name another output, or allow overwriting (overwrite, --force)",
        )


def _check_sources(
    tensors: list[StoredTensor], types: dict[str, str], allow_requantize: bool, source: Path
) -> None:
    if allow_requantize:
        return
    for tensor in tensors:
        changes = tensor.qtype != types[tensor.name] and tensor.qtype in quants.names()
        if changes and tensor.qtype not in _FINE_SOURCES:
            raise InvalidParameterError(
                f"{source} is quantised already (tensor {tensor.name!r} is {tensor.qtype}); "
                "rounding it again loses more than quantising the original",
                hint="start from F32, F16, BF16 or Q8_0 weights, or allow requantising "
                "(allow_requantize, --allow-requantize)",
            )


def _check_room(destination: Path, needed: int) -> None:
    free = shutil.disk_usage(destination.parent).free
    if needed > free or (needed + _HEADER_ALLOWANCE > free and needed > _HEADER_ALLOWANCE):
        raise CapacityError(
            f"{destination} will take {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} GB free",
            hint="make room, write elsewhere or choose a smaller mix",
        )


# -- the work --------------------------------------------------------------------------------------


class _Encoder:
    """Re-encodes tensors when the writer asks for them, a chunk per thread at a time."""

    def __init__(
        self,
        tensors: list[StoredTensor],
        types: dict[str, str],
        progress: Progress | None,
        where: str,
    ) -> None:
        self._tensors = tensors
        self._types = types
        self._progress = progress
        self._where = where
        self._total = sum(math.prod(t.shape) for t in tensors)
        self._done = 0
        self._pool = ThreadPoolExecutor(env_threads() or os.cpu_count() or 1)

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def lazy_tensors(self) -> list[LazyTensor]:
        """All tensors in their new types, in order."""
        return [
            LazyTensor(t.name, t.shape, self._types[t.name], lambda t=t: self._encode(t))  # type: ignore[misc]
            for t in self._tensors
        ]

    def _encode(self, tensor: StoredTensor) -> ByteArray:
        if self._progress is not None:
            self._progress(self._done, self._total, tensor.name)
        raw = tensor.bytes()
        self._done += math.prod(tensor.shape)
        if tensor.qtype in quants.names():
            old, new = quants.get(tensor.qtype), quants.get(self._types[tensor.name])
            raw = self._convert(tensor.name, raw, old, new)
        if self._progress is not None and self._done == self._total:
            self._progress(self._done, self._total, "")
        return raw

    def _convert(self, name: str, raw: ByteArray, old: QuantType, new: QuantType) -> ByteArray:
        # The largest block is a multiple of every other, so chunks end on blocks of both types.
        in_bytes = _CHUNK_VALUES // old.block_size * old.type_size
        starts = range(0, raw.size, in_bytes)
        out = np.empty(raw.size // old.type_size * old.block_size // new.block_size
                       * new.type_size, dtype=np.uint8) if old is not new else raw  # fmt: skip
        out_bytes = _CHUNK_VALUES // new.block_size * new.type_size

        def one(index: int) -> None:
            values = old.decode(raw[starts[index] : starts[index] + in_bytes])
            self._check_finite(name, values)
            if old is not new:
                data = new.encode(values)
                out[index * out_bytes :][: data.size] = data

        try:
            for _ in self._pool.map(one, range(len(starts))):
                pass
        except InvalidParameterError as error:
            raise InvalidParameterError(f"tensor {name!r}: {error.message}") from None
        return out

    def _check_finite(self, name: str, values: npt.NDArray[np.float32]) -> None:
        if not np.isfinite(values).all():
            raise MalformedFileError(
                f"{self._where}: tensor {name!r} holds NaN or infinity: the weights are damaged"
            )
