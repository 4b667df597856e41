# SPDX-License-Identifier: Apache-2.0
"""The experts of a layer as one tensor [experts, out, in], however a file stores them.

Files hold one matrix per expert (old GGUF, Hugging Face), one tensor of all experts (GGUF), or
one in which each expert's gate lies above its up (transformers 5). Nothing is read or copied here:
every expert remains a view of its own stretch of the file. Knows no sizes and no family.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from freehold import quants
from freehold.errors import MalformedFileError
from freehold.formats.tensor_view import TensorView
from freehold.ops import FloatArray, RawTensor

ByteArray = npt.NDArray[np.uint8]

_ONE = re.compile(r"(blk\.\d{1,9}\.ffn_(?:gate|up|down))\.(\d{1,9})\.weight")
_ALL = re.compile(r"(blk\.\d{1,9}\.ffn_)(gate|up|down|gate_up)_exps\.weight")
_SHARED_ROUTER = re.compile(r"blk\.\d{1,9}\.ffn_gate_inp_shexp\.weight")


@dataclass(slots=True, eq=False)
class ExpertStack:
    """Satisfies `ops.RawTensor`. `part` gives expert i's matrix [out, in], which may lie anywhere
    and, in files that hold one tensor per expert, have a type of its own."""

    name: str
    shape: tuple[int, ...]  # [experts, out, in]
    qtype: str  # of `bytes`; "F32" where the experts differ
    nbytes: int  # as stored
    part: Callable[[int], RawTensor] = field(repr=False)

    def bytes(self) -> ByteArray:
        """All experts, one after the other; a copy."""
        return np.concatenate([self._stored(self.part(i)) for i in range(self.shape[0])])

    def to_f32(self) -> FloatArray:
        """Decoded copy with `shape`."""
        return np.stack([self.part(i).to_f32() for i in range(self.shape[0])])

    def file_span(self) -> None:
        """Not asked of the whole: each part has its own."""

    def _stored(self, part: RawTensor) -> ByteArray:
        return part.bytes() if part.qtype == self.qtype else part.to_f32().reshape(-1).view("u1")


@dataclass(slots=True, eq=False)
class DecodedTensor:
    """`source` as if the file held it in float32."""

    source: RawTensor
    name: str = field(init=False)
    shape: tuple[int, ...] = field(init=False)
    qtype: str = field(init=False, default="F32")

    def __post_init__(self) -> None:
        self.name, self.shape = self.source.name, self.source.shape

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)

    def bytes(self) -> ByteArray:
        return np.ascontiguousarray(self.to_f32()).reshape(-1).view("u1")

    def to_f32(self) -> FloatArray:
        return self.source.to_f32()

    def file_span(self) -> None:
        return None


@runtime_checkable
class _RowSource(Protocol):
    """A tensor that makes its bytes on demand, some rows at a time."""

    def rows(self, start: int, stop: int) -> ByteArray: ...


@dataclass(slots=True, eq=False)
class _Rows:
    """Rows of a tensor that is no plain stretch of a file."""

    source: RawTensor
    name: str
    shape: tuple[int, ...]
    qtype: str
    start: int
    nbytes: int

    def bytes(self) -> ByteArray:
        if isinstance(self.source, _RowSource):
            return self.source.rows(self.start, self.start + self.shape[0])
        first = self.start * (self.nbytes // self.shape[0])
        return self.source.bytes()[first : first + self.nbytes]

    def to_f32(self) -> FloatArray:
        return quants.get(self.qtype).decode(self.bytes()).reshape(self.shape)

    def file_span(self) -> None:
        return None


def rows_of(tensor: RawTensor, start: int, stop: int, name: str) -> RawTensor:
    """Rows [start, stop) as a matrix called `name`; all axes but the last count as rows."""
    row_bytes = tensor.nbytes // math.prod(tensor.shape[:-1])
    shape, nbytes = (stop - start, tensor.shape[-1]), (stop - start) * row_bytes
    if isinstance(tensor, TensorView):
        offset = tensor.offset + start * row_bytes
        return replace(tensor, name=name, shape=shape, offset=offset, nbytes=nbytes)
    return _Rows(tensor, name, shape, tensor.qtype, start, nbytes)


def stacked(tensor: RawTensor) -> RawTensor:
    """`tensor` [n, out, in] as a stack of n matrices; as it is where it has another shape."""
    plain = isinstance(tensor, ExpertStack) or not _is_stack(tensor)
    return tensor if plain else _slices(tensor, 0, 1)


def stack_experts(tensors: Mapping[str, RawTensor], where: str) -> dict[str, RawTensor]:
    """`tensors` under canonical names, with experts as `ExpertStack` under the names that GGUF
    gives them: ``blk.N.ffn_gate_exps.weight`` and so on.

    Raises MalformedFileError naming an expert that is missing, there twice or of another shape."""
    result: dict[str, RawTensor] = {}
    single: dict[str, dict[int, RawTensor]] = {}

    def add(name: str, tensor: RawTensor) -> None:
        if name in result:
            raise MalformedFileError(f"{where}: {tensor.name[:100]} is there twice")
        result[name] = tensor

    for name, tensor in tensors.items():
        if match := _ONE.fullmatch(name):
            single.setdefault(match[1], {})[int(match[2])] = tensor
        elif (match := _ALL.fullmatch(name)) and _is_stack(tensor):
            halves = ("gate", "up") if match[2] == "gate_up" else (match[2],)
            for half, kind in enumerate(halves):
                add(f"{match[1]}{kind}_exps.weight", _slices(tensor, half, len(halves)))
        elif _SHARED_ROUTER.fullmatch(name) and len(tensor.shape) == 1 and tensor.shape[0]:
            add(name, rows_of(tensor, 0, 1, tensor.name))  # a matrix of one row elsewhere
        else:
            add(name, tensor)
    for stem, experts in single.items():
        add(f"{stem}_exps.weight", _gathered(stem, experts, where))
    return result


def _is_stack(tensor: RawTensor) -> bool:
    return len(tensor.shape) == 3 and 0 not in tensor.shape


def _slices(tensor: RawTensor, half: int, halves: int) -> ExpertStack:
    """Every expert's rows of one tensor, or its upper or lower half."""
    experts, rows, columns = tensor.shape
    height = rows // halves

    def part(index: int) -> RawTensor:
        start = index * rows + half * height
        return rows_of(tensor, start, start + height, f"{tensor.name}[{index}]")

    shape, nbytes = (experts, height, columns), tensor.nbytes // rows * height
    return ExpertStack(tensor.name, shape, tensor.qtype, nbytes, part)


def _gathered(stem: str, experts: Mapping[int, RawTensor], where: str) -> ExpertStack:
    for index in range(len(experts)):
        if index not in experts:
            raise MalformedFileError(f"{where}: the tensor {stem}.{index}.weight is missing")
    parts = [experts[index] for index in range(len(experts))]
    first = parts[0]
    for part in parts:
        if part.shape != first.shape:
            raise MalformedFileError(
                f"{where}: {part.name[:100]} has shape {list(part.shape)}, "
                f"but {first.name[:100]} has {list(first.shape)}"
            )
    types = {part.qtype for part in parts}
    unknown = sorted(types - set(quants.names()))
    qtype = unknown[0] if unknown else first.qtype if len(types) == 1 else "F32"
    nbytes = sum(part.nbytes for part in parts)
    return ExpertStack(first.name, (len(parts), *first.shape), qtype, nbytes, parts.__getitem__)
