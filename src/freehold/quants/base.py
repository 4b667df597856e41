# SPDX-License-Identifier: Apache-2.0
"""What a quant type is: a block layout, and the two functions between blocks and floats.

Knows sizes, chunking, byte order and input checks, so that a type's own file holds nothing but
its arithmetic. Knows no type by name, no files and no tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError

ByteArray: TypeAlias = npt.NDArray[np.uint8]
FloatArray: TypeAlias = npt.NDArray[np.float32]
Blocks: TypeAlias = npt.NDArray[Any]  # [n] records of the type's layout

# Values converted at a time: the temporaries of a chunk stay within a core's second-level cache.
CHUNK_VALUES = 1 << 15


@dataclass(frozen=True, slots=True, eq=False)
class QuantType:
    """One storage type of a tensor's values. Instances live in the files of this folder.

    `layout` is the little-endian record of one block; its item size is `type_size`.
    `decode_blocks` takes [n] records to float32 [n, block_size]; `encode_blocks` goes back and
    may assume finite input. Without it the type is read but not written.
    """

    name: str  # upper case, as ggml calls it: "Q4_K"
    ggml_id: int  # number in a GGUF tensor header
    block_size: int  # values in a block
    layout: np.dtype[Any]
    decode_blocks: Callable[[Blocks], FloatArray]
    encode_blocks: Callable[[FloatArray], Blocks] | None = None

    @property
    def type_size(self) -> int:
        """Bytes in a block."""
        return self.layout.itemsize

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per value, scales included."""
        return 8 * self.type_size / self.block_size

    @property
    def is_float(self) -> bool:
        """One value per block: a plain floating-point format, which holds NaN and infinity."""
        return self.block_size == 1

    @property
    def can_encode(self) -> bool:
        """Freehold can write the type, too."""
        return self.encode_blocks is not None

    def nbytes(self, count: int) -> int:
        """Bytes that `count` values take. Raises InvalidParameterError on part of a block."""
        if count < 0 or count % self.block_size:
            raise InvalidParameterError(
                f"{count} values do not fill whole {self.name} blocks of {self.block_size}"
            )
        return count // self.block_size * self.type_size

    def decode(self, data: ByteArray) -> FloatArray:
        """Stored little-endian bytes to float32 values, both one-dimensional.

        Raises InvalidParameterError when the bytes are not whole blocks."""
        blocks = self._as_blocks(data)
        out = np.empty(blocks.size * self.block_size, dtype=np.float32)
        step = max(1, CHUNK_VALUES // self.block_size)
        # A damaged file may hold infinite or NaN scales; they decode to what they are.
        with np.errstate(all="ignore"):
            for start in range(0, blocks.size, step):
                chunk = self.decode_blocks(blocks[start : start + step])
                out[start * self.block_size :][: chunk.size] = chunk.reshape(-1)
        return out

    def encode(self, values: FloatArray) -> ByteArray:
        """Float32 values to stored little-endian bytes, both one-dimensional.

        Raises InvalidParameterError on part of a block, on NaN or infinity where the type
        cannot hold them, on values beyond the reach of its scale, and where `can_encode` is
        false."""
        if self.encode_blocks is None:
            raise InvalidParameterError(
                f"freehold reads {self.name} but does not write it", hint="choose another type"
            )
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        out = np.empty(self.nbytes(flat.size), dtype=np.uint8)
        rows = flat.reshape(-1, self.block_size)
        step = max(1, CHUNK_VALUES // self.block_size)
        with np.errstate(under="ignore"):
            for start in range(0, len(rows), step):
                chunk = rows[start : start + step]
                if not self.is_float and not np.isfinite(chunk).all():
                    raise InvalidParameterError(f"{self.name} cannot hold NaN or infinity")
                blocks = np.ascontiguousarray(self.encode_blocks(chunk), dtype=self.layout)
                data = blocks.view(np.uint8).reshape(-1)
                out[start * self.type_size :][: data.size] = data
        return out

    def byteswap(self, data: ByteArray) -> ByteArray:
        """A copy with every 16- and 32-bit field reversed: between big and little endian."""
        return self._as_blocks(data).byteswap().view(np.uint8).reshape(-1)

    def _as_blocks(self, data: ByteArray) -> Blocks:
        flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        if flat.size % self.type_size:
            raise InvalidParameterError(
                f"{flat.size} bytes are not whole {self.name} blocks of {self.type_size} bytes"
            )
        return flat.view(self.layout)


def to_f16(scales: FloatArray, type_name: str) -> npt.NDArray[np.float16]:
    """Round to half precision. Raises InvalidParameterError where a finite value overflows."""
    with np.errstate(over="ignore"):
        halves = scales.astype(np.float16)
    if np.isinf(halves).any() and np.isfinite(scales[np.isinf(halves)]).any():
        worst = float(np.abs(scales[np.isfinite(scales)]).max())
        raise InvalidParameterError(
            f"values too large for {type_name}: {worst:.4g} is beyond half precision (65504)"
        )
    return halves


def f16_field(column: npt.NDArray[Any]) -> FloatArray:
    """A half-precision field of [n] records as float32 [n, 1]."""
    return column.astype(np.float32)[:, None]


def scale_subs(levels: FloatArray, scales: FloatArray) -> FloatArray:
    """Levels [n, …] of whole blocks times the scales [n, subs] of their equal parts: [n, size]."""
    n, subs = scales.shape
    scaled: FloatArray = levels.reshape(n, subs, -1) * scales[:, :, None]
    return scaled.reshape(n, -1)


def inverse(scales: FloatArray) -> FloatArray:
    """1/x, and 0 where x is 0 or so small that 1/x overflows."""
    with np.errstate(divide="ignore", over="ignore"):
        inv = np.float32(1) / scales
    inv[~np.isfinite(inv)] = 0
    return inv
