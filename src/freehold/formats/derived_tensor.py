# SPDX-License-Identifier: Apache-2.0
"""`DerivedTensor`: one matrix whose values are spread over several stored tensors.

It looks like a `TensorView` of a type freehold can run: codes here and scales there come out as
whole blocks, made when they are asked for, some rows at a time. What the parts are called and how
they combine is known to `freehold.formats.schemes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError, MalformedFileError
from freehold.formats.tensor_view import TensorView
from freehold.quants import get

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# Rows [start, stop) of the matrix, all axes but the last counted as rows.
BlockRows: TypeAlias = Callable[[int, int], ByteArray]
FloatRows: TypeAlias = Callable[[int, int], FloatArray]

_TILE_VALUES = 1 << 20  # made at a time: 4 MiB as float32


@dataclass(slots=True, eq=False)
class DerivedTensor:
    """Satisfies `ops.RawTensor` and `StoredTensor`.

    ``qtype`` is what `bytes` gives, not what the file holds. `to_f32` decodes just these bytes,
    so that everybody sees the same numbers."""

    name: str
    shape: tuple[int, ...]  # outermost first
    qtype: str
    sources: tuple[TensorView, ...]  # all stored tensors this one stands for
    make_rows: BlockRows = field(repr=False)

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """All axes but the last."""
        return math.prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        """Of `bytes`, not of the sources."""
        return self.num_rows * get(self.qtype).nbytes(self.shape[-1])

    def rows(self, start: int, stop: int) -> ByteArray:
        """The bytes of rows [start, stop), one dimension.

        Raises MalformedFileError for numbers that cannot be stored so."""
        try:
            with np.errstate(all="ignore"):  # a damaged file may hold infinite or NaN scales
                made = self.make_rows(start, stop)
        except InvalidParameterError as error:
            raise MalformedFileError(f"tensor {self.name[:100]!r}: {error.message}") from None
        assert made.dtype == np.uint8
        assert made.size == (stop - start) * get(self.qtype).nbytes(self.shape[-1])
        return made.reshape(-1)

    def bytes(self) -> ByteArray:
        """All blocks, [nbytes]; a new array."""
        out = np.empty(self.nbytes, dtype=np.uint8)
        row_bytes = get(self.qtype).nbytes(self.shape[-1])
        for start, stop in self._tiles():
            out[start * row_bytes : stop * row_bytes] = self.rows(start, stop)
        return out

    def to_f32(self) -> FloatArray:
        """Decoded copy with `shape`."""
        kind, width = get(self.qtype), self.shape[-1]
        out = np.empty((self.num_rows, width), dtype=np.float32)
        for start, stop in self._tiles():
            out[start:stop] = kind.decode(self.rows(start, stop)).reshape(-1, width)
        return out.reshape(self.shape)

    def file_span(self) -> None:
        """Nowhere in the file."""

    def _tiles(self) -> list[tuple[int, int]]:
        step = max(1, _TILE_VALUES // max(1, self.shape[-1]))
        return [(i, min(i + step, self.num_rows)) for i in range(0, self.num_rows, step)]


def from_floats(
    name: str, shape: tuple[int, ...], sources: tuple[TensorView, ...], rows: FloatRows
) -> DerivedTensor:
    """A tensor given by its values, [stop − start, shape[-1]] at a time. They are rounded to
    BF16, as the vendors' own conversions do; products of small floats and powers of two fit."""
    encode = get("BF16").encode

    def make(start: int, stop: int) -> ByteArray:
        return encode(rows(start, stop).reshape(-1))

    return DerivedTensor(name, shape, "BF16", sources, make)
