# SPDX-License-Identifier: Apache-2.0
"""Tensors on their way out of a file (`TensorView`) or into one (`StoredTensor`, `LazyTensor`).

Known here: where bytes lie and how to have them decoded or swapped. What a tensor is for is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from freehold.errors import UnsupportedModelError
from freehold.formats.gguf_types import PLAIN_DTYPES
from freehold.formats.mapped_file import ByteArray, MappedFile
from freehold.quants import QuantType, get, names

FloatArray = npt.NDArray[np.float32]


class StoredTensor(Protocol):
    """All that a writer needs of a tensor; a `TensorView` is one."""

    name: str
    shape: tuple[int, ...]  # outermost first
    qtype: str

    def bytes(self) -> ByteArray:
        """The bytes to store, little-endian, one dimension. Asked for once, when it is due."""


@dataclass(slots=True, eq=False)
class LazyTensor:
    """A tensor whose bytes are made when the writer comes to it, and forgotten after."""

    name: str
    shape: tuple[int, ...]
    qtype: str
    make: Callable[[], ByteArray]

    def bytes(self) -> ByteArray:
        return self.make()


@dataclass(slots=True, eq=False)
class TensorView:
    """Satisfies `ops.RawTensor`. ``path`` and ``offset`` let a backend read the bytes itself,
    which is right only where ``big_endian`` is false."""

    name: str
    shape: tuple[int, ...]  # outermost first
    qtype: str  # "Q4_K", "BF16", "I32" …
    path: Path
    offset: int  # of the first byte in `path`
    nbytes: int
    big_endian: bool
    file: MappedFile = field(repr=False)

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    def bytes(self) -> ByteArray:
        """The stored bytes, little-endian, [nbytes]; a read-only view of the file where that is
        little-endian too, else a copy.

        Raises MalformedFileError when the file shrank since it was opened, and
        UnsupportedModelError for a big-endian tensor of a type freehold cannot swap."""
        raw = self.file.view(self.offset, self.nbytes)
        return swap_bytes(raw, self.qtype, self.name) if self.big_endian else raw

    def file_span(self) -> tuple[str, int] | None:
        """Where the bytes lie as they are wanted; None for a big-endian tensor."""
        return None if self.big_endian else (str(self.path), self.offset)

    def to_f32(self) -> FloatArray:
        """Decoded copy with `shape`. Raises UnsupportedModelError for a type without decoder."""
        raw = self.bytes()
        if self.qtype in PLAIN_DTYPES:
            with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite
                values = raw.view(PLAIN_DTYPES[self.qtype]).astype(np.float32)
        else:
            values = _codec(self.qtype, self.name).decode(raw)
        return values.reshape(self.shape)


def swap_bytes(raw: ByteArray, qtype: str, name: str) -> ByteArray:
    """The other byte order of the tensor data ``raw`` [nbytes], as a copy."""
    if qtype in PLAIN_DTYPES:
        return raw.view(PLAIN_DTYPES[qtype]).byteswap().view(np.uint8)
    return _codec(qtype, name).byteswap(raw)


def _codec(qtype: str, name: str) -> QuantType:
    if qtype not in names():
        raise UnsupportedModelError(
            f"tensor {name!r} has type {qtype}, which freehold cannot decode",
            hint=f"use a file with types out of {', '.join(names())}",
        )
    return get(qtype)
