# SPDX-License-Identifier: Apache-2.0
"""Tensors that no file holds as they are: values that were computed, rows put below others.

They satisfy `ops.RawTensor`. Knows no family and no names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from freehold.ops import FloatArray, RawTensor

ByteArray = npt.NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class MadeTensor:
    """Values in float32."""

    name: str
    values: FloatArray = field(repr=False)
    shape: tuple[int, ...] = field(init=False)
    qtype: str = field(init=False, default="F32")

    def __post_init__(self) -> None:
        self.shape = self.values.shape

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def bytes(self) -> ByteArray:
        return np.ascontiguousarray(self.values, dtype="<f4").reshape(-1).view(np.uint8)

    def to_f32(self) -> FloatArray:
        return self.values.copy()

    def file_span(self) -> None:
        """Nowhere in a file."""


@dataclass(slots=True, eq=False)
class PaddedRows:
    """A matrix with its first row repeated below, up to `rows` rows in all."""

    source: RawTensor
    name: str
    shape: tuple[int, ...]
    qtype: str
    nbytes: int

    def bytes(self) -> ByteArray:
        row = self._row_bytes()
        out = np.empty(self.nbytes, dtype=np.uint8)
        stored = self.source.bytes()
        out[: stored.size] = stored
        out[stored.size :].reshape(-1, row)[:] = stored[:row]
        return out

    def to_f32(self) -> FloatArray:
        values = self.source.to_f32()
        more = np.repeat(values[:1], self.shape[0] - len(values), axis=0)
        return np.concatenate([values, more])

    def file_span(self) -> None:
        """Nowhere in a file."""

    def _row_bytes(self) -> int:
        return self.nbytes // self.shape[0]


def padded_rows(source: RawTensor, rows: int) -> RawTensor:
    """`source` [n, K] with its first row repeated below until there are `rows`, n at most."""
    have, width = source.shape
    if have == rows:
        return source
    nbytes = source.nbytes // have * rows
    return PaddedRows(source, source.name, (rows, width), source.qtype, nbytes)
