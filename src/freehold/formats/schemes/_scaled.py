# SPDX-License-Identifier: Apache-2.0
"""Small floats times a scale for every tile of the matrix: FP8 in its forms, NVFP4, MXFP4."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from freehold.formats.derived_tensor import DerivedTensor, from_floats
from freehold.formats.schemes._parts import FloatArray, Parts, as_floats, elements
from freehold.formats.tensor_view import TensorView
from freehold.quants import repack, small_floats

ByteArray = npt.NDArray[np.uint8]


def block_scaled(
    parts: Parts,
    name: str,
    codes: TensorView,
    scale: TensorView,
    block: tuple[int, int] | None,
    *,
    others: tuple[TensorView, ...] = (),
    adjust: Callable[[FloatArray], FloatArray] | None = None,
) -> DerivedTensor:
    """value = code · scale of its tile, tiles of `block` rows and columns.

    `codes` [..., N, K] of eight-bit floats, or [..., N, K/2] bytes of two four-bit ones. `scale`
    [..., ⌈N/rows⌉, ⌈K/columns⌉], or one number for each matrix or for all of them; `adjust`
    changes scales as they are read."""
    packed = codes.qtype == "U8"
    if len(codes.shape) < 2:
        raise parts.bad(codes, f"has shape {list(codes.shape)}, which is no matrix")
    *lead, n, stored_width = codes.shape
    width = stored_width * (2 if packed else 1)
    per_matrix = (*lead, 1, 1)
    if math.prod(scale.shape) == 1 or scale.shape in (tuple(lead) or None, per_matrix):
        block = (max(1, n), max(1, width))
        grid = per_matrix if math.prod(scale.shape) != 1 else (*(1 for _ in lead), 1, 1)
    elif block is None:
        raise parts.bad(scale, f"has shape {list(scale.shape)}, but no block size is given")
    else:
        grid = (*lead, -(-n // block[0]), -(-width // block[1]))
        parts.check_shape(scale, grid, *([grid[:-1]] if grid[-1] == 1 else []))
    rows_per_tile, columns_per_tile = block
    # Row of the scale table for the first row of a matrix; 0 throughout where all share one.
    tables = math.prod(grid[:-2])
    scale_type = "F8_E8M0" if scale.qtype == "U8" else scale.qtype  # bare exponents

    def rows(start: int, stop: int) -> FloatArray:
        some = elements(codes).reshape(-1, stored_width)[start:stop]
        values = small_floats.decode(
            small_floats.nibbles(some) if packed else some, "F4" if packed else codes.qtype
        )
        row = np.arange(start, stop)
        matrix = row // n if tables > 1 else 0
        table = elements(scale).reshape(-1, grid[-1])
        picked = as_floats(table[matrix * grid[-2] + row % n // rows_per_tile], scale_type)
        if adjust is not None:
            picked = adjust(picked)
        # Not np.repeat: a file may claim tiles far wider than its matrix.
        return values * picked[:, np.arange(width) // columns_per_tile]

    return from_floats(name, (*lead, n, width), (codes, scale, *others), rows)


def microscaled(
    parts: Parts, name: str, codes: TensorView, scale: TensorView, shape: tuple[int, ...]
) -> DerivedTensor:
    """MXFP4 as it is: bytes of two codes in order, and a power of two for every 32 values.

    `shape` [..., K]; the codes are [..., K/2] or [..., K/32, 16], the scales [..., K/32]."""
    groups, odd = divmod(shape[-1], 32)
    if odd:
        raise parts.bad(codes, f"has rows of {shape[-1]} values, not of whole blocks of 32")
    parts.check_shape(scale, (*shape[:-1], groups))

    def make(start: int, stop: int) -> ByteArray:
        some = elements(codes).view(np.uint8).reshape(-1, groups * 16)[start:stop]
        e = elements(scale).view(np.uint8).reshape(-1, groups)[start:stop]
        return repack.mxfp4(small_floats.nibbles(some), e)

    return DerivedTensor(name, shape, "MXFP4", (codes, scale), make)
