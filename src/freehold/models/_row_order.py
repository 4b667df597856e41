# SPDX-License-Identifier: Apache-2.0
"""`ReorderedRows`: a stored matrix or vector with its rows in another order; and the order in
which GGUF has the rows that make queries and keys.

Every encoding keeps a row's values together, so rows move as bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from freehold.ops import FloatArray, RawTensor


@dataclass(slots=True, eq=False)
class ReorderedRows:
    """Satisfies `ops.RawTensor`. Row i is row ``order[i]`` of `stored`; of a vector, element i."""

    stored: RawTensor
    order: npt.NDArray[np.intp] = field(repr=False)  # as many as `stored` has rows
    name: str = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    qtype: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.shape = self.stored.name, self.stored.shape
        self.qtype = self.stored.qtype

    @property
    def nbytes(self) -> int:
        return self.stored.nbytes

    def bytes(self) -> npt.NDArray[np.uint8]:
        return self.stored.bytes().reshape(len(self.order), -1)[self.order].reshape(-1)

    def to_f32(self) -> FloatArray:
        return self.stored.to_f32()[self.order]

    def file_span(self) -> None:
        """Nowhere in the file."""


def reordered(tensor: RawTensor, order: npt.NDArray[np.intp]) -> RawTensor:
    """`tensor` with its rows in that order; left as it is where its shape is another one, which
    whoever checks shapes will say."""
    return ReorderedRows(tensor, order) if tensor.shape[:1] == order.shape else tensor


def interleaved_rows(heads: int, head_dim: int, rotary_dim: int) -> npt.NDArray[np.intp]:
    """Source row of each row: [heads · head_dim].

    Within a head, row i and row i + rotary_dim/2 become neighbours; rows past the rotated part
    stay."""
    half = rotary_dim // 2
    head = np.arange(head_dim)
    head[:rotary_dim] = np.arange(rotary_dim).reshape(2, half).T.reshape(-1)
    return (np.arange(heads)[:, None] * head_dim + head).reshape(-1)
