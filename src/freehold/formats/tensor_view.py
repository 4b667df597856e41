# SPDX-License-Identifier: Apache-2.0
"""`TensorView`: one stored tensor of an open checkpoint, whichever format it came from.

It knows where the bytes lie and how to have them decoded. It does not know what the tensor is for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from freehold.errors import UnsupportedModelError
from freehold.formats.gguf_types import PLAIN_DTYPES
from freehold.formats.mapped_file import ByteArray, MappedFile
from freehold.quants import QuantType, get, names

FloatArray = npt.NDArray[np.float32]


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

    def to_f32(self) -> FloatArray:
        """Decoded copy with `shape`. Raises UnsupportedModelError for a type without decoder."""
        raw = self.bytes()
        if self.qtype in PLAIN_DTYPES:
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
