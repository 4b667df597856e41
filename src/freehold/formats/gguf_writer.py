# SPDX-License-Identifier: Apache-2.0
"""Write GGUF version 3: one file or a split set, little or big endian, one tensor at a time.

Tensors are asked for their bytes when they are due, so a file larger than memory can be made.
Names and keys are taken as given; what belongs into a model is not known here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from freehold.errors import InvalidParameterError
from freehold.formats.atomic_files import atomic_files
from freehold.formats.gguf_reader import MAX_SPLITS, split_path
from freehold.formats.gguf_types import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMS,
    TENSOR_TYPES_BY_NAME,
    VALUE_CODES,
    TensorType,
    ValueType,
)
from freehold.formats.gguf_values import MAX_KEY_BYTES, SCALARS, StringArray
from freehold.formats.sharding import checked_bytes, into_shards
from freehold.formats.tensor_view import StoredTensor, swap_bytes

VERSION = 3
MAX_NAME_BYTES = 64
# Decided by the writer, whatever the metadata says.
_OWN_KEYS = ("general.alignment", "split.no", "split.count", "split.tensors.count")
_CODE_TYPES = {code: kind for kind, code in VALUE_CODES.items() if kind is not ValueType.BOOL}


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Iterable[StoredTensor],
    *,
    value_types: Mapping[str, ValueType] | None = None,
    alignment: int = DEFAULT_ALIGNMENT,
    big_endian: bool = False,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write ``path`` and return the files made; nothing appears unless all is written.

    Values are stored in the type ``value_types`` names (a `Checkpoint` has them) or else in
    the usual one: UINT32, INT32 or the 64-bit type a whole number needs, FLOAT32, BOOL, STRING,
    ARRAY. Array elements follow a NumPy array's dtype; whole numbers in lists become INT32 if
    they fit. With ``max_shard_bytes``, tensors beyond that size go to further files
    ``STEM-00001-of-0000N.gguf``.

    Raises InvalidParameterError for what GGUF cannot express, CapacityError on a full disk."""
    path = Path(path)
    if alignment < 8 or alignment & (alignment - 1):
        raise InvalidParameterError(f"alignment must be a power of two from 8 on, not {alignment}")
    order = ">" if big_endian else "<"
    slots = _slots(tensors)
    types = value_types or {}
    values = {
        key: _encode(value, types.get(key), key, order)
        for key, value in metadata.items()
        if key not in _OWN_KEYS
    }
    if alignment != DEFAULT_ALIGNMENT:
        values["general.alignment"] = _encode(alignment, ValueType.UINT32, "alignment", order)
    shards = into_shards(slots, max_shard_bytes)
    if len(shards) > MAX_SPLITS:
        raise InvalidParameterError(f"{len(shards)} files would be needed, at most {MAX_SPLITS}")
    paths = [path]
    if len(shards) > 1:
        paths = [
            split_path(path.parent, path.stem, i, len(shards)) for i in range(1, len(shards) + 1)
        ]
    with atomic_files() as open_file:
        for index, (shard, shard_path) in enumerate(zip(shards, paths, strict=True)):
            own = dict(values) if index == 0 else {
                key: value for key, value in values.items() if key == "general.alignment"
            }  # fmt: skip
            if len(shards) > 1:
                own |= _split_values(index, len(shards), len(slots), order)
            file = open_file(shard_path)
            file.write(_header(own, shard, alignment, order))
            for slot in shard:
                _write_tensor(file, slot, alignment, big_endian)
    return paths


# -- tensors ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Slot:
    tensor: StoredTensor
    kind: TensorType
    nbytes: int


def _slots(tensors: Iterable[StoredTensor]) -> list[_Slot]:
    slots: list[_Slot] = []
    names: set[str] = set()
    for tensor in tensors:
        name, shape = tensor.name, tensor.shape
        kind = TENSOR_TYPES_BY_NAME.get(tensor.qtype)
        if kind is None:
            raise InvalidParameterError(f"tensor {name!r}: GGUF has no type {tensor.qtype!r}")
        if not name or not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
            raise InvalidParameterError(
                f"tensor name {name[:100]!r} must be 1 to {MAX_NAME_BYTES} bytes of printable text"
            )
        if name in names:
            raise InvalidParameterError(f"tensor {name!r} occurs twice")
        names.add(name)
        row = shape[-1] if shape else 1
        if len(shape) > MAX_DIMS or min(shape, default=1) < 1 or row % kind.block_size:
            raise InvalidParameterError(f"tensor {name!r}: {kind.name} cannot have shape {shape}")
        nbytes = math.prod(shape) // kind.block_size * kind.type_size
        slots.append(_Slot(tensor, kind, nbytes))
    return slots


def _split_values(index: int, count: int, num_tensors: int, order: str) -> dict[str, bytes]:
    return {
        "split.no": _encode(index, ValueType.UINT16, "split.no", order),
        "split.count": _encode(count, ValueType.UINT16, "split.count", order),
        "split.tensors.count": _encode(num_tensors, ValueType.INT32, "split.tensors.count", order),
    }


