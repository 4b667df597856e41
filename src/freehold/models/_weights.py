# SPDX-License-Identifier: Apache-2.0
"""From a table of expected shapes to weights on a device.

Checks all tensors against what a family expects before the first byte is read. Knows no
family and no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from freehold import quants
from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.models._expert_tensors import DecodedTensor, ExpertStack, rows_of
from freehold.models._made_tensors import MadeTensor
from freehold.ops import Array, FloatArray, Ops, RawTensor, Weight

# Bytes loaded so far, bytes in all.
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor some family knows."""

    shape: tuple[int, ...]  # outermost first
    required: bool = True
    whole: bool = False  # a table of whole numbers, no weights


def check_tensors(
    tensors: Mapping[str, RawTensor], expected: Mapping[str, Expected], where: str
) -> None:
    """Every required tensor is there, every known one has its shape, and none is left over.

    Raises MalformedFileError or UnsupportedModelError naming the tensor, and
    ModelNotFoundError for a file of metadata alone."""
    if not tensors:
        raise ModelNotFoundError(
            f"{where}: holds no weights, only metadata", hint="name the file with the weights"
        )
    for name, want in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            if want.required:
                raise MalformedFileError(f"{where}: the tensor {name} is missing")
            continue
        if tensor.shape != want.shape:
            raise MalformedFileError(
                f"{where}: the tensor {tensor.name[:100]} has shape {list(tensor.shape)}, "
                f"but the model's sizes ask for {list(want.shape)}"
            )
        if want.whole and tensor.qtype not in ("I32", "I64"):
            raise MalformedFileError(
                f"{where}: the tensor {tensor.name[:100]} must hold whole numbers, "
                f"not {tensor.qtype}"
            )
        weights = len(want.shape) >= 2 and not want.whole
        if weights and tensor.qtype not in quants.names():
            raise UnsupportedModelError(
                f"{where}: the tensor {tensor.name[:100]} is stored as {tensor.qtype}, "
                "which freehold cannot multiply with",
                hint=f"known types: {', '.join(quants.names())}",
            )
    for name, tensor in tensors.items():
        if name not in expected:
            # Leaving it out would run another model than the file holds.
            raise UnsupportedModelError(
                f"{where}: this architecture has no place for the tensor {tensor.name[:100]}"
            )


class WeightLoader:
    """Hands checked tensors to the device one by one and counts bytes."""

    def __init__(
        self, tensors: Mapping[str, RawTensor], ops: Ops, progress: Progress | None = None
    ) -> None:
        self._tensors = tensors
        self.ops = ops
        self._progress = progress
        self._total = sum(tensor.nbytes for tensor in tensors.values())
        self._done = 0
        self.device_bytes = 0
        self.matrices: dict[str, Weight] = {}  # those that `matrix` has loaded

    def has(self, name: str) -> bool:
        return name in self._tensors

    def matrix(self, name: str) -> Weight:
        weight = self.matrices[name] = self.ops.load_weight(self._tensors[name])
        self._count(name, weight.nbytes)
        return weight

    def matrix_in_f32(self, name: str) -> Weight:
        """For small matrices, such as routers, whose inputs no device should round."""
        weight = self.ops.load_weight(DecodedTensor(self._tensors[name]))
        self._count(name, weight.nbytes)
        return weight

    def expert_matrices(self, name: str) -> tuple[Weight, ...]:
        """The matrices of an `ExpertStack`, one by one."""
        stack = self._tensors[name]
        assert isinstance(stack, ExpertStack)
        weights = []
        for index in range(stack.shape[0]):
            part = stack.part(index)
            weights.append(self.ops.load_weight(part))
            self._count_bytes(part.nbytes, weights[-1].nbytes)
        return tuple(weights)

    def stretches(self, name: str, count: int) -> tuple[Weight, ...]:
        """A matrix as `count` matrices of as many rows each, from above; the count divides."""
        tensor = self._tensors[name]
        rows = tensor.shape[0] // count
        weights = []
        for index in range(count):
            label = f"{tensor.name}[{index}]"
            part = rows_of(tensor, index * rows, (index + 1) * rows, label)
            weights.append(self.ops.load_weight(part))
            self._count_bytes(part.nbytes, weights[-1].nbytes)
        return tuple(weights)

    def made_matrix(self, name: str, values: FloatArray) -> Weight:
        """A matrix that was computed, in float32; `name` is for messages."""
        weight = self.ops.load_weight(MadeTensor(name, values))
        self.device_bytes += weight.nbytes
        return weight

    def made_vector(self, values: FloatArray) -> Array:
        """A vector that was computed."""
        self.device_bytes += values.nbytes
        return self.ops.load_vector(values)

    def values(self, name: str) -> FloatArray:
        """A small tensor, decoded, that the host is to compute with."""
        self._count(name, 0)
        return self._tensors[name].to_f32()

    def vector(self, name: str) -> Array:
        values = self._tensors[name].to_f32()
        vector = self.ops.load_vector(values)
        self._count(name, values.nbytes)
        return vector

    def vectors(self, name: str) -> tuple[Array, ...]:
        """The rows of a matrix, each as a vector of its own."""
        values = self._tensors[name].to_f32()
        self._count(name, values.nbytes)
        return tuple(self.ops.load_vector(row) for row in values)

    def vector_or_none(self, name: str) -> Array | None:
        return self.vector(name) if name in self._tensors else None

    def _count(self, name: str, device_bytes: int) -> None:
        self._count_bytes(self._tensors[name].nbytes, device_bytes)

    def _count_bytes(self, stored_bytes: int, device_bytes: int) -> None:
        self.device_bytes += device_bytes
        self._done += stored_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)
