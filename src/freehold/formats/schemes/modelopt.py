# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "modelopt": NVIDIA's FP8 and NVFP4.

FP8 is `X.weight` in E4M3 times the one number `X.weight_scale`; NVFP4 is `X.weight` of bytes with
two codes, `X.weight_scale` in E4M3 for every 16 values, times the one number `X.weight_scale_2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes._parts import SCALES, FloatArray, Parts, elements
from freehold.formats.schemes._scaled import block_scaled
from freehold.formats.tensor_view import TensorView

IGNORED = re.compile(r"\.(input_scale|[kv]_scale)$")


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every quantised layer."""
    for name, view in parts.tensors.items():
        if not name.endswith(".weight") or f"{name}_scale" not in parts.tensors:
            continue
        if view.qtype == "F8_E4M3":
            scale = parts.need(f"{name}_scale", *SCALES)
            yield block_scaled(parts, name, view, scale, None)
        elif view.qtype == "U8":
            yield _nvfp4(parts, name, view)
        else:
            raise parts.bad(view, f"has type {view.qtype}, not F8_E4M3 or U8")


def _nvfp4(parts: Parts, name: str, view: TensorView) -> DerivedTensor:
    scale = parts.need(f"{name}_scale", "F8_E4M3")
    whole = parts.need(f"{name}_scale_2", "F32")
    parts.check_shape(whole, (1,), ())

    def multiplied(scales: FloatArray) -> FloatArray:
        product: FloatArray = scales * elements(whole).reshape(-1)
        return product

    return block_scaled(parts, name, view, scale, (1, 16), others=(whole,), adjust=multiplied)
