# SPDX-License-Identifier: Apache-2.0
"""Valid blocks of types that freehold reads but does not write: random bits under sane scales."""

from __future__ import annotations

import numpy as np

from freehold import quants


def random_blocks(qtype: str, count: int, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Bytes of `count` blocks whose values have about that standard deviation.

    Every bit but those of the outer scales is random, so all entries of a codebook, all signs and
    all inner scales occur."""
    kind = quants.get(qtype)
    blocks = rng.integers(0, 256, count * kind.type_size, dtype=np.uint8).view(kind.layout)
    ones = np.ones(count, np.float32)
    unit = float(kind.decode(_with_scale(qtype, blocks, ones).view(np.uint8)).std())
    scales = rng.uniform(0.75, 1.25, count) * (spread / unit)
    return _with_scale(qtype, blocks, scales.astype(np.float32)).view(np.uint8)


def stored(qtype: str, values: np.ndarray, seed: int = 0) -> np.ndarray:
    """`values` encoded, or random blocks of their spread where freehold has no encoder."""
    kind = quants.get(qtype)
    if kind.can_encode:
        return kind.encode(np.ascontiguousarray(values, np.float32).ravel())
    count = values.size // kind.block_size
    rng = np.random.default_rng([seed, count, kind.ggml_id])
    return random_blocks(qtype, count, float(values.std()), rng)


def _with_scale(qtype: str, blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """A copy whose blocks are scaled by about `scales` [n]."""
    out = blocks.copy()
    if qtype == "NVFP4":  # E4M3: three bits of mantissa below an exponent with bias 7
        exponent = np.clip(np.floor(np.log2(scales)) + 7, 1, 14).astype(np.uint8)
        out["d"] = (out["d"] & 7) | (exponent[:, None] << 3)
    elif qtype == "IQ1_M":  # a nibble in the top of each half-word
        bits = scales.astype("<f2").view("<u2")
        for word in range(4):
            nibble = (bits >> (4 * word)).astype(np.uint8) << 4
            out["scales"][:, 2 * word + 1] = (out["scales"][:, 2 * word + 1] & 15) | nibble
    else:
        out["d"] = scales
    return out
