# SPDX-License-Identifier: Apache-2.0
"""Every quant type against the `gguf` package: sizes, decoding bit by bit, reference encoders."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize, quantize

from freehold import quants
from freehold.errors import InvalidParameterError, UnsupportedModelError
from freehold.quants._grids import grid

WITH_REFERENCE_ENCODER = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
SEARCHED = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"]
NAMES = WITH_REFERENCE_ENCODER + SEARCHED
FEW_LEVELS = ["TQ1_0", "TQ2_0", "MXFP4"]  # with a reference encoder, too
READ_ONLY = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4"]
UNKNOWN_TO_GGUF = {"Q1_0": (41, 128, 18), "Q2_0": (42, 64, 18)}  # no decoder, or nothing at all
DECODED = NAMES + FEW_LEVELS + READ_ONLY
ALL = [*DECODED, *UNKNOWN_TO_GGUF]
ENCODED = [*NAMES, *FEW_LEVELS, *UNKNOWN_TO_GGUF]
# Byte offset of each half-precision scale in a block.
SCALE_OFFSETS = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
    "IQ1_S": [0], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip
# Byte offset of each half-word that is no scale.
WORD_OFFSETS = {
    "IQ4_XS": [2], "IQ1_S": list(range(34, 50, 2)),
    "IQ2_XXS": list(range(2, 66, 2)), "IQ2_XS": list(range(2, 66, 2)),
}  # fmt: skip
ANY_SCALES = SCALE_OFFSETS.keys() | {"MXFP4", "NVFP4", "IQ1_M"}  # every byte has a meaning


def reference(name: str):
    return gguf.GGMLQuantizationType[name]


def reference_decode(name: str, data: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return dequantize(data.reshape(1, -1), reference(name)).reshape(-1)


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal bit patterns; any NaN matches any NaN, as payloads depend on the instruction."""
    assert ours.dtype == theirs.dtype == np.float32
    same = ours.view(np.uint32) == theirs.view(np.uint32)
    same |= np.isnan(ours) & np.isnan(theirs)
    assert same.all(), f"{(~same).sum()} of {same.size} differ, first at {np.argmin(same)}"


