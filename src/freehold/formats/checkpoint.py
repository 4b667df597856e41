# SPDX-License-Identifier: Apache-2.0
"""`open_checkpoint`: one view over a GGUF file or split set and a Hugging Face directory.

It knows how models lie on disk, and gives metadata and tensors under the file's own names.
It does not know architectures: what a key or tensor is for is decided in `freehold.models`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

import numpy as np

from freehold.errors import (
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from freehold.formats.gguf_reader import read_gguf
from freehold.formats.gguf_types import ValueType
from freehold.formats.gguf_values import StringArray
from freehold.formats.mapped_file import MappedFile
from freehold.formats.mistral_files import PARAMS_NAME, PREFIX, config_from_params, renamed
from freehold.formats.safetensors import (
    INDEX_NAME,
    INDEX_SUFFIX,
    SUFFIX,
    SafetensorsContents,
    read_index,
    read_safetensors,
    read_sharded,
)
from freehold.formats.schemes import CheckpointTensor, resolve
from freehold.formats.strict_json import describe, parse_json_object
from freehold.formats.tensor_view import TensorView

__all__ = ["Checkpoint", "CheckpointTensor", "TensorView", "open_checkpoint"]

MAX_CONFIG_BYTES = 16 * 1024 * 1024
SINGLE_NAME = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"  # of PEFT; `adapter_file` reads it
_PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
# Side files that accompany a model: vision projectors and draft heads.
_SIDE_FILE = re.compile(r"(mmproj|mtp)[-_.]", re.IGNORECASE)
_SPLIT_TAIL = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(slots=True, eq=False)
class Checkpoint:
    """An open model file. Close it, or use it as a context manager; arrays made from it live on."""

    path: Path  # as given: a file or a directory
    directory: Path  # where tokenizer files and the like would lie
    format: Literal["gguf", "safetensors"]
    architecture: str  # general.architecture or model_type; "" when not declared
    # GGUF keys and values, or the object in config.json. `quantization_config` is left out where
    # the tensors have been put together accordingly.
    metadata: Mapping[str, Any]
    value_types: Mapping[str, ValueType]  # GGUF only: the type each value is stored in
    tensors: Mapping[str, CheckpointTensor]  # in file order, under the file's own names
    files: list[Path]
    _open: list[MappedFile] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, in the types they are given out in."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def close(self) -> None:
        """Let go of the files. May be called twice."""
        for file in self._open:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    # -- metadata, typed ---------------------------------------------------------------------
    # Each raises MalformedFileError when the key is absent and no default is given, and when
    # the value is of another type.

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is."""
        return self.metadata.get(key, default)

    def get_int(self, key: str, default: int | None = None) -> int:
        """A whole number."""
        value = self._value(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._wrong(key, "a whole number", value)

    def get_float(self, key: str, default: float | None = None) -> float:
        """A number."""
        value = self._value(key, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                pass
        raise self._wrong(key, "a number", value)

    def get_bool(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._value(key, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false", value)

    def get_str(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self._value(key, default)
        if isinstance(value, str):
            return value
        raise self._wrong(key, "a string", value)

    def get_ints(self, key: str, default: list[int] | None = None) -> list[int]:
        """A list of whole numbers."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            numbers: list[int] = value.tolist()
            return numbers
        if isinstance(value, list) and all(type(item) is int for item in value):
            return value
        raise self._wrong(key, "a list of whole numbers", value)

    def get_floats(self, key: str, default: list[float] | None = None) -> list[float]:
        """A list of numbers."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
            value = value.tolist()
        if isinstance(value, list) and all(type(item) in (int, float) for item in value):
            try:
                return [float(item) for item in value]
            except OverflowError:
                pass
        raise self._wrong(key, "a list of numbers", value)

    def get_strings(self, key: str, default: list[str] | None = None) -> list[str]:
        """A list of strings. It may be shared: do not change it."""
        value = self._value(key, default)
        if isinstance(value, StringArray):
            return value.tolist()
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise self._wrong(key, "a list of strings", value)

    def tensor(self, name: str) -> CheckpointTensor:
        """The tensor called ``name``; MalformedFileError when there is none."""
        view = self.tensors.get(name)
        if view is None:
            raise MalformedFileError(f"{self.path}: tensor {name!r} is missing")
        return view

    def _value(self, key: str, default: object) -> object:
        value = self.metadata.get(key, default)
        if value is None:
            raise MalformedFileError(f"{self.path}: {key} is missing")
        return value

    def _wrong(self, key: str, what: str, value: object) -> MalformedFileError:
        return MalformedFileError(f"{self.path}: {key} must be {what}, not {describe(value)}")


# -- finding the files ------------------------------------------------------------------------


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open the model at ``path``: a GGUF file (any member of a split set), a safetensors file,
    or a directory with `config.json` and safetensors or with exactly one GGUF model.

    Only headers are read. A bare safetensors file without `config.json` opens with architecture
    "". Raises ModelNotFoundError, MalformedFileError or UnsupportedModelError."""
    path = Path(path)
    try:
        return _open_path(path)
    except OSError as error:  # looking around: a directory not ours to read, a name too long
        raise ModelNotFoundError(f"{path!s:.200}: cannot be read: {error.strerror}") from None


def _open_path(path: Path) -> Checkpoint:
    if path.is_dir():
        return _open_directory(path)
    suffix = path.suffix.lower()
    if suffix in _PICKLE_SUFFIXES and path.exists():
        raise _pickle_error(path)
    if suffix == SUFFIX:
        return _open_safetensors_file(path)
    if path.name.endswith(INDEX_SUFFIX):
        return _from_safetensors(path, path.parent, read_sharded(path))
    return _open_gguf(path, path)


def _pickle_error(path: Path) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path}: pickle files can run code when opened and are not read",
        hint="use the safetensors or GGUF version of the model",
    )


def _open_directory(directory: Path) -> Checkpoint:
    names = sorted(entry.name for entry in directory.iterdir())
    ggufs = [n for n in names if n.lower().endswith(".gguf") and not _SIDE_FILE.match(n)]
    safetensors = [n for n in names if n.endswith(SUFFIX)]
    models = {_SPLIT_TAIL.sub("", name): name for name in reversed(ggufs)}
    if models and safetensors:
        raise ModelNotFoundError(
            f"{directory}: holds GGUF and safetensors models", hint="name the file you mean"
        )
    if len(models) > 1:
        raise ModelNotFoundError(
            f"{directory}: holds {len(models)} GGUF models",
            hint=f"name one of them: {', '.join(sorted(models.values())[:8])}",
        )
    if models:
        (name,) = models.values()
        return _open_gguf(directory / name, directory)
    if safetensors:
        return _open_hf(directory, directory)
    for name in names:
        if Path(name).suffix.lower() in _PICKLE_SUFFIXES and "model" in name:
            raise _pickle_error(directory / name)
    hint = "give a GGUF file, or a directory with config.json and safetensors files"
    raise ModelNotFoundError(f"{directory}: no model in this directory", hint=hint)


def _open_gguf(file: Path, path: Path) -> Checkpoint:
    contents = read_gguf(file)
    architecture = contents.metadata.get("general.architecture", "")
    checkpoint = Checkpoint(
        path=path,
        directory=file.parent,
        format="gguf",
        architecture=architecture if isinstance(architecture, str) else "",
        metadata=MappingProxyType(contents.metadata),
        value_types=MappingProxyType(contents.value_types),
        tensors=MappingProxyType(contents.tensors),
        files=[opened.path for opened in contents.files],
        _open=contents.files,
    )
    if not isinstance(architecture, str):
        checkpoint.close()
        raise MalformedFileError(f"{file}: general.architecture must be a string")
    return checkpoint


def _open_safetensors_file(path: Path) -> Checkpoint:
    """One of a directory's own files opens the directory; any other stands alone."""
    directory = path.parent
    if path.name.startswith(PREFIX) and (directory / PARAMS_NAME).is_file():
        return _open_mistral(directory, path)
    index = directory / INDEX_NAME
    if path.name != SINGLE_NAME and index.is_file() and path.name in read_index(index).values():
        return _from_safetensors(path, directory, read_sharded(index))
    return _from_safetensors(path, directory, read_safetensors(path))


def _open_mistral(directory: Path, path: Path) -> Checkpoint:
    """`consolidated*.safetensors` as `params.json` describes them."""
    where = directory / PARAMS_NAME
    config = config_from_params(_read_config(where), str(where))
    files = sorted(directory.glob(f"{PREFIX}*{SUFFIX}"))
    indices = sorted(directory.glob(f"{PREFIX}*{INDEX_SUFFIX}"))
    if len(files) > 1 and not indices:
        raise ModelNotFoundError(
            f"{directory}: {len(files)} {PREFIX} files and no index", hint="fetch the index file"
        )
    contents = read_sharded(indices[0]) if len(files) > 1 else read_safetensors(files[0])
    try:
        contents.tensors = renamed(contents.tensors, str(path))
    except BaseException:
        for file in contents.files:
            file.close()
        raise
    return _from_safetensors(path, directory, contents, config)


def _open_hf(directory: Path, path: Path) -> Checkpoint:
    names = [file.name for file in directory.glob(f"*{SUFFIX}")]
    own = all(name.startswith(PREFIX) for name in names)
    if own and (directory / PARAMS_NAME).is_file():
        return _open_mistral(directory, path)
    if not (directory / "config.json").exists():
        if (directory / ADAPTER_CONFIG).exists():
            raise UnsupportedModelError(
                f"{directory}: is an adapter and no model",
                hint="name the model it is for, and the adapter by --adapter or adapters=",
            )
        raise ModelNotFoundError(
            f"{directory}: safetensors without config.json",
            hint="fetch the whole model repository, or name the file to look into it",
        )
    single, index = directory / SINGLE_NAME, directory / INDEX_NAME
    if single.exists():  # before the index, as transformers does
        return _from_safetensors(path, directory, read_safetensors(single))
    if index.exists():
        return _from_safetensors(path, directory, read_sharded(index))
    files = sorted(directory.glob(f"*{SUFFIX}"))
    if len(files) > 1:
        raise ModelNotFoundError(
            f"{directory}: {len(files)} safetensors files and no {INDEX_NAME}",
            hint="fetch the index file, or name the file you mean",
        )
    return _from_safetensors(path, directory, read_safetensors(files[0]))


def _from_safetensors(
    path: Path,
    directory: Path,
    contents: SafetensorsContents,
    config: dict[str, Any] | None = None,
) -> Checkpoint:
    """`config`, or what config.json says."""
    try:
        if config is None:
            config = _read_config(directory / "config.json")
        architecture = config.get("model_type", "")
        if not isinstance(architecture, str):
            raise MalformedFileError(f"{directory / 'config.json'}: model_type must be a string")
        config, tensors = resolve(config, contents.tensors, str(path))
    except BaseException:
        for file in contents.files:
            file.close()
        raise
    return Checkpoint(
        path=path,
        directory=directory,
        format="safetensors",
        architecture=architecture,
        metadata=MappingProxyType(config),
        value_types=MappingProxyType({}),
        tensors=MappingProxyType(tensors),
        files=[opened.path for opened in contents.files],
        _open=contents.files,
    )


def _read_config(path: Path) -> dict[str, Any]:
    """config.json, or {} when there is none."""
    if not path.exists():
        return {}
    file = MappedFile(path)
    try:
        if file.size > MAX_CONFIG_BYTES:
            raise MalformedFileError(f"{path}: larger than {MAX_CONFIG_BYTES >> 20} MiB")
        return parse_json_object(file.buffer[:], str(path))
    finally:
        file.close()
