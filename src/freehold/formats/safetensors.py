# SPDX-License-Identifier: Apache-2.0
"""safetensors files, read: one file, or shards under a `model.safetensors.index.json`.

Checked as the format demands: header of at most 100 MB, spans inside the data, without holes or
overlaps, each as long as shape and type say. Types freehold cannot run are listed all the same.
What the tensors mean, and `config.json`, are not known here. Writing: `safetensors_writer`.
Source: the format section of the safetensors README.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats.mapped_file import MappedFile
from freehold.formats.strict_json import describe, parse_json_object
from freehold.formats.tensor_view import TensorView

MAX_HEADER_BYTES = 100_000_000
MAX_NAME_BYTES = 1_024
MAX_DIMS = 16
MAX_ELEMENTS = 2**60
MAX_SHARDS = 4_096
SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
INDEX_NAME = f"model{INDEX_SUFFIX}"

# Bits of one element.
DTYPE_BITS: dict[str, int] = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(slots=True)
class SafetensorsContents:
    """What one file, or all shards of an index, hold."""

    header_metadata: dict[str, str]  # `__metadata__` of the (first) file
    tensors: dict[str, TensorView]
    files: list[MappedFile]


def read_safetensors(path: Path) -> SafetensorsContents:
    """Open one file. Raises ModelNotFoundError, MalformedFileError or UnsupportedModelError."""
    file = MappedFile(path)
    try:
        header, data_start = _read_header(file)
        metadata = _header_metadata(path, header.pop("__metadata__", {}))
        views = [_tensor(file, name, entry, data_start) for name, entry in header.items()]
        _check_cover(file, views, data_start)
        file.check_unchanged()
        return SafetensorsContents(metadata, {view.name: view for view in views}, [file])
    except BaseException:
        file.close()
        raise


def read_index(index_path: Path) -> dict[str, str]:
    """Tensor name to shard file name, from an index file. Names stay inside its directory."""
    file = MappedFile(index_path)
    try:
        if file.size > MAX_HEADER_BYTES:
            raise MalformedFileError(f"{index_path}: larger than {MAX_HEADER_BYTES:,} bytes")
        index = parse_json_object(file.buffer[:], str(index_path))
    finally:
        file.close()
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedFileError(f"{index_path}: weight_map must be an object with entries")
    for name, shard in weight_map.items():
        plain = isinstance(shard, str) and shard.endswith(SUFFIX) and shard.isprintable()
        if not plain or any(c in shard for c in "/\\:") or shard.startswith("."):
            raise MalformedFileError(
                f"{index_path}: tensor {name[:100]!r} is said to be in {describe(shard)}, "
                f"which is not the name of a {SUFFIX} file beside the index"
            )
    return weight_map


def read_sharded(index_path: Path) -> SafetensorsContents:
    """Open all shards an index names. Each tensor must be in the shard named for it, and in no
    other. Raises as `read_safetensors`."""
    weight_map = read_index(index_path)
    shards = list(dict.fromkeys(weight_map.values()))
    if len(shards) > MAX_SHARDS:
        raise MalformedFileError(f"{index_path}: {len(shards):,} shards, at most {MAX_SHARDS:,}")
    whole = SafetensorsContents({}, {}, [])
    try:
        for shard in shards:
            path = index_path.parent / shard
            if not path.exists():
                raise ModelNotFoundError(
                    f"{path}: this shard is missing", hint=f"{INDEX_NAME} names it; fetch it again"
                )
            part = read_safetensors(path)
            whole.files += part.files
            whole.header_metadata = whole.header_metadata or part.header_metadata
            twice = whole.tensors.keys() & part.tensors.keys()
            if twice:
                raise MalformedFileError(
                    f"{path}: tensor {min(twice)!r} is in another shard as well"
                )
            whole.tensors.update(part.tensors)
        for name, shard in weight_map.items():
            view = whole.tensors.get(name)
            if view is None or view.path.name != shard:
                raise MalformedFileError(f"{index_path}: tensor {name[:100]!r} is not in {shard}")
        return whole
    except BaseException:
        for file in whole.files:
            file.close()
        raise


# -- header -----------------------------------------------------------------------------------


def _read_header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The JSON header and where the data begins."""
    if file.size < 8:
        raise MalformedFileError(f"{file.path}: ends inside the header length")
    length = int.from_bytes(file.buffer[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise MalformedFileError(
            f"{file.path}: the header length is {length:,}, at most {MAX_HEADER_BYTES:,} allowed"
        )
    if length > file.size - 8:
        raise MalformedFileError(
            f"{file.path}: the header length is {length:,}, the file has {file.size - 8:,} more"
        )
    raw = file.buffer[8 : 8 + length]
    if not raw.startswith(b"{"):
        raise MalformedFileError(f"{file.path}: the header does not begin with '{{'")
    return parse_json_object(raw, f"{file.path}: header"), 8 + length


def _header_metadata(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise MalformedFileError(f"{path}: __metadata__ must map names to strings")
    return value


def _is_count(value: object) -> bool:
    """A JSON integer from 0 on; true and false are not."""
    return type(value) is int and 0 <= value < 2**63


def _tensor(file: MappedFile, name: str, entry: object, data_start: int) -> TensorView:
    def error(text: str) -> MalformedFileError:
        return MalformedFileError(f"{file.path}: tensor {name[:100]!r} {text}")

    if not name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        raise error(f"has a name that is not 1 to {MAX_NAME_BYTES:,} bytes of printable text")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise error("must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise UnsupportedModelError(error(f"has unknown dtype {describe(dtype)}").message)
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(map(_is_count, shape)):
        raise error(f"has shape {describe(shape)}, not a list of up to {MAX_DIMS} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise error(f"has data_offsets {describe(offsets)}, not two positions")
    begin, end = offsets
    data_bytes = file.size - data_start
    if not begin <= end <= data_bytes:
        raise error(f"has data_offsets {describe(offsets)}, the data has {data_bytes:,} bytes")
    if math.prod(size or 1 for size in shape) >= MAX_ELEMENTS:  # a 0 does not excuse the others
        raise error(f"has shape {describe(shape)}, beyond what memory can address")
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * (end - begin):
        raise error(
            f"of shape {describe(shape)} and type {dtype} does not fit its {end - begin:,} bytes"
        )
    return TensorView(
        name, tuple(shape), dtype, file.path, data_start + begin, end - begin, False, file
    )


def _check_cover(file: MappedFile, views: list[TensorView], data_start: int) -> None:
    """Laid end to end, the tensors must fill the data exactly."""
    position = data_start
    for view in sorted(views, key=lambda view: (view.offset, view.nbytes)):
        if view.offset != position:
            fault = "overlaps another tensor" if view.offset < position else "leaves a hole before"
            raise MalformedFileError(f"{file.path}: tensor {view.name[:100]!r} {fault}")
        position += view.nbytes
    if position != file.size:
        raise MalformedFileError(
            f"{file.path}: {file.size - position:,} bytes after the last tensor belong to none"
        )
