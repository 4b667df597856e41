# SPDX-License-Identifier: Apache-2.0
"""What both writers share: tensors into files of a size, and one tensor's bytes into a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

import numpy as np

from freehold.errors import InvalidParameterError
from freehold.formats.mapped_file import ByteArray
from freehold.formats.tensor_view import StoredTensor


class _Sized(Protocol):
    nbytes: int


S = TypeVar("S", bound=_Sized)


def into_shards(slots: Iterable[S], max_bytes: int | None) -> list[list[S]]:
    """``slots`` in their order, as many to a shard as fit into ``max_bytes`` but at least one.

    At least one shard, which may be empty; only one when ``max_bytes`` is None."""
    shards: list[list[S]] = [[]]
    used = 0
    for slot in slots:
        if max_bytes is not None and shards[-1] and used + slot.nbytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(slot)
        used += slot.nbytes
    return shards


def checked_bytes(tensor: StoredTensor, nbytes: int) -> ByteArray:
    """The tensor's bytes, contiguous; InvalidParameterError unless they are ``nbytes`` of uint8."""
    data = tensor.bytes()
    if data.dtype != np.uint8 or data.shape != (nbytes,):
        raise InvalidParameterError(
            f"tensor {tensor.name!r} needs {nbytes:,} bytes, got {data.dtype} {data.shape}"
        )
    return np.ascontiguousarray(data)
