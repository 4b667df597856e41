# SPDX-License-Identifier: Apache-2.0
"""GGUF files byte by byte, so that tests can write what no writer would."""

from __future__ import annotations

import struct
from collections.abc import Sequence


def string(text: str | bytes, order: str = "<") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(order + "Q", len(raw)) + raw


def kv(key: str | bytes, type_id: int, value: bytes, order: str = "<") -> bytes:
    return string(key, order) + struct.pack(order + "I", type_id) + value


def array(type_id: int, count: int, items: bytes = b"", order: str = "<") -> bytes:
    """The value of an array, type 9."""
    return struct.pack(order + "IQ", type_id, count) + items


def info(
    name: str | bytes, dims: Sequence[int], type_id: int = 0, offset: int = 0, order: str = "<"
) -> bytes:
    """A tensor's header entry; ``dims`` innermost first, as stored."""
    head = string(name, order) + struct.pack(f"{order}I{len(dims)}Q", len(dims), *dims)
    return head + struct.pack(order + "IQ", type_id, offset)


def gguf(
    kvs: Sequence[bytes] = (),
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    order: str = "<",
    alignment: int = 32,
) -> bytes:
    num_tensors, num_keys = counts or (len(infos), len(kvs))
    out = b"GGUF" + struct.pack(order + "IQQ", version, num_tensors, num_keys)
    out += b"".join(kvs) + b"".join(infos)
    return out + bytes(-len(out) % alignment) + data
