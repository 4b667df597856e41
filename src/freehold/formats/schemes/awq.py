# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "awq": `X.qweight` [in, out/8] with eight four-bit integers to a word along the
output, `X.qzeros` [groups, out/8] likewise and `X.scales` [groups, out].

The integers of a word are shuffled: from the lowest, columns 0 2 4 6 1 3 5 7.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

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
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every linear layer, as `X.weight`."""
    parts.choice("bits", 4, 4)
    version = parts.settings.get("version", "gemm")
    if not isinstance(version, str) or version.lower() != "gemm":
        raise parts.unsupported("by AWQ in another arrangement than GEMM")
    for name, view in parts.ending(".qweight"):
        yield _linear(parts, name, view)


def _linear(parts: Parts, name: str, qweight: TensorView) -> DerivedTensor:
    if qweight.qtype not in ("I32", "U32") or len(qweight.shape) != 2:
        raise parts.bad(qweight, f"is {qweight.qtype} {list(qweight.shape)}, no matrix of words")
    width, words = qweight.shape
    n = 8 * words
    size = group_size_of(parts, width)
    groups = -(-width // size)
    scales = parts.need(name + ".scales", *SCALES)
    parts.check_shape(scales, (groups, n))
    qzeros = parts.find(name + ".qzeros", "I32", "U32")
    if qzeros is not None:
        parts.check_shape(qzeros, (groups, words))

    def integers(view: TensorView, start: int, stop: int) -> ByteArray:
        first = start // 8
        some = elements(view)[:, first : -(-stop // 8)]
        return unpack_words(some, 4, _ORDER)[:, start - 8 * first :][:, : stop - start].T

    def scale_rows(start: int, stop: int) -> FloatArray:
        return as_floats(elements(scales)[:, start:stop], scales.qtype).T

    def zero_rows(start: int, stop: int) -> ByteArray:
        assert qzeros is not None
        return integers(qzeros, start, stop)

    return Grouped(
        f"{name}.weight", (n, width), 4, size,
        (qweight, scales) if qzeros is None else (qweight, qzeros, scales),
        lambda start, stop: integers(qweight, start, stop), scale_rows,
        None if qzeros is None else zero_rows,
    ).tensor()  # fmt: skip