def _write_tensor(file: BinaryIO, slot: _Slot, alignment: int, big_endian: bool) -> None:
    data = checked_bytes(slot.tensor, slot.nbytes)
    if big_endian:
        data = swap_bytes(data, slot.tensor.qtype, slot.tensor.name)
    file.write(data.data)
    file.write(bytes(-slot.nbytes % alignment))


# -- header -----------------------------------------------------------------------------------


def _header(
    values: Mapping[str, bytes], slots: Sequence[_Slot], alignment: int, order: str
) -> bytes:
    """All up to the first tensor's data. ``values``: key to encoded type and value."""
    out = bytearray(MAGIC)
    out += struct.pack(order + "IQQ", VERSION, len(slots), len(values))
    for key, encoded in values.items():
        if not key or not key.isprintable() or len(key.encode()) > MAX_KEY_BYTES:
            raise InvalidParameterError(f"metadata key {key[:100]!r} must be printable text")
        out += _string(key, order)
        out += encoded
    offset = 0
    for slot in slots:
        shape = slot.tensor.shape
        out += _string(slot.tensor.name, order)
        out += struct.pack(f"{order}I{len(shape)}Q", len(shape), *reversed(shape))
        out += struct.pack(order + "IQ", slot.kind.ggml_id, offset)
        offset += slot.nbytes + -slot.nbytes % alignment
    out += bytes(-len(out) % alignment)
    return bytes(out)


def _string(text: str, order: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise InvalidParameterError(f"{text[:100]!r} cannot be stored as UTF-8") from None
    return struct.pack(order + "Q", len(raw)) + raw


def _encode(value: Any, kind: ValueType | None, key: str, order: str) -> bytes:
    """Type number and value."""
    if kind is None:
        kind = _usual_type(value, key)
    return struct.pack(order + "I", kind) + _encode_as(value, kind, key, order)


def _encode_as(value: Any, kind: ValueType, key: str, order: str) -> bytes:
    """The value alone."""
    if kind is ValueType.ARRAY:
        return _encode_array(value, key, order)
    if kind is ValueType.STRING:
        if not isinstance(value, str):
            raise InvalidParameterError(f"{key} must be a string, not {value!r:.100}")
        return _string(value, order)
    if (kind is ValueType.BOOL) != isinstance(value, (bool, np.bool_)):
        raise InvalidParameterError(f"{key}: {value!r:.100} does not fit {kind.name}")
    try:
        return SCALARS[order, kind].pack(bool(value) if kind is ValueType.BOOL else value)
    except (struct.error, OverflowError):
        raise InvalidParameterError(f"{key}: {value!r:.100} does not fit {kind.name}") from None


def _encode_array(value: Any, key: str, order: str) -> bytes:
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "biuf" or value.dtype.itemsize == 16:
            raise InvalidParameterError(f"{key}: GGUF has no array of {value.dtype} {value.shape}")
        if value.dtype == np.bool_:
            kind, code = ValueType.BOOL, "u1"
        else:
            code = f"{value.dtype.kind}{value.dtype.itemsize}"
            if code not in _CODE_TYPES:
                raise InvalidParameterError(f"{key}: GGUF has no array of {value.dtype}")
            kind = _CODE_TYPES[code]
        start = struct.pack(order + "IQ", kind, value.size)
        return start + value.astype(order + code).tobytes()
    if not isinstance(value, (list, tuple, StringArray)):
        raise InvalidParameterError(f"{key} must be an array, not {value!r:.100}")
    kind = _element_type(value, key)
    items = (_encode_as(item, kind, key, order) for item in value)
    return struct.pack(order + "IQ", kind, len(value)) + b"".join(items)


def _usual_type(value: Any, key: str) -> ValueType:
    if isinstance(value, (bool, np.bool_)):
        return ValueType.BOOL
    if isinstance(value, np.number):
        code = f"{value.dtype.kind}{value.dtype.itemsize}"
        if code not in _CODE_TYPES:
            raise InvalidParameterError(f"{key}: GGUF cannot store a {value.dtype}")
        return _CODE_TYPES[code]
    if isinstance(value, int):
        if 0 <= value < 2**32:
            return ValueType.UINT32
        if -(2**31) <= value < 0:
            return ValueType.INT32
        return ValueType.INT64 if value < 0 else ValueType.UINT64
    if isinstance(value, float):
        return ValueType.FLOAT32
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, (list, tuple, np.ndarray, StringArray)):
        return ValueType.ARRAY
    raise InvalidParameterError(f"{key}: GGUF cannot store a {type(value).__name__}")


def _element_type(values: Sequence[Any], key: str) -> ValueType:
    """The one type all elements share. An empty list is one of strings."""
    if isinstance(values, StringArray) or not values:
        return ValueType.STRING
    if all(type(value) is int for value in values):
        low, high = min(values), max(values)
        if low >= -(2**31) and high < 2**31:
            return ValueType.INT32
        return ValueType.INT64 if high < 2**63 else ValueType.UINT64
    kinds = {_usual_type(value, key) for value in values}
    if len(kinds) != 1:
        raise InvalidParameterError(f"{key}: the elements of an array must be of one type")
    return kinds.pop()