def with_scales(name: str, data: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """`data` with every block's scales replaced by the given half-precision numbers."""
    blocks = data.reshape(-1, quants.get(name).type_size).copy()
    for offset in SCALE_OFFSETS[name]:
        picked = np.resize(scales, len(blocks)).astype("<f2")
        blocks[:, offset : offset + 2] = picked[:, None].view(np.uint8)
    return blocks.reshape(-1)


def random_bytes(name: str, blocks: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, blocks * quants.get(name).type_size, dtype=np.uint8)


def test_the_register_lists_exactly_the_types_asked_for():
    assert sorted(quants.names()) == sorted(ALL)
    for name in ALL:
        kind = quants.get(name)
        assert kind is quants.get(name.lower())
        assert kind.name == name
        assert kind is quants.by_id(kind.ggml_id)


@pytest.mark.parametrize("name", DECODED)
def test_sizes_and_numbers_are_those_of_the_format(name):
    kind = quants.get(name)
    assert kind.ggml_id == reference(name)
    assert (kind.block_size, kind.type_size) == gguf.GGML_QUANT_SIZES[reference(name)]
    assert kind.bits_per_weight == 8 * kind.type_size / kind.block_size
    assert kind.nbytes(4 * kind.block_size) == 4 * kind.type_size


@pytest.mark.parametrize("name", UNKNOWN_TO_GGUF)
def test_sizes_and_numbers_of_newer_types(name):
    kind = quants.get(name)
    assert (kind.ggml_id, kind.block_size, kind.type_size) == UNKNOWN_TO_GGUF[name]


def test_unknown_types_are_named():
    with pytest.raises(UnsupportedModelError, match="'Q9_X'"):
        quants.get("Q9_X")
    for helper in ("base", "mixes", "_bits", "__init__"):
        with pytest.raises(UnsupportedModelError):
            quants.get(helper)
    with pytest.raises(UnsupportedModelError, match=r"Q8_K \(id 15\)"):
        quants.by_id(15)
    with pytest.raises(UnsupportedModelError, match="id 4096"):
        quants.by_id(4096)


def test_importing_the_register_loads_no_type():
    code = (
        "import sys, freehold.quants as q; "
        "assert 'freehold.quants.q4_k' not in sys.modules; q.get('Q4_K'); "
        "assert 'freehold.quants.q4_k' in sys.modules; "
        "assert 'freehold.quants.q6_k' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", DECODED)
def test_decoding_random_bytes_equals_the_reference(name):
    data = random_bytes(name, 3000 if quants.get(name).block_size > 1 else 1 << 16)
    assert_same_bits(quants.get(name).decode(data), reference_decode(name, data))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_decoding_every_bit_pattern_equals_the_reference(name):
    data = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    assert_same_bits(quants.get(name).decode(data), reference_decode(name, data))


@pytest.mark.parametrize("name", SCALE_OFFSETS)
def test_decoding_strange_scales_equals_the_reference(name):
    scales = np.array(
        [-1.5, 6e-8, -6e-8, 5.9e-5, 65504, -65504, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-3]
    )
    data = with_scales(name, random_bytes(name, 480), scales)
    assert_same_bits(quants.get(name).decode(data), reference_decode(name, data))


@pytest.mark.parametrize("name", sorted(ANY_SCALES))
def test_decoding_every_value_of_every_byte_equals_the_reference(name):
    """Each byte of a block takes all its values while the rest stays fixed."""
    size = quants.get(name).type_size
    base = random_bytes(name, 1, seed=7)
    if name in SCALE_OFFSETS:
        base = with_scales(name, base, np.array([0.37]))
    blocks = np.broadcast_to(base, (size, 256, size)).copy()
    for position in range(size):
        blocks[position, :, position] = np.arange(256)
    data = blocks.reshape(-1)
    assert_same_bits(quants.get(name).decode(data), reference_decode(name, data))


@pytest.mark.parametrize("name", NAMES + FEW_LEVELS)
def test_decoding_encoded_values_equals_the_reference(name):
    values = np.random.default_rng(2).standard_normal(40_960).astype(np.float32)
    data = quants.get(name).encode(values)
    assert_same_bits(quants.get(name).decode(data), reference_decode(name, data))


def test_chunks_leave_no_seams():
    """More blocks than one chunk, and not a multiple of it, equal block-by-block results."""
    kind = quants.get("Q4_K")
    values = np.random.default_rng(3).standard_normal(256 * 300).astype(np.float32)
    data = kind.encode(values)
    single = [kind.encode(row) for row in values.reshape(-1, 256)]
    assert np.array_equal(data, np.concatenate(single))
    decoded = [kind.decode(block) for block in data.reshape(-1, kind.type_size)]
    assert np.array_equal(kind.decode(data), np.concatenate(decoded))


SHAPES = {
    "gaussian": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(3, n),
    "all positive": lambda rng, n: rng.random(n) + 1,
    "all negative": lambda rng, n: -rng.random(n) - 3,
    "mostly zero": lambda rng, n: rng.standard_normal(n) * (rng.random(n) < 0.05),
    "zero": lambda rng, n: np.zeros(n),
    "negative zero": lambda rng, n: -np.zeros(n),
    "constant": lambda rng, n: np.full(n, -0.7),
    "ties": lambda rng, n: rng.integers(-8, 8, n),
    "wide": lambda rng, n: rng.standard_normal(n) * 10.0 ** rng.integers(-6, 4, n),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WITH_REFERENCE_ENCODER + FEW_LEVELS)
def test_encoding_equals_the_reference_encoder(name, shape):
    values = SHAPES[shape](np.random.default_rng(4), 32 * 640).astype(np.float32)
    with np.errstate(all="ignore"):
        theirs = quantize(values.reshape(1, -1), reference(name)).view(np.uint8).reshape(-1)
    assert np.array_equal(quants.get(name).encode(values), theirs)


def test_bf16_rounds_every_upper_half_and_keeps_nan():
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (upper | lower).view(np.float32)
        theirs = quantize(values.reshape(1, -1), reference("BF16")).view(np.uint8).reshape(-1)
        ours = quants.get("BF16").encode(values)
        assert np.array_equal(ours, theirs)
        assert np.array_equal(np.isnan(values), np.isnan(quants.get("BF16").decode(ours)))


@pytest.mark.parametrize("name", sorted(set(ALL) - {"MXFP4", "NVFP4", "IQ1_M"}))
def test_byteswap_goes_there_and_back(name):
    kind = quants.get(name)
    data = random_bytes(name, 50)
    swapped = kind.byteswap(data)
    assert not np.array_equal(swapped, data)
    assert np.array_equal(kind.byteswap(swapped), data)


@pytest.mark.parametrize("name", DECODED)
def test_byteswap_reverses_the_wide_fields_and_nothing_else(name):
    kind = quants.get(name)
    data = random_bytes(name, 20, seed=5).reshape(20, -1)
    expected = data.copy()
    if kind.is_float:
        expected = expected[:, ::-1]
    else:
        for offset in [*SCALE_OFFSETS.get(name, ()), *WORD_OFFSETS.get(name, ())]:
            expected[:, [offset, offset + 1]] = expected[:, [offset + 1, offset]]
    assert np.array_equal(kind.byteswap(data.reshape(-1)), expected.reshape(-1))


@pytest.mark.parametrize("name", ALL)
def test_wrong_sizes_are_refused(name):
    kind = quants.get(name)
    if kind.type_size > 1:
        with pytest.raises(InvalidParameterError, match=f"whole {name} blocks"):
            kind.decode(np.zeros(kind.type_size * 2 + 1, dtype=np.uint8))
    assert kind.decode(np.zeros(0, dtype=np.uint8)).size == 0
    if not kind.can_encode:
        return
    if kind.block_size > 1:
        with pytest.raises(InvalidParameterError, match=f"whole {name} blocks"):
            kind.encode(np.zeros(kind.block_size + 1, dtype=np.float32))
    assert kind.encode(np.zeros(0, dtype=np.float32)).size == 0


@pytest.mark.parametrize("name", READ_ONLY)
def test_types_that_are_only_read_say_so(name):
    kind = quants.get(name)
    assert not kind.can_encode
    with pytest.raises(InvalidParameterError, match=f"reads {name} but does not write"):
        kind.encode(np.zeros(kind.block_size, dtype=np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ENCODED)
def test_nan_and_infinity_are_refused_or_kept(name, bad):
    kind = quants.get(name)
    values = np.ones(kind.block_size * 2, dtype=np.float32)
    values[-1] = bad
    if kind.is_float:
        assert np.array_equal(kind.decode(kind.encode(values)), values, equal_nan=True)
    else:
        with pytest.raises(InvalidParameterError, match="NaN or infinity"):
            kind.encode(values)


@pytest.mark.parametrize("name", [n for n in ENCODED if n not in ("F32", "BF16", "MXFP4")])
def test_values_beyond_half_precision_are_refused_not_made_infinite(name):
    kind = quants.get(name)
    values = np.full(kind.block_size * 2, 1e30, dtype=np.float32)
    values[::2] *= -1
    with pytest.raises(InvalidParameterError, match="too large"):
        kind.encode(values)


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-20, 1e-7, 1e3])
def test_tiny_and_large_values_encode_to_finite_ones_nearby(name, magnitude):
    kind = quants.get(name)
    rng = np.random.default_rng(6)
    values = (rng.standard_normal(kind.block_size * 64) * magnitude).astype(np.float32)
    decoded = kind.decode(kind.encode(values))
    # Half-precision scales end at 6e-8: below, a block may vanish but not blow up. A K-quant
    # multiplies that smallest scale by 6 to 8 bits.
    share = {"TQ1_0": 0.51, "TQ2_0": 0.51, "Q2_0": 0.51, "Q1_0": 1.0}.get(name, 0.35)
    assert np.abs(decoded - values).max() <= max(share * np.abs(values).max(), 5e-6)


