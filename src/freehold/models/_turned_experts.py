# SPDX-License-Identifier: Apache-2.0
"""Experts stored input first, or gate and up row by row in turn, as `ExpertStack`s of plain
matrices [out, in].

Llama 4 and gpt-oss multiply x · W, so that their files hold W as [experts, in, out]; gpt-oss also
alternates gate and up. Everything is a view: one expert is turned when it is asked for. Knows no
names and no family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold import quants
from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.models._expert_tensors import ExpertStack, rows_of
from freehold.ops import FloatArray, RawTensor

ByteArray = npt.NDArray[np.uint8]

_ELEMENTS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<u4"),
    "F16": np.dtype("<u2"),
    "BF16": np.dtype("<u2"),
}


@dataclass(slots=True, eq=False)
class _Part:
    """Some rows of a matrix, or of its transpose. Satisfies `ops.RawTensor`."""

    matrix: RawTensor
    shape: tuple[int, ...]
    picked: slice
    turned: bool
    name: str = field(init=False)
    qtype: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.qtype = self.matrix.name, self.matrix.qtype

    @property
    def nbytes(self) -> int:
        return self.shape[0] * quants.get(self.qtype).nbytes(self.shape[1])

    def bytes(self) -> ByteArray:
        raw = self.matrix.bytes()
        if self.turned:
            values = raw.view(_ELEMENTS[self.qtype]).reshape(self.matrix.shape)
            return np.ascontiguousarray(values[:, self.picked].T).reshape(-1).view(np.uint8)
        rows = raw.reshape(self.matrix.shape[0], -1)
        return np.ascontiguousarray(rows[self.picked]).reshape(-1)

    def to_f32(self) -> FloatArray:
        return quants.get(self.qtype).decode(self.bytes()).reshape(self.shape)

    def file_span(self) -> None:
        """No stretch of the file."""


@dataclass(slots=True, eq=False)
class PickedColumns:
    """Some columns of a small tensor, in float32. Satisfies `ops.RawTensor`."""

    source: RawTensor
    picked: slice
    name: str = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    qtype: str = field(init=False, default="F32")

    def __post_init__(self) -> None:
        *lead, width = self.source.shape
        self.name = self.source.name
        self.shape = (*lead, len(range(width)[self.picked]))

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)

    def bytes(self) -> ByteArray:
        return self.to_f32().reshape(-1).view(np.uint8)

    def to_f32(self) -> FloatArray:
        return np.ascontiguousarray(self.source.to_f32()[..., self.picked])

    def file_span(self) -> None:
        return None


def turned_stack(tensor: RawTensor, picked: slice, where: str) -> ExpertStack:
    """Outputs `picked` of every expert of `tensor` [experts, in, out].

    Raises MalformedFileError for a tensor without three axes, UnsupportedModelError for one of a
    type whose values can not be taken one by one."""
    experts, rows, columns = _three_axes(tensor, where)
    if tensor.qtype not in _ELEMENTS:
        raise UnsupportedModelError(
            f"{where}: the tensor {tensor.name[:100]} is stored input first as {tensor.qtype}, "
            "which freehold cannot turn",
            hint=f"known types: {', '.join(_ELEMENTS)}",
        )
    return _stack(tensor, (experts, len(range(columns)[picked]), rows), picked, turned=True)


def picked_stack(tensor: RawTensor, picked: slice, where: str) -> ExpertStack:
    """Outputs `picked` of every expert of `tensor` [experts, out, in].

    Raises MalformedFileError for a tensor without three axes."""
    experts, rows, columns = _three_axes(tensor, where)
    return _stack(tensor, (experts, len(range(rows)[picked]), columns), picked, turned=False)


def _three_axes(tensor: RawTensor, where: str) -> tuple[int, ...]:
    if len(tensor.shape) != 3 or 0 in tensor.shape:
        raise MalformedFileError(
            f"{where}: the tensor {tensor.name[:100]} has shape {list(tensor.shape)}, which is no "
            "stack of matrices"
        )
    return tensor.shape


def _stack(
    tensor: RawTensor, shape: tuple[int, ...], picked: slice, *, turned: bool
) -> ExpertStack:
    stored_rows = tensor.shape[1]

    def part(index: int) -> RawTensor:
        start = index * stored_rows
        matrix = rows_of(tensor, start, start + stored_rows, f"{tensor.name}[{index}]")
        return _Part(matrix, shape[1:], picked, turned)

    nbytes = tensor.nbytes * math.prod(shape) // math.prod(tensor.shape)
    return ExpertStack(tensor.name, shape, tensor.qtype, nbytes, part)
