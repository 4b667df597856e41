# SPDX-License-Identifier: Apache-2.0
"""`ShiftedNorm`: a stored norm weight w that stands for 1 + w."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freehold.ops import FloatArray, RawTensor


@dataclass(slots=True, eq=False)
class ShiftedNorm:
    """Satisfies `ops.RawTensor`. The sum is float32, whatever w is stored as: in bfloat16 it
    would lose the last bits of w."""

    stored: RawTensor
    name: str
    shape: tuple[int, ...]
    qtype: str = "F32"

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)

    def to_f32(self) -> FloatArray:
        return self.stored.to_f32() + np.float32(1.0)

    def bytes(self) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.to_f32(), dtype="<f4").reshape(-1).view(np.uint8)

    def file_span(self) -> None:
        """Nowhere in the file."""
