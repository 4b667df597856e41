# SPDX-License-Identifier: Apache-2.0
"""What the scale searches of the K-quants and IQ4 types share: the problem and its arrangement.

Each sub-block's integers are tried under a range of candidate scales; for each, the scale (and
minimum) that fits them best follows in closed form by weighted least squares, and the candidate
of least weighted squared error wins. Scales are then rounded to the super-block's integers, and
integers and super-block scales improved in turn while the error falls. `_affine` and `_signed`
do this for their two forms of value.

A value's weight is its magnitude plus the root mean square of its sub-block: large weights matter
more to a matrix product than their number suggests, and small ones still count. On Gaussian values
this costs 1 % of plain error and gains 4 % of magnitude-weighted error against equal weights;
squares instead of magnitudes cost 2 % and gain no more.

Arrays are held as [sub_size, columns], a column per sub-block, so that every sum runs along
contiguous memory: six times faster in NumPy than rows of 16 or 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from freehold.quants.base import FloatArray, to_f16

Half = npt.NDArray[np.float16]
_F = TypeVar("_F", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class Columns:
    """Sub-blocks as columns, in units in which the block's largest magnitude is below 1."""

    x: FloatArray  # [sub_size, columns]
    w: FloatArray  # [sub_size, columns]
    unit: FloatArray  # [n]: the block's power of two, so that scaling back is exact
    subs: int  # sub-blocks in a block

    def per_block(self, column: FloatArray) -> FloatArray:
        """[columns] to [n, subs]."""
        return column.reshape(-1, self.subs)

    def per_column(self, block: FloatArray) -> FloatArray:
        """[n] to [columns]."""
        return np.repeat(block, self.subs)

    def restore(self, q: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """[sub_size, columns] of small integers to [n, values] bytes."""
        return np.ascontiguousarray(q.astype(np.uint8).T).reshape(len(self.unit), -1)

    def store(self, d: FloatArray, type_name: str) -> tuple[Half, FloatArray]:
        """A block scale [n] as it will be stored, and that stored number in our units."""
        half = to_f16(d * self.unit, type_name)
        return half, half.astype(np.float32) / self.unit


def to_columns(values: FloatArray, sub_size: int) -> Columns:
    """Arrange [n, values of a block], scaled by a power of two per block."""
    _, exponent = np.frexp(np.abs(values).max(axis=1))
    # Held where both 2**e and 2**-e are normal numbers; smaller blocks round to zero anyway.
    unit = np.ldexp(np.float32(1), np.clip(exponent, -120, 120)).astype(np.float32)
    scaled = values / unit[:, None]
    x = np.ascontiguousarray(scaled.reshape(-1, sub_size).T)
    w = np.abs(x)
    w += np.sqrt((x * x).mean(axis=0))
    return Columns(x, w, unit, values.shape[1] // sub_size)


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Sum of products down each column."""
    total: FloatArray = np.einsum("ij,ij->j", a, b)
    return total


def ratio(top: npt.NDArray[_F], bottom: npt.NDArray[_F]) -> npt.NDArray[_F]:
    """top / bottom, 0 where bottom is not positive."""
    quotient: npt.NDArray[_F] = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    return quotient


def keep_better(columns: Columns, old: tuple, new: tuple) -> tuple:  # type: ignore[type-arg]
    """Of two fits, block by block, the one of less error."""
    better = new[0] < old[0]
    wide = columns.per_column(better)

    def pick(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> object:
        return np.where(better if a.shape == better.shape else wide, b, a)

    return tuple(pick(a, b) for a, b in zip(old, new, strict=True))
