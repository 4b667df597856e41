# SPDX-License-Identifier: Apache-2.0
"""The reference's paged cache: keys and values really kept in the precision they claim.

Knows how a row of floats is stored in f32, f16, bf16 and q8_0 and read back; knows nothing of
attention or of sequences. Slots are flat: block b, offset o is slot ``b * block_size + o``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import FloatArray, KVDtype, KVLayerSpec, blocks_per_group, kv_groups

Q8_BLOCK = 32  # elements that share one f16 scale


def bf16_bits(x: FloatArray) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # The rounding carry could turn a NaN with a full mantissa into an infinity or a zero.
    return np.where(np.isnan(x), (bits >> np.uint32(16)) | 0x40, rounded).astype(np.uint16)


@dataclass(slots=True)
class Rows:
    """Rows of one tensor (keys or values of a layer) in a given precision."""

    dtype: KVDtype
    slots: int
    heads: int
    dim: int
    data: npt.NDArray[np.generic] = field(init=False)  # [slots, heads, dim]
    scales: npt.NDArray[np.float16] = field(init=False)  # [slots, heads, dim / 32], q8_0 only

    def __post_init__(self) -> None:
        element = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16, "q8_0": np.int8}
        self.data = np.zeros((self.slots, self.heads, self.dim), dtype=element[self.dtype])
        groups = self.dim // Q8_BLOCK if self.dtype == "q8_0" else 0
        self.scales = np.zeros((self.slots, self.heads, groups), dtype=np.float16)

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    def write(self, slots: npt.NDArray[np.int64], x: FloatArray) -> None:
        """Store x [T, heads · dim] at `slots` [T]."""
        x = x.reshape(len(slots), self.heads, self.dim)
        if self.dtype == "bf16":
            self.data[slots] = bf16_bits(x)
        elif self.dtype == "q8_0":
            groups = x.reshape(len(slots), self.heads, -1, Q8_BLOCK)
            scale = np.abs(groups).max(axis=-1) / np.float32(127)  # [T, heads, groups]
            inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
            scaled = groups * inverse[..., None]
            # Halves go away from zero, as every Q8_0 encoder does; np.round takes ties to even.
            whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
            self.data[slots] = np.clip(np.nan_to_num(whole), -127, 127).reshape(x.shape)
            self.scales[slots] = scale
        else:
            self.data[slots] = x

    def read(self, slots: npt.NDArray[np.int64]) -> FloatArray:
        """Decode the rows at `slots`: float32 [len(slots), heads, dim]."""
        data = self.data[slots]
        if self.dtype == "bf16":
            return (data.astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self.dtype == "q8_0":
            groups = data.reshape(len(slots), self.heads, -1, Q8_BLOCK).astype(np.float32)
            groups *= self.scales[slots].astype(np.float32)[..., None]
            return groups.reshape(data.shape)
        return data.astype(np.float32)

    def read_blocks(self, blocks: npt.NDArray[np.int32], slots: int) -> npt.NDArray[np.uint8]:
        """Bytes of blocks of so many slots, data before scales: [blocks, bytes]."""
        parts = (self.data, self.scales)
        return np.concatenate([_block_bytes(part, slots)[blocks] for part in parts], axis=1)

    def write_blocks(
        self, blocks: npt.NDArray[np.int32], slots: int, data: npt.NDArray[np.uint8]
    ) -> None:
        """Put back what `read_blocks` gave."""
        at = 0
        for part in (self.data, self.scales):
            target = _block_bytes(part, slots)
            target[blocks] = data[:, at : at + target.shape[1]]
            at += target.shape[1]

    def block_nbytes(self, slots: int) -> int:
        """Bytes of a block of so many slots."""
        return slots * self.nbytes // self.slots

    def copy(self, src: npt.NDArray[np.int64], dst: npt.NDArray[np.int64]) -> None:
        self.data[dst] = self.data[src]
        self.scales[dst] = self.scales[src]


def _block_bytes(part: npt.NDArray[np.generic], slots: int) -> npt.NDArray[np.uint8]:
    """A view of rows as the bytes of blocks: [blocks, bytes]."""
    blocks = len(part) // slots
    if part.size == 0:
        return np.zeros((blocks, 0), np.uint8)
    return part.reshape(blocks, -1).view(np.uint8)


@dataclass(slots=True)
class ReferenceKVCache:
    """`ops.KVCache` of the reference backend."""

    num_blocks: tuple[int, ...]
    block_size: int
    dtype: KVDtype
    nbytes: int
    groups: tuple[int, ...]  # of each layer
    keys: list[Rows]
    values: list[Rows]
    strides: tuple[int, ...]  # of each layer


def allocate(
    layers: Sequence[KVLayerSpec],
    num_blocks: int | Sequence[int],
    block_size: int,
    dtype: KVDtype,
) -> ReferenceKVCache:
    """Zeroed cache. Raises InvalidParameterError for an impossible shape, CapacityError when
    the memory is not there."""
    if dtype not in ("f32", "f16", "bf16", "q8_0"):
        raise InvalidParameterError(f"there is no cache type {dtype!r}")
    if block_size < 1:
        raise InvalidParameterError(f"a cache block holds at least one token, not {block_size}")
    groups, counts = kv_groups(layers), blocks_per_group(layers, num_blocks)
    pairs = [
        allocate_rows(spec, counts[group], block_size, dtype)
        for group, spec in zip(groups, layers, strict=True)
    ]
    keys, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    nbytes = sum(rows.nbytes for rows in (*keys, *values))
    strides = tuple(spec.stride for spec in layers)
    return ReferenceKVCache(counts, block_size, dtype, nbytes, groups, keys, values, strides)


def allocate_rows(
    spec: KVLayerSpec, blocks: int, block_size: int, dtype: KVDtype
) -> tuple[Rows, Rows]:
    """Keys and values of one layer. Errors as `allocate`."""
    if dtype == "q8_0" and (spec.key_dim % Q8_BLOCK or spec.value_dim % Q8_BLOCK):
        raise InvalidParameterError(
            f"a q8_0 cache needs head sizes that are multiples of {Q8_BLOCK}, "
            f"not {spec.key_dim} and {spec.value_dim}",
            hint="use an f16 cache",
        )
    slots, heads = blocks * spec.block_slots(block_size), spec.num_kv_heads
    try:
        return Rows(dtype, slots, heads, spec.key_dim), Rows(dtype, slots, heads, spec.value_dim)
    except (MemoryError, ValueError) as error:  # NumPy says ValueError when a size overflows
        raise CapacityError(f"no memory for a cache of {blocks} blocks: {error}") from error
