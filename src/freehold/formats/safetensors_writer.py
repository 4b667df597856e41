# SPDX-License-Identifier: Apache-2.0
"""Write safetensors: one file, or shards with an index, one tensor at a time.

Source: the format section of the safetensors README, and the index files of the Hugging Face Hub.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from freehold.errors import InvalidParameterError
from freehold.formats.atomic_files import atomic_files
from freehold.formats.safetensors import (
    DTYPE_BITS,
    MAX_DIMS,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    SUFFIX,
)
from freehold.formats.sharding import checked_bytes, into_shards
from freehold.formats.tensor_view import StoredTensor


def write_safetensors(
    path: str | Path,
    tensors: Iterable[StoredTensor],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int | None = None,
) -> list[Path]:
    """Write ``path`` (by custom `model.safetensors`) and return the files made, index last.

    With ``max_shard_bytes``, tensors beyond that size go to ``STEM-00001-of-0000N.safetensors``
    and ``STEM.safetensors.index.json`` names them. Within a file wide types come first, so every
    tensor is aligned. Nothing appears unless all is written. Raises InvalidParameterError for
    what the format cannot express, CapacityError on a full disk."""
    path = Path(path)
    shards = into_shards(_slots(tensors), max_shard_bytes)
    for shard in shards:
        shard.sort(key=lambda slot: -slot.bits)  # stable: the given order within a width
    if len(shards) == 1:
        names = [path.name]
    else:
        count = len(shards)
        names = [f"{path.stem}-{i:05d}-of-{count:05d}{SUFFIX}" for i in range(1, count + 1)]
    paths = [path.parent / name for name in names]
    with atomic_files() as open_file:
        for shard, shard_path in zip(shards, paths, strict=True):
            _write_file(open_file(shard_path), shard, metadata or {})
        if len(shards) > 1:
            paths.append(path.with_name(f"{path.name}.index.json"))
            open_file(paths[-1]).write(_index(shards, names))
    return paths


@dataclass(slots=True)
class _Slot:
    tensor: StoredTensor
    bits: int  # of one element
    nbytes: int


def _slots(tensors: Iterable[StoredTensor]) -> list[_Slot]:
    slots: dict[str, _Slot] = {}
    for tensor in tensors:
        name, shape = tensor.name, tensor.shape
        if tensor.qtype not in DTYPE_BITS:
            raise InvalidParameterError(f"tensor {name!r}: safetensors has no {tensor.qtype!r}")
        fits = name.isprintable() and 1 <= len(name.encode()) <= MAX_NAME_BYTES
        if not fits or name in slots or name == "__metadata__":
            raise InvalidParameterError(f"tensor name {name[:100]!r} is impossible or occurs twice")
        bits = DTYPE_BITS[tensor.qtype]
        total = math.prod(shape) * bits
        if len(shape) > MAX_DIMS or min(shape, default=0) < 0 or total % 8:
            raise InvalidParameterError(f"tensor {name!r} cannot have shape {shape}")
        slots[name] = _Slot(tensor, bits, total // 8)
    return list(slots.values())


def _write_file(file: BinaryIO, slots: Sequence[_Slot], metadata: Mapping[str, str]) -> None:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for slot in slots:
        header[slot.tensor.name] = {
            "dtype": slot.tensor.qtype,
            "shape": list(slot.tensor.shape),
            "data_offsets": [position, position + slot.nbytes],
        }
        position += slot.nbytes
    raw = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER_BYTES:
        raise InvalidParameterError(f"a header of {len(raw):,} bytes is too large for safetensors")
    file.write(len(raw).to_bytes(8, "little") + raw)
    for slot in slots:
        file.write(checked_bytes(slot.tensor, slot.nbytes).data)


def _index(shards: Sequence[Sequence[_Slot]], names: Sequence[str]) -> bytes:
    total = sum(slot.nbytes for shard in shards for slot in shard)
    weight_map = {
        slot.tensor.name: name for shard, name in zip(shards, names, strict=True) for slot in shard
    }
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return json.dumps(index, indent=2, ensure_ascii=False).encode()
