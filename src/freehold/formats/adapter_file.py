# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters on disk: a PEFT directory, or a GGUF file of type "adapter".

Both become an `AdapterFile`: pairs of small matrices by the name of the matrix they change, as
the file spells it. Which model they fit is decided in `freehold.models`.
Sources: PEFT's checkpoint format page; llama.cpp's converter for adapters.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from freehold import quants
from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats.gguf_reader import read_gguf
from freehold.formats.mapped_file import MappedFile
from freehold.formats.peft_config import MAX_ALPHA, MAX_RANK, peft_config
from freehold.formats.safetensors import read_safetensors
from freehold.formats.strict_json import describe, parse_json_object
from freehold.formats.tensor_view import TensorView

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_MAX_CONFIG_BYTES = 16 * 2**20
_PEFT_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_GGUF_TENSOR = re.compile(r"(.+)\.weight\.lora_([ab])")


@dataclass(frozen=True, slots=True)
class LowRankPair:
    """What is added to a matrix [out, in]: scale · up · down."""

    down: TensorView  # [rank, in]
    up: TensorView  # [out, rank]
    scale: float


@dataclass(slots=True, eq=False)
class AdapterFile:
    """An open adapter. Close it, or use it as a context manager; only headers were read."""

    path: Path
    format: Literal["peft", "gguf"]
    architecture: str  # general.architecture of the model it is for; "" in PEFT's
    pairs: Mapping[str, LowRankPair]  # by "model.layers.0.self_attn.q_proj" or "blk.0.attn_q"
    _open: list[MappedFile] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all matrices as they are stored."""
        return sum(pair.down.nbytes + pair.up.nbytes for pair in self.pairs.values())

    def digest(self) -> bytes:
        """128 bits that stand for all that the adapter computes with; reads the whole file."""
        total = hashlib.blake2b(self.format.encode(), digest_size=16)
        for name, pair in sorted(self.pairs.items()):
            total.update(repr((name, pair.scale)).encode())
            for tensor in (pair.down, pair.up):
                total.update(repr((tensor.shape, tensor.qtype)).encode())
                total.update(tensor.bytes().data)
        return total.digest()

    def close(self) -> None:
        """Let go of the files. May be called twice."""
        for file in self._open:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_adapter(path: str | Path) -> AdapterFile:
    """Open a directory with ``adapter_config.json`` and ``adapter_model.safetensors``, either of
    these files, or a GGUF adapter.

    Raises ModelNotFoundError, MalformedFileError, or UnsupportedModelError by the name of what
    freehold lacks."""
    path = Path(path)
    try:
        if path.is_dir():
            return _open_peft(path)
        if path.name in (CONFIG_NAME, WEIGHTS_NAME):
            return _open_peft(path.parent)
    except OSError as error:  # a directory not ours to read, a name too long
        raise ModelNotFoundError(f"{path!s:.200}: cannot be read: {error.strerror}") from None
    return _open_gguf(path)


# -- PEFT -------------------------------------------------------------------------------------


def _open_peft(directory: Path) -> AdapterFile:
    where = directory / CONFIG_NAME
    if not where.is_file():
        raise ModelNotFoundError(
            f"{directory}: no {CONFIG_NAME} in this directory",
            hint=f"an adapter is a directory with {CONFIG_NAME} and {WEIGHTS_NAME}, or a GGUF file",
        )
    config = peft_config(_read_json(where), str(where))
    weights = directory / WEIGHTS_NAME
    if not weights.exists() and (directory / "adapter_model.bin").exists():
        raise UnsupportedModelError(
            f"{directory / 'adapter_model.bin'}: pickle files can run code when opened and are "
            "not read",
            hint="save the adapter with safe_serialization=True",
        )
    contents = read_safetensors(weights)
    try:
        halves: dict[tuple[str, str], TensorView] = {}
        for name, tensor in contents.tensors.items():
            match = _PEFT_TENSOR.fullmatch(name)
            if match is None:
                raise _no_part_of_lora(weights, name)
            _put(halves, (match[1], match[2].lower()), tensor, weights)
        scales = {module: config.scale_of(module) for module, _ in halves}
        pairs = _paired(halves, scales, weights)
        for module, pair in pairs.items():
            if pair.down.shape[0] != config.rank_of(module):
                raise MalformedFileError(
                    f"{weights}: the tensor {pair.down.name[:100]} has rank {pair.down.shape[0]}, "
                    f"and {CONFIG_NAME} says {config.rank_of(module)}"
                )
    except BaseException:
        contents.files[0].close()
        raise
    return AdapterFile(directory, "peft", "", pairs, contents.files)


def _read_json(path: Path) -> dict[str, object]:
    file = MappedFile(path)
    try:
        if file.size > _MAX_CONFIG_BYTES:
            raise MalformedFileError(f"{path}: larger than {_MAX_CONFIG_BYTES >> 20} MiB")
        return parse_json_object(file.buffer[:], str(path))
    finally:
        file.close()


# -- GGUF -------------------------------------------------------------------------------------


def _open_gguf(path: Path) -> AdapterFile:
    contents = read_gguf(path)
    try:
        keys = contents.metadata
        if keys.get("general.type") != "adapter":
            raise UnsupportedModelError(
                f"{path}: is no adapter, its general.type is {describe(keys.get('general.type'))}"
            )
        if keys.get("adapter.type") != "lora":
            raise UnsupportedModelError(
                f"{path}: adapter.type is {describe(keys.get('adapter.type'))}; freehold runs lora"
            )
        for key in keys:
            # "aLoRA" acts from certain tokens on; what else there may be is not known.
            if key.startswith("adapter.") and key not in _GGUF_KEYS:
                raise UnsupportedModelError(f"{path}: sets {key[:60]}, which freehold does not do")
        architecture = keys.get("general.architecture")
        if not isinstance(architecture, str):
            raise MalformedFileError(f"{path}: general.architecture must be a string")
        alpha: Any = keys.get("adapter.lora.alpha")
        number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
        if not number or not abs(alpha) <= MAX_ALPHA:  # a NaN is not at most anything
            raise MalformedFileError(
                f"{path}: adapter.lora.alpha must be a number up to 1e6, not {describe(alpha)}"
            )
        halves: dict[tuple[str, str], TensorView] = {}
        for name, tensor in contents.tensors.items():
            match = _GGUF_TENSOR.fullmatch(name)
            if match is None:
                raise _no_part_of_lora(path, name)
            _put(halves, (match[1], match[2]), tensor, path)
        # As llama.cpp reads it: an alpha of 0 is none, and the product is taken as it is.
        scales = {
            name: float(alpha) / max(1, tensor.shape[0]) if alpha else 1.0
            for (name, half), tensor in halves.items()
            if half == "a" and tensor.shape
        }
        pairs = _paired(halves, scales, path)
    except BaseException:
        for file in contents.files:
            file.close()
        raise
    return AdapterFile(path, "gguf", architecture, pairs, contents.files)


_GGUF_KEYS = frozenset(
    {"adapter.type", "adapter.lora.alpha", "adapter.lora.task_name", "adapter.lora.prompt_prefix"}
)


# -- both -------------------------------------------------------------------------------------


def _no_part_of_lora(where: Path, name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{where}: the tensor {name[:100]} is no part of a plain LoRA",
        hint="magnitudes (DoRA), biases, embeddings and modules_to_save are not run",
    )


def _put(
    halves: dict[tuple[str, str], TensorView], key: tuple[str, str], tensor: TensorView, where: Path
) -> None:
    if key in halves:
        raise MalformedFileError(f"{where}: {halves[key].name} and {tensor.name} are the same")
    if len(tensor.shape) != 2 or not math.prod(tensor.shape):
        raise MalformedFileError(
            f"{where}: the tensor {tensor.name[:100]} has shape {list(tensor.shape)}, not two sizes"
        )
    if tensor.qtype not in quants.names():
        raise UnsupportedModelError(
            f"{where}: the tensor {tensor.name[:100]} is stored as {tensor.qtype}, "
            "which freehold cannot multiply with"
        )
    halves[key] = tensor


def _paired(
    halves: Mapping[tuple[str, str], TensorView], scales: Mapping[str, float], where: Path
) -> dict[str, LowRankPair]:
    pairs = {}
    for (module, half), tensor in halves.items():
        other = halves.get((module, "b" if half == "a" else "a"))
        if other is None:
            raise MalformedFileError(f"{where}: the other half of {tensor.name[:100]} is missing")
        if half == "b":
            continue
        rank = tensor.shape[0]
        if rank > MAX_RANK:
            raise UnsupportedModelError(
                f"{where}: the tensor {tensor.name[:100]} has rank {rank}, "
                f"and at most {MAX_RANK} is run"
            )
        if other.shape[1] != rank:
            raise MalformedFileError(
                f"{where}: {tensor.name[:100]} {list(tensor.shape)} and {other.name[:100]} "
                f"{list(other.shape)} do not multiply"
            )
        pairs[module] = LowRankPair(tensor, other, scales[module])
    if not pairs:
        raise MalformedFileError(f"{where}: the adapter holds no tensors")
    return pairs
