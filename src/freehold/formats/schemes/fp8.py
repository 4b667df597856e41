# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "fp8": E4M3 weights with a scale per tile of 128 × 128 or per tensor.

DeepSeek V3 and the Mistral 3 generation: `X.weight` times `X.weight_scale_inv` (a product, despite
the name), also for fused experts without the `.weight`. DeepSeek V4 calls the scale `X.scale` and
holds experts as MXFP4. Scales of activations serve arithmetic in FP8 and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes._parts import SCALES, Parts, tile_of
from freehold.formats.schemes._scaled import block_scaled, microscaled

IGNORED = re.compile(r"[._](activation_scale|input_scale)$")
_CODES = ("F8_E4M3", "F8_E5M2")


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every matrix of eight-bit floats, and every one with MXFP4 scales."""
    size = parts.settings.get("weight_block_size")
    block = None if size is None else tile_of(parts, "weight_block_size", size)
    for name, view in parts.tensors.items():
        short = name.removesuffix(".weight") + ".scale"
        if view.qtype in _CODES:
            scale = parts.find(name + "_scale_inv", *SCALES, "F8_E8M0")
            scale = scale or parts.find(short, *SCALES, "F8_E8M0")
            if scale is None:
                raise parts.bad(view, f"has type {view.qtype} and no scale beside it")
            yield block_scaled(parts, name, view, scale, block)
        elif view.qtype in ("I8", "U8") and short in parts.tensors:
            scale = parts.need(short, "F8_E8M0")
            yield microscaled(parts, name, view, scale, (*view.shape[:-1], 2 * view.shape[-1]))