# -- codebooks -------------------------------------------------------------------------------------

# SHA-256 of the book as little-endian float32, first half of the digits shown.
BOOKS = {
    "IQ2_XXS": ((256, 8), "0050706e48cc73b8"),
    "IQ2_XS": ((512, 8), "989f82d20f8b93e2"),
    "IQ2_S": ((1024, 8), "a3749175cb085e51"),
    "IQ3_XXS": ((256, 4), "d9af899c2c1c57d5"),
    "IQ3_S": ((512, 4), "b703ee82ef0f3d90"),
    "IQ1": ((2048, 8), "4ca82266881c8a77"),
}


@pytest.mark.parametrize("name", BOOKS)
def test_codebooks_are_those_of_the_format(name):
    shape, digest = BOOKS[name]
    book = grid(name)
    assert book.shape == shape
    assert hashlib.sha256(book.astype("<f4").tobytes()).hexdigest()[:16] == digest
    kind = getattr(gguf.quants, "IQ1_S" if name == "IQ1" else name)
    kind.init_grid()
    assert np.array_equal(book, kind.grid.reshape(shape))
    assert not book.flags.writeable


# -- types without a reference ---------------------------------------------------------------------


def test_q1_0_by_hand():
    """d = 1.5; bit i of byte j is the sign of value 8·j + i."""
    block = np.zeros(18, dtype=np.uint8)
    block[:2] = np.array([1.5], "<f2").view(np.uint8)
    block[2], block[17] = 0b0000_0101, 0b1000_0000
    expected = np.full(128, -1.5, dtype=np.float32)
    expected[[0, 2, 127]] = 1.5
    assert_same_bits(quants.get("Q1_0").decode(block), expected)
    assert np.array_equal(quants.get("Q1_0").encode(expected), block)


def test_q2_0_by_hand():
    """d = −0.5; bits 2·i of byte j are value 4·j + i, one more than the multiple of d."""
    block = np.full(18, 0b01_01_01_01, dtype=np.uint8)
    block[:2] = np.array([-0.5], "<f2").view(np.uint8)
    block[2], block[17] = 0b11_10_01_00, 0b00_01_01_01
    expected = np.zeros(64, dtype=np.float32)
    expected[[0, 2, 3, 63]] = [0.5, -0.5, -1.0, 0.5]
    decoded = quants.get("Q2_0").decode(block)
    assert np.array_equal(decoded, expected)


def test_q2_0_keeps_ternary_weights():
    rng = np.random.default_rng(8)
    values = (rng.integers(-1, 2, 64 * 50) * np.repeat(0.25 + np.arange(50), 64)).astype(np.float32)
    assert np.array_equal(quants.get("Q2_0").decode(quants.get("Q2_0").encode(values)), values)


def test_q1_0_takes_the_mean_magnitude():
    values = np.tile(np.array([1, -3], dtype=np.float32), 64)
    decoded = quants.get("Q1_0").decode(quants.get("Q1_0").encode(values))
    assert np.array_equal(decoded, np.sign(values) * 2)
