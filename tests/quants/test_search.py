# SPDX-License-Identifier: Apache-2.0
"""Quality of the encoders: error ceilings per type, and a clear margin over a plain encoder."""

from __future__ import annotations

import numpy as np
import pytest

from freehold import quants
from freehold.quants._bits import pack, pack_scales_mins, unpack, unpack_scales_mins

# Root-mean-square error over root-mean-square value, Gaussian input. Measured, plus 2 %.
CEILINGS = {
    "F32": 0.0, "F16": 0.00022, "BF16": 0.0017, "Q8_0": 0.0055, "Q6_K": 0.0171,
    "Q5_K": 0.0357, "Q5_1": 0.0387, "Q5_0": 0.0436, "Q4_K": 0.0724, "IQ4_NL": 0.0754,
    "IQ4_XS": 0.0761, "Q4_1": 0.0798, "Q4_0": 0.0875, "Q3_K": 0.148, "Q2_K": 0.275,
    # Without a search: MXFP4 has powers of two as scales, the rest are for weights trained to fit.
    "MXFP4": 0.117, "Q1_0": 0.613, "Q2_0": 0.733, "TQ1_0": 0.825, "TQ2_0": 0.825,
}  # fmt: skip


def relative_error(kind, values: np.ndarray) -> float:
    error = kind.decode(kind.encode(values)) - values
    return float(np.sqrt((error**2).mean() / (values**2).mean()))


def gaussian(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(count) * 0.02).astype(np.float32)


@pytest.mark.parametrize("name", CEILINGS)
def test_round_trip_error_stays_below_its_ceiling(name):
    assert relative_error(quants.get(name), gaussian(1 << 17)) <= CEILINGS[name]


def test_the_table_covers_every_type():
    assert sorted(CEILINGS) == [name for name in quants.names() if quants.get(name).can_encode]


def naive_affine(values, sub, top, scale_top):
    """Range of each sub-block to [0, top], scales rounded to the super-block's integers."""
    blocks = values.reshape(-1, 256 // sub, sub).astype(np.float64)
    low = np.minimum(blocks.min(axis=2), 0)
    scale = (np.maximum(blocks.max(axis=2), low) - low) / top
    d = np.float16(scale.max(axis=1) / scale_top).astype(np.float64)[:, None]
    dmin = np.float16((-low).max(axis=1) / scale_top).astype(np.float64)[:, None]
    s, m = (d * np.rint(scale / d))[..., None], (dmin * np.rint(-low / dmin))[..., None]
    q = np.clip(np.rint((blocks + m) / np.where(s > 0, s, 1)), 0, top)
    return (s * q - m).reshape(-1)


def naive_signed(values, sub, half, scale_half):
    """Largest magnitude of each sub-block to −half, scales rounded likewise."""
    blocks = values.reshape(-1, 256 // sub, sub).astype(np.float64)
    at = np.abs(blocks).argmax(axis=2)[..., None]
    scale = np.take_along_axis(blocks, at, axis=2)[..., 0] / -half
    peak = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)
    d = np.float16(peak / -scale_half).astype(np.float64)
    s = (d * np.clip(np.rint(scale / d), -scale_half, scale_half - 1))[..., None]
    q = np.clip(np.rint(blocks / np.where(s != 0, s, 1)), -half, half - 1)
    return (s * q).reshape(-1)


NAIVE = {
    "Q2_K": (lambda v: naive_affine(v, 16, 3, 15), 0.84),
    "Q4_K": (lambda v: naive_affine(v, 32, 15, 63), 0.93),
    "Q5_K": (lambda v: naive_affine(v, 32, 31, 63), 0.94),
    "Q3_K": (lambda v: naive_signed(v, 16, 4, 32), 0.96),
    "Q6_K": (lambda v: naive_signed(v, 16, 32, 128), 0.93),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAIVE)
def test_searching_beats_mapping_the_range(name, seed):
    naive, margin = NAIVE[name]
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(1 << 16) if seed else rng.standard_t(5, 1 << 16)) * 0.02
    values = values.astype(np.float32)
    ours = quants.get(name).decode(quants.get(name).encode(values))
    error, plain = ((ours - values) ** 2).sum(), ((naive(values) - values) ** 2).sum()
    assert np.sqrt(error / plain) <= margin


@pytest.mark.parametrize("name", ["IQ4_NL", "IQ4_XS"])
def test_uneven_levels_beat_even_ones_of_the_same_size(name):
    values = gaussian(1 << 16)
    assert relative_error(quants.get(name), values) < 0.9 * relative_error(
        quants.get("Q4_0"), values
    )


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_values_that_fit_exactly_come_back_exactly(name):
    """Decoded blocks are a fixed point, but for scales that tie."""
    kind = quants.get(name)
    once = kind.decode(kind.encode(gaussian(256 * 64)))
    twice = kind.decode(kind.encode(once))
    error = np.sqrt(((twice - once) ** 2).mean() / (once**2).mean())
    assert error <= 0.35 * CEILINGS[name]


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"])
def test_zeros_and_constants_survive(name):
    kind = quants.get(name)
    assert not kind.decode(kind.encode(np.zeros(512, dtype=np.float32))).any()
    for constant in (0.5, -0.5):
        decoded = kind.decode(kind.encode(np.full(256, constant, dtype=np.float32)))
        assert np.abs(decoded - constant).max() <= 0.01


@pytest.mark.parametrize("name", ["Q3_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_negating_the_input_negates_a_signed_type(name):
    """The longer end of the levels goes to the peak, whichever its sign."""
    kind = quants.get(name)
    values = gaussian(256 * 16)
    straight, mirrored = kind.decode(kind.encode(values)), kind.decode(kind.encode(-values))
    assert np.array_equal(straight, -mirrored)


def test_packing_is_the_inverse_of_unpacking():
    rng = np.random.default_rng(8)
    for bits, group in ((4, 16), (4, 32), (4, 64), (4, 1), (2, 32), (2, 4), (1, 32), (4, 8)):
        data = rng.integers(0, 256, (5, 64), dtype=np.uint8)
        assert np.array_equal(pack(unpack(data, bits, group), bits, group), data)
    packed = rng.integers(0, 256, (50, 12), dtype=np.uint8)
    assert np.array_equal(pack_scales_mins(*unpack_scales_mins(packed)), packed)
