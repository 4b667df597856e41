# SPDX-License-Identifier: Apache-2.0
"""Bytes of a tensor in memory: the layout that the CPU's kernels multiply in.

A packed matrix holds 16 rows interleaved: the 4-byte words of a stored block side by side, and the
lone scale of a block, where it has one, in lines of 64 bytes shared by several blocks
(`native/kernels.h`). Knows block sizes; knows neither models nor files.
"""

from __future__ import annotations

import math

from freehold.formats.gguf_types import TENSOR_TYPES_BY_NAME

_ROWS = 16  # side by side in a packed matrix
_LINE = 64  # bytes; a group of rows is a whole number of them


def packed_bytes(shape: tuple[int, ...], qtype: str) -> int:
    """Bytes that a tensor of this shape (outermost first) and stored type takes once loaded.

    Vectors are kept in float32. A tensor of three dimensions is a stack of matrices.
    """
    if len(shape) < 2:
        return 4 * math.prod(shape)
    return math.prod(shape[:-2]) * _matrix_bytes(shape[-2], shape[-1], qtype)


def stored_bytes(shape: tuple[int, ...], qtype: str) -> int:
    """Bytes that it takes in a file."""
    kind = TENSOR_TYPES_BY_NAME[qtype]
    return math.prod(shape) * kind.type_size // kind.block_size


def _matrix_bytes(rows: int, columns: int, qtype: str) -> int:
    groups = -(-rows // _ROWS)
    if qtype == "F16":
        return groups * _whole_lines(columns * 2 * _ROWS)
    if qtype == "BF16":  # pairs of values
        return groups * -(-columns // 2) * _LINE
    kind = TENSOR_TYPES_BY_NAME[qtype]
    blocks = columns // kind.block_size
    words, head = divmod(kind.type_size, 4)
    heads = -(-blocks // (_LINE // (_ROWS * head))) if head else 0
    return groups * (blocks * words + heads) * _LINE


def _whole_lines(nbytes: int) -> int:
    return -(-nbytes // _LINE) * _LINE
