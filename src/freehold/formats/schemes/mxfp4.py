# SPDX-License-Identifier: Apache-2.0
"""`quant_method` "mxfp4": experts of gpt-oss, `X_blocks` and `X_scales`.

Blocks are [experts, out, in/32, 16] with two codes to a byte, scales [experts, out, in/32]. The
tensor that results is [experts, out, in], as GGUF has it; the unquantised checkpoints of that
family hold it transposed, [experts, in, out].
"""

from __future__ import annotations

from collections.abc import Iterator

from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes._parts import Parts
from freehold.formats.schemes._scaled import microscaled


def derive(parts: Parts) -> Iterator[DerivedTensor]:
    """Every pair of blocks and scales."""
    for name, view in parts.ending("_blocks"):
        if view.qtype != "U8" or len(view.shape) < 3 or view.shape[-1] != 16:
            raise parts.bad(view, f"is {view.qtype} {list(view.shape)}, not bytes [..., 16]")
        *lead, groups, _ = view.shape
        scale = parts.need(name + "_scales", "U8", "F8_E8M0")
        yield microscaled(parts, name, view, scale, (*lead, 32 * groups))
