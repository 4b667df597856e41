# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "compressed-tensors": integers and small floats, packed or not.

Each layer tells by its parts which of the formats it has:
`weight_packed` words and `weight_scale` (pack-quantized, 2, 4 or 8 bits, in groups or by row),
`weight_packed` bytes with E4M3 scales and a `weight_global_scale` to divide them by (NVFP4), the
same with E8M0 scales (MXFP4), and `weight` in E4M3 or I8 beside `weight_scale` (per tensor, row,
group or tile, MXFP8 with exponents in U8). Only bits and group size come from the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError
from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes._grouped import Grouped
from freehold.formats.schemes._parts import (
    SCALES,
    FloatArray,
    Parts,
    as_floats,
    elements,
    group_size_of,
    tile_of,
    unpack_words,
)
from freehold.formats.schemes._scaled import block_scaled, microscaled
from freehold.formats.strict_json import describe
from freehold.formats.tensor_view import TensorView

IGNORED = re.compile(r"\.(input_scale|input_zero_point|input_global_scale|[kv]_scale)$")
ByteArray = npt.NDArray[np.uint8]


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every quantised layer, as `X.weight`."""
    for name, view in parts.tensors.items():
        stem, _, last = name.rpartition(".")
        if last == "weight_packed":
            yield _packed(parts, stem, view)
        elif last == "weight" and f"{name}_scale" in parts.tensors:
            yield _unpacked(parts, name, view)


def _packed(parts: Parts, name: str, view: TensorView) -> DerivedTensor:
    if len(view.shape) != 2 or view.qtype not in ("I32", "U32", "U8"):
        raise parts.bad(view, f"is {view.qtype} {list(view.shape)}, no matrix of words or bytes")
    scale = parts.need(f"{name}.weight_scale", *SCALES, "F8_E4M3", "F8_E8M0", "U8")
    if view.qtype != "U8":
        return _words(parts, name, view, scale)
    shape = (view.shape[0], 2 * view.shape[1])
    if scale.qtype in ("U8", "F8_E8M0"):
        return microscaled(parts, f"{name}.weight", view, scale, shape)
    whole = parts.need(f"{name}.weight_global_scale", "F32")

    def divided(scales: FloatArray) -> FloatArray:
        quotient: FloatArray = scales / elements(whole).reshape(-1)
        return quotient

    parts.check_shape(whole, (1,), ())
    return block_scaled(
        parts, f"{name}.weight", view, scale, (1, 16), others=(whole,), adjust=divided
    )


def _words(parts: Parts, name: str, packed: TensorView, scale: TensorView) -> DerivedTensor:
    weights = _weight_settings(parts)
    bits = weights.get("num_bits")
    if type(bits) is not int or bits not in (2, 4, 8) or weights.get("type", "int") != "int":
        raise parts.unsupported(f"to {describe(bits)} bits in words")
    per_word = 32 // bits
    n, width = packed.shape[0], packed.shape[1] * per_word
    by_group = weights.get("strategy") in ("group", None) and weights.get("group_size")
    size = group_size_of(parts, width, weights) if by_group else max(1, width)
    groups = -(-width // size)
    parts.check_shape(scale, (n, groups), *([(n,)] if groups == 1 else []))
    zeros = parts.find(f"{name}.weight_zero_point", "I32", "U32")
    if zeros is not None:
        parts.check_shape(zeros, (-(-n // per_word), groups))
    shape = parts.need(f"{name}.weight_shape", "I64", "I32")
    parts.check_shape(shape, (2,))
    g_idx = parts.find(f"{name}.weight_g_idx", "I32", "I64")
    if g_idx is not None:
        parts.check_shape(g_idx, (width,))

    def q(start: int, stop: int) -> ByteArray:
        if elements(shape).tolist() != [n, width]:
            raise InvalidParameterError(f"is not as large as {shape.name[:100]!r} says")
        return unpack_words(elements(packed)[start:stop], bits)

    def scale_rows(start: int, stop: int) -> FloatArray:
        return as_floats(elements(scale).reshape(n, groups)[start:stop], scale.qtype)

    def zero_rows(start: int, stop: int) -> ByteArray:
        assert zeros is not None
        first = start // per_word
        some = elements(zeros)[first : -(-stop // per_word)]  # packed along the rows
        return unpack_words(some.T, bits).T[start - first * per_word :][: stop - start]

    sources = tuple(s for s in (packed, scale, zeros, shape, g_idx) if s is not None)
    return Grouped(
        f"{name}.weight", (n, width), bits, size, sources, q, scale_rows,
        None if zeros is None else zero_rows,
        None if g_idx is None else (lambda: elements(g_idx).astype(np.int64)),
    ).tensor()  # fmt: skip


def _unpacked(parts: Parts, name: str, view: TensorView) -> DerivedTensor:
    scale = parts.need(f"{name}_scale", *SCALES, "F8_E8M0", "U8")
    if view.qtype == "F8_E4M3":
        return block_scaled(parts, name, view, scale, _tile(parts, view, scale))
    if view.qtype != "I8" or len(view.shape) != 2:
        raise parts.bad(view, f"is {view.qtype} {list(view.shape)} with a scale beside it")
    if scale.qtype not in SCALES:
        raise parts.bad(scale, f"has type {scale.qtype}, not {' or '.join(SCALES)}")
    if f"{name}_zero_point" in parts.tensors:
        raise parts.unsupported("to eight-bit integers with zero points")
    n, width = view.shape
    parts.check_shape(scale, (n, 1), (n,), (1,), ())

    def scale_rows(start: int, stop: int) -> FloatArray:
        per_row = np.broadcast_to(elements(scale).reshape(-1, 1), (n, 1))
        return as_floats(per_row[start:stop], scale.qtype)

    def q(start: int, stop: int) -> ByteArray:
        return elements(view)[start:stop].view(np.uint8) ^ np.uint8(128)

    return Grouped(
        name, (n, width), 8, max(32, -(-width // 32) * 32), (view, scale), q, scale_rows
    ).tensor()


def _tile(parts: Parts, view: TensorView, scale: TensorView) -> tuple[int, int] | None:
    """Rows and columns that share a scale."""
    if scale.shape in ((view.shape[0], 1), (view.shape[0],)):
        return 1, max(1, view.shape[-1])
    weights = _weight_settings(parts)
    block = weights.get("block_structure")
    if block is not None:
        return tile_of(parts, "block_structure", block)
    if weights.get("group_size"):
        return 1, group_size_of(parts, view.shape[-1], weights)
    return None


def _weight_settings(parts: Parts) -> Mapping[str, Any]:
    """How weights are quantised; the same in all groups of layers."""
    groups = parts.settings.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise parts.wrong("config_groups", "an object with entries", groups)
    found = [group.get("weights") if isinstance(group, dict) else None for group in groups.values()]
    first = found[0]
    if not isinstance(first, dict):
        raise parts.wrong("config_groups", "objects with weights", groups)
    keys = ("num_bits", "type", "strategy", "group_size", "block_structure")
    for other in found[1:]:
        if not isinstance(other, dict) or any(other.get(k) != first.get(k) for k in keys):
            raise parts.unsupported("in several ways at once (config_groups)")
    return first
