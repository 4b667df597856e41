# SPDX-License-Identifier: Apache-2.0
"""Inverse frequencies of rotary embeddings under the scalings the families use.

Pure arithmetic in float64: numbers in, `RopeSpec` ingredients out. Knows no file keys.

Sources: RoPE (arXiv 2104.09864), position interpolation (arXiv 2306.15595), YaRN
(arXiv 2309.00071), and the frequency-dependent scaling published with Llama 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import UnsupportedModelError
from freehold.ops import RopeSpec

ScalingKind = Literal["none", "linear", "llama3", "yarn"]
Frequencies: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How a model stretches its trained context. Unused fields keep their defaults."""

    kind: ScalingKind = "none"
    factor: float = 1.0
    original_context: int = 0  # positions the model was first trained on
    names_original: bool = False  # whether the file says so itself
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn: rotations within the original context
    beta_slow: float = 1.0
    truncate: bool = True  # yarn: whole dimensions bound the ramp
    ext_factor: float = 1.0  # yarn: share of the ramp that is applied
    magnitude: float = 1.0  # yarn: multiplies cosine and sine

    def reach(self, context: int) -> int:
        """Positions the model can use where its file declares `context`.

        Publishers turn YaRN on by naming a factor and the trained length, and often leave the
        latter declared as the context."""
        if self.kind != "yarn" or not self.names_original:
            return context
        return max(context, min(int(self.original_context * self.factor), 2**31 - 1))


@dataclass(frozen=True, slots=True)
class QueryTemperature:
    """Queries grow with their position: q · (1 + scale · ln(1 + ⌊(position + offset) / length⌋)).

    So says Llama 4 of the layers that have no rotation, and Mistral of all. Up to the trained
    length it changes nothing."""

    scale: float
    length: int
    offset: int = 0
    nope_only: bool = False  # layers that rotate keep their queries as they are

    def factors(self, positions: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """[T] of positions [T]."""
        periods = (positions.astype(np.int64) + self.offset) // self.length
        return (1.0 + self.scale * np.log1p(periods)).astype(np.float32)


def yarn_magnitude(factor: float, mscale: float = 1.0) -> float:
    """0.1 · mscale · ln(factor) + 1, the attention temperature of YaRN (its eq. 22)."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def inverse_frequencies(rotary_dim: int, base: float, scaling: RopeScaling) -> Frequencies:
    """Radians per position of each rotated pair: [rotary_dim / 2].

    `base` is above 1 and `rotary_dim` even and positive; the caller has checked.
    """
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim
    plain: Frequencies = base**-exponents
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "llama3":
        return plain / llama3_divisors(plain, scaling)
    if scaling.kind == "yarn":
        kept = _yarn_ramp(rotary_dim, base, scaling) * scaling.ext_factor
        return plain * kept + plain / scaling.factor * (1.0 - kept)
    return plain


def plain_base(rope: RopeSpec) -> float:
    """The base of a rotation without scaling. Raises UnsupportedModelError where it has any."""
    count = len(rope.inv_freq)
    base = float(rope.inv_freq[1]) ** -count if count > 1 else 10000.0
    plain = inverse_frequencies(2 * count, base, RopeScaling()) if base > 1.0 else 0.0
    if rope.magnitude != 1.0 or not np.allclose(rope.inv_freq, plain, rtol=1e-6, atol=0.0):
        raise UnsupportedModelError(
            "GGUF has no keys for a stretched rotation in the layers with a sliding window"
        )
    return base


def llama3_divisors(plain: Frequencies, scaling: RopeScaling) -> Frequencies:
    """What each plain inverse frequency is divided by; GGUF stores it as ``rope_freqs.weight``.

    Wavelengths below original/high stay, those above original/low are stretched by the factor,
    and those between blend the two frequencies. With low = high, as Llama 4 has it, none do.
    """
    turns = scaling.original_context * plain / (2.0 * math.pi)  # in the original context
    low, span = scaling.low_freq_factor, scaling.high_freq_factor - scaling.low_freq_factor
    kept = np.clip((turns - low) / span, 0.0, 1.0) if span else (turns >= low).astype(np.float64)
    return np.asarray(1.0 / (kept + (1.0 - kept) / scaling.factor), dtype=np.float64)


def _yarn_ramp(rotary_dim: int, base: float, scaling: RopeScaling) -> Frequencies:
    """Share of each frequency that stays unscaled: 1 for fast dimensions, 0 for slow ones."""

    def dimension(rotations: float) -> float:
        turns = scaling.original_context / (rotations * 2.0 * math.pi)
        return rotary_dim * math.log(turns) / (2.0 * math.log(base))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    steps = np.arange(rotary_dim // 2, dtype=np.float64)
    return np.asarray(1.0 - np.clip((steps - low) / max(0.001, high - low), 0.0, 1.0))
