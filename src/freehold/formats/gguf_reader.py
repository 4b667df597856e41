# SPDX-License-Identifier: Apache-2.0
"""GGUF version 2 and 3, little or big endian, one file or split: header to metadata and tensors.

Every number of the header is checked against the file before it is used, so that a hostile file
costs time and memory in proportion to its own size at most. The tensors' bytes are not looked at.
Source: the GGUF specification in the ggml repository (docs/gguf.md).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats.gguf_types import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMS,
    REMOVED_TENSOR_TYPES,
    TENSOR_TYPES,
    TensorType,
    ValueType,
)
from freehold.formats.gguf_values import MAX_KEY_BYTES, Cursor, MetadataValue
from freehold.formats.mapped_file import MappedFile
from freehold.formats.strict_json import describe
from freehold.formats.tensor_view import TensorView

MAX_KEYS = 65_536
MAX_TENSORS = 262_144
MAX_NAME_BYTES = 1_024  # the specification says 64; some programs are built with more
MAX_SPLITS = 512

_OLD_MAGICS = (b"lmgg", b"fmgg", b"tjgg", b"algg")  # ggml, ggmf, ggjt, ggla
_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(slots=True)
class GGUFContents:
    """What one GGUF file, or all files of one split set, hold."""

    metadata: dict[str, MetadataValue]
    value_types: dict[str, ValueType]  # as stored; array element types are in the arrays
    tensors: dict[str, TensorView]
    files: list[MappedFile]


def read_gguf(path: Path) -> GGUFContents:
    """Open ``path``, and with it the other members when it belongs to a split set.

    Raises ModelNotFoundError, MalformedFileError or UnsupportedModelError."""
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) == 1:
        contents = read_one(path)
        count = contents.metadata.get("split.count", 1)
        if count != 1:
            contents.files[0].close()
            raise MalformedFileError(
                f"{path}: belongs to a split set of {describe(count)}, which its name does not say",
                hint="name the files NAME-00001-of-0000N.gguf",
            )
        return contents
    return _read_split(path, match["stem"], int(match["number"]), int(match["count"]))


# -- split sets -------------------------------------------------------------------------------


def split_path(directory: Path, stem: str, number: int, count: int) -> Path:
    """Path of member ``number`` (from 1) of a split set."""
    return directory / f"{stem}-{number:05d}-of-{count:05d}.gguf"


def _read_split(path: Path, stem: str, number: int, count: int) -> GGUFContents:
    if not 1 <= number <= count <= MAX_SPLITS:
        raise MalformedFileError(
            f"{path}: part {number} of {count} is impossible (at most {MAX_SPLITS} parts)"
        )
    paths = [split_path(path.parent, stem, i, count) for i in range(1, count + 1)]
    for part in paths:
        if not part.exists():
            raise ModelNotFoundError(
                f"{part}: this member of the split set is missing",
                hint=f"all {count} files must be in one directory",
            )
    parts: list[GGUFContents] = []
    try:
        for index, part in enumerate(paths):
            parts.append(read_one(part))
            _check_member(parts[-1], part, index, count)
        return _join(parts, paths)
    except BaseException:
        for opened in parts:
            opened.files[0].close()
        raise


def _check_member(part: GGUFContents, path: Path, index: int, count: int) -> None:
    for key, expected in (("split.no", index), ("split.count", count)):
        value = part.metadata.get(key)
        if type(value) is not int or value != expected:
            raise MalformedFileError(f"{path}: {key} must be {expected}, not {describe(value)}")


def _join(parts: list[GGUFContents], paths: list[Path]) -> GGUFContents:
    whole = GGUFContents(parts[0].metadata, parts[0].value_types, {}, [])
    for part, path in zip(parts, paths, strict=True):
        twice = whole.tensors.keys() & part.tensors.keys()
        if twice:
            raise MalformedFileError(f"{path}: tensor {min(twice)!r} is in an earlier part as well")
        whole.tensors.update(part.tensors)
        whole.files += part.files
    declared = whole.metadata.get("split.tensors.count", len(whole.tensors))
    if declared != len(whole.tensors):
        raise MalformedFileError(
            f"{paths[0]}: split.tensors.count is {describe(declared)}, "
            f"the {len(paths)} files hold {len(whole.tensors)} tensors"
        )
    return whole


# -- one file ---------------------------------------------------------------------------------


def read_one(path: Path) -> GGUFContents:
    """One file alone, a member of a split set or not. Raises as `read_gguf`."""
    file = MappedFile(path)
    try:
        cursor, num_tensors, num_keys = _read_start(file)
        metadata, value_types = _read_metadata(cursor, num_keys)
        alignment = _alignment(cursor, metadata, value_types)
        infos = _read_tensor_infos(cursor, num_tensors)
        data_start = -(-cursor.pos // alignment) * alignment
        tensors = _place_tensors(file, infos, data_start, alignment, cursor.order == ">")
        file.check_unchanged()
        return GGUFContents(metadata, value_types, tensors, [file])
    except BaseException:
        file.close()
        raise


def _read_start(file: MappedFile) -> tuple[Cursor, int, int]:
    """Magic, version and counts; decides the byte order."""
    path, start = file.path, file.buffer[:8]
    if start[:4] in _OLD_MAGICS:
        raise UnsupportedModelError(
            f"{path}: a format older than GGUF", hint="use a GGUF version of the model"
        )
    if not start.startswith(MAGIC):
        raise MalformedFileError(
            f"{path}: not a GGUF file, it begins with {start[:4]!r}",
            hint="a model is a GGUF file or a directory with config.json and safetensors files",
        )
    if len(start) < 8:
        raise MalformedFileError(f"{path}: ends inside the version number")
    little, big = (int.from_bytes(start[4:], order) for order in ("little", "big"))
    version = min(little, big)  # written in the wrong order, a small number becomes a huge one
    if version not in (2, 3):
        raise UnsupportedModelError(
            f"{path}: GGUF version {version} is not supported", hint="versions 2 and 3 are"
        )
    cursor = Cursor(file.buffer, file.size, "<" if version == little else ">", str(path))
    cursor.pos = 8
    num_tensors = cursor.u64("the tensor count")
    num_keys = cursor.u64("the metadata count")
    # The least a tensor takes: name of one byte, no dimensions, type, offset; a key: one byte,
    # its type and a one-byte value.
    for what, count, limit, least in (
        ("tensor count", num_tensors, MAX_TENSORS, 8 + 1 + 4 + 4 + 8),
        ("metadata count", num_keys, MAX_KEYS, 8 + 1 + 4 + 1),
    ):
        if count > limit:
            raise cursor.error(f"the {what} is {count:,}, at most {limit:,} are allowed")
        cursor.need(count, least, f"the {what} of {count:,}")
    return cursor, num_tensors, num_keys


def _read_metadata(
    cursor: Cursor, count: int
) -> tuple[dict[str, MetadataValue], dict[str, ValueType]]:
    metadata: dict[str, MetadataValue] = {}
    types: dict[str, ValueType] = {}
    for index in range(count):
        key = cursor.name(f"metadata key {index}", MAX_KEY_BYTES)
        what = f"metadata value {key[:100]!r}"
        if key in metadata:
            raise cursor.error(f"{what} occurs twice")
        types[key] = cursor.value_type(what)
        metadata[key] = cursor.value(types[key], what)
    return metadata, types


def _alignment(
    cursor: Cursor, metadata: dict[str, MetadataValue], types: dict[str, ValueType]
) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if types.get("general.alignment", ValueType.UINT32) is not ValueType.UINT32:
        raise cursor.error("general.alignment must be a 32-bit unsigned integer")
    assert isinstance(alignment, int)
    if alignment < 8 or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment}: it must be a power of two from 8 on")
    return alignment


@dataclass(slots=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]  # outermost first
    kind: TensorType
    offset: int  # from the start of the data part
    nbytes: int


def _read_tensor_infos(cursor: Cursor, count: int) -> list[_TensorInfo]:
    infos: list[_TensorInfo] = []
    names: set[str] = set()
    for index in range(count):
        name = cursor.name(f"the name of tensor {index}", MAX_NAME_BYTES)
        what = f"tensor {name[:100]!r}"
        if name in names:
            raise cursor.error(f"{what} occurs twice")
        names.add(name)
        num_dims = cursor.u32(f"the dimensions of {what}")
        if num_dims > MAX_DIMS:
            raise cursor.error(f"{what} has {num_dims:,} dimensions, at most {MAX_DIMS} are known")
        # Stored innermost first.
        dims = [cursor.u64(f"the dimensions of {what}") for _ in range(num_dims)]
        type_id = cursor.u32(f"the type of {what}")
        offset = cursor.u64(f"the offset of {what}")
        kind = _tensor_type(type_id, cursor, what)
        row, elements = (dims[0] if dims else 1), math.prod(dims)
        if elements == 0:
            raise cursor.error(f"{what} has a dimension of 0: {dims}")
        if elements >= 2**63:
            raise cursor.error(f"the dimensions of {what} multiply beyond 63 bits: {dims}")
        if row % kind.block_size:
            raise cursor.error(
                f"{what} has rows of {row:,}, not a multiple of the {kind.name} block "
                f"of {kind.block_size}"
            )
        nbytes = elements // kind.block_size * kind.type_size
        infos.append(_TensorInfo(name, tuple(reversed(dims)), kind, offset, nbytes))
    return infos


def _tensor_type(type_id: int, cursor: Cursor, what: str) -> TensorType:
    kind = TENSOR_TYPES.get(type_id)
    if kind is not None:
        return kind
    if type_id in REMOVED_TENSOR_TYPES:
        raise UnsupportedModelError(
            f"{cursor.where}: {what} has type {REMOVED_TENSOR_TYPES[type_id]} (id {type_id}), "
            "which was removed from the format",
            hint="use a file made with a current converter",
        )
    raise UnsupportedModelError(
        f"{cursor.where}: {what} has unknown tensor type {type_id}",
        hint="private types of forked programs are not supported",
    )


def _place_tensors(
    file: MappedFile, infos: list[_TensorInfo], data_start: int, alignment: int, big_endian: bool
) -> dict[str, TensorView]:
    """Views in file order; every range aligned, inside the file and apart from the others."""

    def error(info: _TensorInfo, text: str) -> MalformedFileError:
        return MalformedFileError(f"{file.path}: tensor {info.name[:100]!r} {text}")

    data_bytes = max(0, file.size - data_start)
    for info in infos:
        if info.offset % alignment:
            raise error(info, f"has offset {info.offset:,}, not a multiple of {alignment}")
        if info.offset + info.nbytes > data_bytes:
            raise error(
                info,
                f"needs bytes {info.offset:,} to {info.offset + info.nbytes:,} of the data, "
                f"which has {data_bytes:,}",
            )
    end = 0
    for info in sorted(infos, key=lambda info: info.offset):
        if info.offset < end:
            raise error(info, "overlaps another tensor")
        end = info.offset + info.nbytes
    return {
        info.name: TensorView(
            info.name, info.shape, info.kind.name, file.path, data_start + info.offset,
            info.nbytes, big_endian, file,
        )
        for info in infos
    }  # fmt: skip
