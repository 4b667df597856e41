# SPDX-License-Identifier: Apache-2.0
"""The two matrices per head of latent attention, out of the one matrix that most files hold.

Vendors store what makes keys and values of the latent together, head after head: rows of a head's
key, then rows of its value. The absorbed form multiplies queries by the transpose of the former.
Files of today's GGUF hold both apart and the former transposed. Everything is a view; a head is
made when it is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from freehold import quants
from freehold.errors import MalformedFileError
from freehold.models._expert_tensors import ExpertStack, rows_of
from freehold.models._family import Tensors
from freehold.ops import FloatArray, RawTensor

ByteArray = npt.NDArray[np.uint8]

_JOINT = re.compile(r"blk\.(\d{1,9})\.attn_kv_b\.weight")
_APART = re.compile(r"blk\.\d{1,9}\.attn_[kv]_b\.weight")
# What a transposed matrix is kept in. Blocks run along rows, so those of quantised types can not
# be turned; half precision is exact to 2⁻¹¹ and the matrix is a hundredth of the model.
_TURNED_TYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
_TURNED_DEFAULT = "F16"


@dataclass(slots=True, eq=False)
class _Turned:
    """The transpose of a matrix. Satisfies `ops.RawTensor`."""

    matrix: RawTensor  # [K, N]
    name: str
    shape: tuple[int, ...] = field(init=False)  # [N, K]
    qtype: str = field(init=False)

    def __post_init__(self) -> None:
        self.shape = self.matrix.shape[::-1]
        self.qtype = _TURNED_TYPES.get(self.matrix.qtype, _TURNED_DEFAULT)

    @property
    def nbytes(self) -> int:
        return self.shape[0] * quants.get(self.qtype).nbytes(self.shape[1])

    def bytes(self) -> ByteArray:
        with np.errstate(over="ignore"):  # beyond half precision: infinite, as any such weight
            return quants.get(self.qtype).encode(self._values().reshape(-1))

    def to_f32(self) -> FloatArray:
        return quants.get(self.qtype).decode(self.bytes()).reshape(self.shape)

    def file_span(self) -> None:
        """No stretch of the file."""

    def _values(self) -> FloatArray:
        return np.ascontiguousarray(self.matrix.to_f32().T)


def latent_heads(tensors: Tensors, heads: int, key_rows: int, where: str) -> Tensors:
    """`tensors` with ``attn_k_b`` [heads, rank, key_rows] and ``attn_v_b`` [heads, value rows,
    rank] as stacks of matrices in every layer, whichever way the file holds them.

    Raises MalformedFileError for a joint matrix whose rows are no such heads."""
    result: Tensors = {}
    for name, tensor in tensors.items():
        joint = _JOINT.fullmatch(name)
        if joint is None:
            result[name] = _stacked(tensor, heads) if _APART.fullmatch(name) else tensor
            continue
        blk = f"blk.{int(joint[1])}."
        if blk + "attn_k_b.weight" in tensors and blk + "attn_v_b.weight" in tensors:
            continue  # some writers left the joint matrix beside its parts
        keys, values = _split(tensor, heads, key_rows, where)
        result[blk + "attn_k_b.weight"], result[blk + "attn_v_b.weight"] = keys, values
    return result


def _stacked(tensor: RawTensor, heads: int) -> RawTensor:
    """As a stack of one matrix per head; what can be none stays, for its shape to be refused."""
    shape = tensor.shape
    if len(shape) == 2 and shape[0] % heads == 0:  # the first files that held them apart
        shape = (heads, shape[0] // heads, shape[1])
    if len(shape) != 3 or 0 in shape:
        return tensor
    rows = shape[1]

    def part(head: int) -> RawTensor:
        return rows_of(tensor, head * rows, (head + 1) * rows, f"{tensor.name}[{head}]")

    return ExpertStack(tensor.name, shape, tensor.qtype, tensor.nbytes, part)


def _split(
    tensor: RawTensor, heads: int, key_rows: int, where: str
) -> tuple[ExpertStack, ExpertStack]:
    name = tensor.name
    if len(tensor.shape) != 2 or tensor.shape[0] % heads or tensor.shape[0] // heads <= key_rows:
        raise MalformedFileError(
            f"{where}: the tensor {name[:100]} has shape {list(tensor.shape)}, which are no "
            f"{heads} heads of {key_rows} rows for keys and some for values"
        )
    per_head, rank = tensor.shape[0] // heads, tensor.shape[1]
    kind = _TURNED_TYPES.get(tensor.qtype, _TURNED_DEFAULT)

    def key(head: int) -> RawTensor:
        start = head * per_head
        label = f"{name}[{head}, keys]"
        return _Turned(rows_of(tensor, start, start + key_rows, label), label)

    def value(head: int) -> RawTensor:
        start = head * per_head
        return rows_of(tensor, start + key_rows, start + per_head, f"{name}[{head}, values]")

    value_rows = per_head - key_rows
    k_shape, v_shape = (heads, rank, key_rows), (heads, value_rows, rank)
    k_bytes = heads * rank * quants.get(kind).nbytes(key_rows)
    v_bytes = tensor.nbytes // per_head * value_rows
    return (
        ExpertStack(name, k_shape, kind, k_bytes, key),
        ExpertStack(name, v_shape, tensor.qtype, v_bytes, value),
    )
