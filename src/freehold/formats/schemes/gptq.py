# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "gptq": `X.qweight` [in · bits/32, out] with eight four-bit integers to a word
along the input, `X.qzeros` [groups, out · bits/32], `X.scales` [groups, out] and `X.g_idx` [in].

Zero points are stored less one, but for `checkpoint_format` "gptq_v2".
"""

from __future__ import annotations

from collections.abc import Iterator

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
    unpack_words,
)
from freehold.formats.tensor_view import TensorView

ByteArray = npt.NDArray[np.uint8]


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every linear layer, as `X.weight`."""
    if parts.settings.get("dynamic"):
        raise parts.unsupported("with settings of their own for some layers (dynamic)")
    bits = parts.choice("bits", 4, 2, 4, 8)
    offset = 0 if parts.choice("checkpoint_format", "gptq", "gptq", "gptq_v2") == "gptq_v2" else 1
    for name, view in parts.ending(".qweight"):
        yield _linear(parts, name, view, bits, offset)


def _linear(parts: Parts, name: str, qweight: TensorView, bits: int, offset: int) -> DerivedTensor:
    per_word = 32 // bits
    if qweight.qtype not in ("I32", "U32") or len(qweight.shape) != 2:
        raise parts.bad(qweight, f"is {qweight.qtype} {list(qweight.shape)}, no matrix of words")
    width, n = qweight.shape[0] * per_word, qweight.shape[1]
    size = group_size_of(parts, width)
    groups = -(-width // size)
    scales = parts.need(name + ".scales", *SCALES)
    parts.check_shape(scales, (groups, n))
    qzeros = parts.need(name + ".qzeros", "I32", "U32")
    parts.check_shape(qzeros, (groups, -(-n // per_word)))
    g_idx = parts.find(name + ".g_idx", "I32", "I64")
    if g_idx is not None:
        parts.check_shape(g_idx, (width,))
    sorted_columns = parts.choice("desc_act", False, False, True)
    symmetric = parts.choice("sym", False, False, True)
    in_order = np.arange(width) // size

    def q(start: int, stop: int) -> ByteArray:
        columns = elements(qweight)[:, start:stop].T
        return unpack_words(columns, bits)

    def scale_rows(start: int, stop: int) -> FloatArray:
        return as_floats(elements(scales)[:, start:stop], scales.qtype).T

    def zero_rows(start: int, stop: int) -> ByteArray:
        first = start // per_word
        words = elements(qzeros)[:, first : -(-stop // per_word)]
        stored = unpack_words(words, bits)[:, start - first * per_word :][:, : stop - start]
        # As the library computes it: less one wraps around for a zero point of 0.
        return ((stored + np.uint8(offset)) & np.uint8((1 << bits) - 1)).T

    def checked_q(start: int, stop: int) -> ByteArray:
        """Integers of a matrix whose configuration promises more than its parts say."""
        if symmetric and (zero_rows(start, stop) != 1 << (bits - 1)).any():
            raise InvalidParameterError("is said to be symmetric, but its zero points are not")
        if g_idx is not None and not sorted_columns and (elements(g_idx) != in_order).any():
            raise InvalidParameterError("is said to have its columns in order, but has not")
        return q(start, stop)

    def group_of() -> npt.NDArray[np.int64]:
        assert g_idx is not None
        return elements(g_idx).astype(np.int64)

    sources = tuple(s for s in (qweight, qzeros, scales, g_idx) if s is not None)
    return Grouped(
        f"{name}.weight", (n, width), bits, size, sources, checked_q, scale_rows,
        None if symmetric else zero_rows,
        group_of if sorted_columns and g_idx is not None else None,
    ).tensor()  # fmt: skip
