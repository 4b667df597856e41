# SPDX-License-Identifier: Apache-2.0
"""Tensors with real shapes and types and random weights: the speed of a model without the model.

Encoding hundreds of millions of weights would take minutes; instead a pool of random blocks is
encoded once per type and every tensor is a random gather from it.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from freehold import quants

POOL_VALUES = 1 << 18
STD = 0.02  # of trained weights, roughly; keeps activations finite through the layers


@functools.cache
def pool(qtype: str) -> np.ndarray:
    """[blocks, type_size] encoded Gaussian weights."""
    kind = quants.get(qtype)
    if not kind.can_encode:
        return _random_blocks(kind)
    values = np.random.default_rng(1).standard_normal(POOL_VALUES, dtype=np.float32) * STD
    # Float types have one value per block: gather 32 at a time to keep the gather cheap.
    return kind.encode(values).reshape(-1, kind.type_size * (32 if kind.is_float else 1))


def _random_blocks(kind: quants.QuantType) -> np.ndarray:
    """Random bits, with the outer scale small where the block has one."""
    count = POOL_VALUES // kind.block_size
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, count * kind.type_size, dtype=np.uint8)
    blocks = data.view(kind.layout)
    if kind.name == "IQ1_M":  # a nibble on top of each half-word of the scales, 2⁻¹⁰ in all
        blocks["scales"][:, 1::2] &= 15
        blocks["scales"][:, 5] |= 0x40
        blocks["scales"][:, 7] |= 0x10
    elif kind.name == "NVFP4":  # E4M3: below 2⁻⁴
        blocks["d"] &= 0x1F
    else:
        blocks["d"] = STD / 16
    return data.reshape(-1, kind.type_size)


class RandomTensor:
    """Fits both `ops.RawTensor` and what the GGUF writer takes. Bytes are made when asked for."""

    def __init__(self, name: str, qtype: str, shape: tuple[int, ...], seed: int = 0) -> None:
        self.name, self.qtype, self.shape, self.seed = name, qtype, shape, seed

    @property
    def nbytes(self) -> int:
        return quants.get(self.qtype).nbytes(math.prod(self.shape))

    def file_span(self) -> None:
        """There is no file: the bytes are made, not read."""

    def bytes(self) -> np.ndarray:
        blocks = pool(self.qtype)
        picks = np.random.default_rng(self.seed).integers(
            0, len(blocks), self.nbytes // blocks.shape[1]
        )
        return blocks[picks].reshape(-1)

    def to_f32(self) -> np.ndarray:
        return quants.get(self.qtype).decode(self.bytes()).reshape(self.shape)
