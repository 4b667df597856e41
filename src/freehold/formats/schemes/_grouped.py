# SPDX-License-Identifier: Apache-2.0
"""Integers with a scale, and perhaps a zero point, for every group of columns: GPTQ and its kin.

value = scale · (q − zero). Four and eight bits in groups of whole 32s become blocks of ours, with
the integers as they are; anything else is multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError
from freehold.formats.derived_tensor import DerivedTensor, from_floats
from freehold.formats.schemes._parts import FloatArray
from freehold.formats.tensor_view import TensorView
from freehold.quants import repack

ByteArray = npt.NDArray[np.uint8]
# Rows [start, stop) of the matrix: integers [n, K], zero points [n, groups], scales likewise.
ByteRows: TypeAlias = Callable[[int, int], ByteArray]
ScaleRows: TypeAlias = Callable[[int, int], FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Grouped:
    """A matrix [N, K] of unsigned integers. Without `zeros` the zero point is half the range."""

    name: str
    shape: tuple[int, int]
    bits: int
    group_size: int  # columns that share a scale
    sources: tuple[TensorView, ...]
    q: ByteRows
    scales: ScaleRows
    zeros: ByteRows | None = None
    # Group of each column [K], where columns were sorted for the sake of the rounding.
    group_of: Callable[[], npt.NDArray[np.int64]] | None = None

    @property
    def _middle(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def _fits_blocks(self) -> bool:
        in_order = self.group_of is None and self.group_size % 32 == 0 and self.shape[1] % 32 == 0
        return in_order and (self.bits == 4 or (self.bits == 8 and self.zeros is None))

    def tensor(self) -> DerivedTensor:
        """Q4_0 where exact, Q4_1 with zero points (whose product with the scale is rounded to
        half precision), Q8_0, and BF16 for what fits no blocks."""
        if not self._fits_blocks:
            return from_floats(self.name, self.shape, self.sources, self._floats)
        if self.bits == 8:
            return self._derived("Q8_0", self._q8_0)
        if self.zeros is None:
            return self._derived("Q4_0", self._q4_0)
        return self._derived("Q4_1", self._q4_1)

    def _derived(self, qtype: str, make: ByteRows) -> DerivedTensor:
        return DerivedTensor(self.name, self.shape, qtype, self.sources, make)

    def _per_block(self, per_group: FloatArray) -> FloatArray:
        """[n, groups] to [n, K/32]; the last group may be short."""
        return per_group[:, np.arange(self.shape[1] // 32) // (self.group_size // 32)]

    def _q4_0(self, start: int, stop: int) -> ByteArray:
        return repack.q4_0(self.q(start, stop), self._per_block(self.scales(start, stop)))

    def _q4_1(self, start: int, stop: int) -> ByteArray:
        assert self.zeros is not None
        scales = self.scales(start, stop)
        low = -scales * self.zeros(start, stop).astype(np.float32)
        return repack.q4_1(self.q(start, stop), self._per_block(scales), self._per_block(low))

    def _q8_0(self, start: int, stop: int) -> ByteArray:
        q = (self.q(start, stop) ^ np.uint8(128)).view(np.int8)  # less 128, without overflow
        return repack.q8_0(q, self._per_block(self.scales(start, stop)))

    def _floats(self, start: int, stop: int) -> FloatArray:
        scales = self.scales(start, stop)
        group = self._columns(scales.shape[1])
        q = self.q(start, stop).astype(np.float32)
        if self.zeros is None:
            q -= np.float32(self._middle)
        else:
            q -= self.zeros(start, stop).astype(np.float32)[:, group]
        values: FloatArray = scales[:, group] * q
        return values

    def _columns(self, groups: int) -> npt.NDArray[np.int64]:
        """Group of each column; the file's own list is checked."""
        if self.group_of is None:
            return np.arange(self.shape[1]) // self.group_size
        listed = self.group_of()
        if listed.size and not 0 <= listed.min() <= listed.max() < groups:
            raise InvalidParameterError(f"its columns name groups outside the {groups} there are")
        return listed
