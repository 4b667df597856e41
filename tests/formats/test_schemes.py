# SPDX-License-Identifier: Apache-2.0
"""Quantised safetensors checkpoints against torch's small floats and element-by-element packing.

The expected values are computed one by one, from the description of each format, so that no
shape trick of the code under test is repeated here.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.formats import derived_tensor
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.derived_tensor import DerivedTensor
from freehold.formats.schemes import names
from freehold.quants import get, small_floats

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}


@pytest.fixture
def checkpoint(tmp_path: Path):
    """A function that writes tensors and a `quantization_config`, and opens what it wrote."""
    opened = []

    def make(settings, tensors, **config):
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, tmp_path / "model.safetensors")
        whole = {"model_type": "llama", "quantization_config": settings} | config
        (tmp_path / "config.json").write_text(json.dumps(whole))
        opened.append(open_checkpoint(tmp_path))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def bf16(values: torch.Tensor) -> np.ndarray:
    return values.to(torch.bfloat16).float().numpy()


def random_codes(*shape: int, seed: int = 0) -> torch.Tensor:
    """Every bit pattern of E4M3 but NaN."""
    codes = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    codes[(codes & 127) == 127] = 0
    return torch.from_numpy(codes).view(torch.float8_e4m3fn)


def random_scales(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(
        (np.random.default_rng(seed).random(shape) * 0.01 + 1e-4).astype(np.float32)
    )


def check(tensor, expected: np.ndarray, qtype: str) -> None:
    """Type, shape and values, and that bytes, values and rows tell the same."""
    assert isinstance(tensor, DerivedTensor)
    assert (tensor.qtype, tensor.shape) == (qtype, expected.shape)
    assert tensor.num_elements == expected.size
    assert tensor.file_span() is None
    data = tensor.bytes()
    assert data.nbytes == tensor.nbytes
    values = tensor.to_f32()
    assert np.array_equal(values, expected)
    assert np.array_equal(get(qtype).decode(data).reshape(expected.shape), values)
    width = data.size // tensor.num_rows
    for start, stop in ((0, 1), (1, 3), (tensor.num_rows - 1, tensor.num_rows)):
        assert np.array_equal(tensor.rows(start, stop), data[start * width : stop * width])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles for every matrix, none of which ends on a block of anything."""
    monkeypatch.setattr(derived_tensor, "_TILE_VALUES", 7 * 300)


# -- small floats ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("F8_E4M3", torch.float8_e4m3fn),
        ("F8_E5M2", torch.float8_e5m2),
        ("F8_E8M0", torch.float8_e8m0fnu),
    ],
)
def test_every_small_float_equals_that_of_torch(name, dtype):
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes).view(dtype).float().numpy()
    decoded = small_floats.decode(codes, name)
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, expected, equal_nan=True)
    assert np.array_equal(np.signbit(decoded[:127]), np.signbit(expected[:127]))


def test_four_bit_floats():
    decoded = small_floats.decode(np.arange(16, dtype=np.uint8), "F4")
    positive = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert decoded.tolist() == positive + [-value for value in positive]
    assert small_floats.nibbles(np.array([[0x21, 0x43]], np.uint8)).tolist() == [[1, 2, 3, 4]]


# -- fp8 -------------------------------------------------------------------------------------------


def test_fp8_blocks_that_end_early(checkpoint):
    codes, scale = random_codes(200, 300), random_scales(2, 3)
    tensors = {
        "a.weight": codes,
        "a.weight_scale_inv": scale,
        "a.activation_scale": torch.ones(1),
        "norm.weight": torch.ones(300),
    }
    opened = checkpoint(FP8, tensors)
    assert sorted(opened.tensors) == ["a.weight", "norm.weight"]
    assert "quantization_config" not in opened.metadata
    i, j = torch.arange(200)[:, None], torch.arange(300)
    expected = codes.float() * scale[i // 128, j // 128]
    check(opened.tensors["a.weight"], bf16(expected), "BF16")
    assert opened.nbytes == 2 * 200 * 300 + 4 * 300


def test_fp8_with_powers_of_two_is_exact(checkpoint):
    codes, scale = random_codes(130, 128), 2.0 ** torch.arange(-20, -18).reshape(2, 1)
    opened = checkpoint(FP8, {"a.weight": codes, "a.weight_scale_inv": scale})
    expected = codes.float() * scale.repeat_interleave(128, 0)[:130]
    check(opened.tensors["a.weight"], expected.numpy(), "BF16")


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_fp8_with_one_scale(checkpoint, shape):
    codes, scale = random_codes(40, 33), torch.tensor(0.0123).reshape(shape)
    settings = {"quant_method": "fp8", "weight_block_size": None}
    opened = checkpoint(settings, {"a.weight": codes, "a.weight_scale_inv": scale})
    check(opened.tensors["a.weight"], bf16(codes.float() * 0.0123), "BF16")


def test_fp8_experts(checkpoint):
    """Fused, so without `.weight`; tiles must not run from one expert into the next."""
    codes, scale = random_codes(3, 130, 20), random_scales(3, 2, 1)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    opened = checkpoint(FP8, {name: codes, name + "_scale_inv": scale})
    expected = codes.float() * scale.repeat_interleave(128, 1)[:, :130]
    check(opened.tensors[name], bf16(expected), "BF16")


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1)])
def test_fp8_experts_with_a_scale_each(checkpoint, shape):
    codes, scale = random_codes(3, 5, 20), random_scales(3)
    tensors = {"e.up_proj": codes, "e.up_proj_scale_inv": scale.reshape(shape)}
    opened = checkpoint({"quant_method": "fp8"}, tensors)
    check(opened.tensors["e.up_proj"], bf16(codes.float() * scale.reshape(3, 1, 1)), "BF16")


def test_fp8_and_fp4_with_scales_of_eight_bits(checkpoint):
    exponents = torch.tensor([[120, 121], [125, 119]], dtype=torch.uint8)
    codes = random_codes(200, 256)
    packed = torch.from_numpy(np.random.default_rng(3).integers(-128, 128, (6, 32), np.int8))
    small = torch.from_numpy(np.random.default_rng(4).integers(100, 140, (6, 2), np.uint8))
    tensors = {
        "a.weight": codes,
        "a.scale": exponents.view(torch.float8_e8m0fnu),
        "b.weight": packed,
        "b.scale": small.view(torch.float8_e8m0fnu),
    }
    opened = checkpoint(FP8, tensors)
    tiles = (2.0 ** (exponents.float() - 127)).repeat_interleave(128, 0).repeat_interleave(128, 1)
    check(opened.tensors["a.weight"], (codes.float() * tiles[:200]).numpy(), "BF16")
    check(opened.tensors["b.weight"], four_bit(packed.view(torch.uint8), small), "MXFP4")


def four_bit(packed: torch.Tensor, exponents: torch.Tensor) -> np.ndarray:
    """MXFP4 one by one: low half first, an exponent for each 32."""
    levels = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]
    rows, half = packed.shape
    out = np.empty((rows, 2 * half), np.float32)
    for i in range(rows):
        for j in range(2 * half):
            code = int(packed[i, j // 2]) >> 4 * (j % 2) & 15
            out[i, j] = levels[code] * 2.0 ** (int(exponents[i, j // 32]) - 127)
    return out


# -- mxfp4 -----------------------------------------------------------------------------------------


def test_mxfp4_experts_equal_those_of_transformers(checkpoint):
    rng = np.random.default_rng(5)
    blocks = torch.from_numpy(rng.integers(0, 256, (3, 10, 4, 16), np.uint8))
    scales = torch.from_numpy(rng.integers(100, 140, (3, 10, 4), np.uint8))
    name = "model.layers.0.mlp.experts.down_proj"
    opened = checkpoint(
        {"quant_method": "mxfp4"},
        {name + "_blocks": blocks, name + "_scales": scales, name + "_bias": torch.zeros(3, 10)},
    )
    assert sorted(opened.tensors) == [name, name + "_bias"]
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2)
    check(opened.tensors[name], theirs.numpy(), "MXFP4")


# -- gptq and awq ----------------------------------------------------------------------------------


def packed_words(integers: np.ndarray, bits: int, axis: int) -> torch.Tensor:
    """Unsigned integers into 32-bit words along an axis, lowest bits first."""
    moved = np.moveaxis(integers.astype(np.uint64), axis, 0)
    per_word = 32 // bits
    words = np.zeros((-(-len(moved) // per_word), *moved.shape[1:]), np.uint64)
    for i, row in enumerate(moved):
        words[i // per_word] |= row << np.uint64(bits * (i % per_word))
    return torch.from_numpy(np.moveaxis(words.astype(np.uint32).view(np.int32), 0, axis).copy())


def gptq_layer(bits=4, width=96, n=40, size=32, *, symmetric=True, offset=1, groups_of=None):
    """Tensors of a layer, and its values [n, width] as float64."""
    rng = np.random.default_rng(6)
    groups = -(-width // size)
    q = rng.integers(0, 1 << bits, (width, n))
    zeros = rng.integers(0, 1 << bits, (groups, n))
    if symmetric:
        zeros[:] = 1 << (bits - 1)
    scales = (rng.random((groups, n)) * 0.01 + 0.001).astype(np.float16)
    group_of = np.arange(width) // size if groups_of is None else groups_of
    values = scales.astype(np.float64)[group_of] * (q - zeros[group_of])
    tensors = {
        "a.qweight": packed_words(q, bits, 0),
        "a.qzeros": packed_words((zeros - offset) % (1 << bits), bits, 1),
        "a.scales": torch.from_numpy(scales),
        "a.g_idx": torch.from_numpy(group_of.astype(np.int32)),
    }
    return tensors, values.T, scales, zeros


def test_gptq_symmetric_is_exact(checkpoint):
    tensors, values, _, _ = gptq_layer()
    opened = checkpoint(GPTQ, tensors | {"a.bias": torch.zeros(40)})
    assert sorted(opened.tensors) == ["a.bias", "a.weight"]
    check(opened.tensors["a.weight"], values.astype(np.float32), "Q4_0")


def test_gptq_with_zero_points(checkpoint):
    """Scale times zero point is rounded to half precision; everything else is as stored."""
    tensors, values, scales, zeros = gptq_layer(symmetric=False, n=36)
    opened = checkpoint(GPTQ | {"sym": False}, tensors)
    tensor = opened.tensors["a.weight"]
    assert tensor.qtype == "Q4_1"
    slack = (np.abs(scales.astype(np.float64) * zeros) * 2.0**-11).T.repeat(32, axis=1) + 1e-9
    assert (np.abs(tensor.to_f32() - values) <= slack).all()
    assert (tensor.to_f32() != np.roll(values, 1)).any()


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_with_sorted_columns(checkpoint, bits, symmetric):
    order = np.random.default_rng(7).permutation(np.arange(96) // 32)
    tensors, values, _, _ = gptq_layer(bits, symmetric=symmetric, groups_of=order)
    opened = checkpoint(GPTQ | {"bits": bits, "desc_act": True, "sym": symmetric}, tensors)
    expected = bf16(torch.from_numpy(values.astype(np.float32)))
    check(opened.tensors["a.weight"], expected, "BF16")


def test_gptq_of_eight_bits_and_one_group(checkpoint):
    tensors, values, _, _ = gptq_layer(8, size=96)
    del tensors["a.g_idx"]
    opened = checkpoint(GPTQ | {"bits": 8, "group_size": -1}, tensors)
    check(opened.tensors["a.weight"], values.astype(np.float32), "Q8_0")


def test_gptq_second_format_stores_zero_points_as_they_are(checkpoint):
    tensors, values, _, _ = gptq_layer(offset=0)
    opened = checkpoint(GPTQ | {"checkpoint_format": "gptq_v2"}, tensors)
    check(opened.tensors["a.weight"], values.astype(np.float32), "Q4_0")


def awq_words(integers: np.ndarray) -> torch.Tensor:
    """Eight neighbours along the last axis to a word, shuffled."""
    rows, columns = integers.shape
    words = np.zeros((rows, columns // 8), np.uint64)
    for place, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= integers[:, column::8].astype(np.uint64) << np.uint64(4 * place)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def test_awq(checkpoint):
    """Scales that are powers of two, so that their product with the zero point is exact."""
    rng = np.random.default_rng(8)
    q, zeros = rng.integers(0, 16, (64, 24)), rng.integers(0, 16, (2, 24))
    scales = (2.0 ** rng.integers(-9, -3, (2, 24))).astype(np.float16)
    tensors = {
        "a.qweight": awq_words(q),
        "a.qzeros": awq_words(zeros),
        "a.scales": torch.from_numpy(scales),
    }
    opened = checkpoint(AWQ, tensors)
    expected = scales.astype(np.float32).repeat(32, 0) * (q - zeros.repeat(32, 0))
    check(opened.tensors["a.weight"], expected.T.astype(np.float32), "Q4_1")
    del tensors["a.qzeros"]
    opened = checkpoint(AWQ | {"zero_point": False}, tensors)
    expected = scales.astype(np.float32).repeat(32, 0) * (q - 8)
    check(opened.tensors["a.weight"], expected.T.astype(np.float32), "Q4_0")


# -- compressed-tensors ----------------------------------------------------------------------------


def compressed(**weights):
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64, "symmetric": True}


def packed_layer(bits: int, groups: int, *, zero_points=False, g_idx=None, n=13, width=128):
    rng = np.random.default_rng(9)
    half = 1 << (bits - 1)
    q = rng.integers(-half, half, (n, width))
    zeros = rng.integers(-half, half, (n, groups)) if zero_points else np.zeros((n, groups), int)
    scales = torch.from_numpy(2.0 ** rng.integers(-9, -3, (n, groups))).to(torch.bfloat16)
    group_of = np.arange(width) // (width // groups) if g_idx is None else g_idx
    values = scales.float().numpy()[:, group_of] * (q - zeros[:, group_of])
    tensors = {
        "a.weight_packed": packed_words(q + half, bits, 1),
        "a.weight_scale": scales,
        "a.weight_shape": torch.tensor([n, width]),
    }
    if zero_points:
        tensors["a.weight_zero_point"] = packed_words(zeros + half, bits, 0)
    if g_idx is not None:
        tensors["a.weight_g_idx"] = torch.from_numpy(g_idx.astype(np.int32))
    return tensors, values.astype(np.float32)


@pytest.mark.parametrize(
    ("bits", "zero_points", "qtype"),
    [(4, False, "Q4_0"), (4, True, "Q4_1"), (8, False, "Q8_0"), (8, True, "BF16"),
     (2, False, "BF16")],
)  # fmt: skip
def test_packed_integers(checkpoint, bits, zero_points, qtype):
    tensors, values = packed_layer(bits, 2, zero_points=zero_points)
    opened = checkpoint(compressed(**INT4 | {"num_bits": bits}), tensors)
    check(opened.tensors["a.weight"], values, qtype)  # few bits and powers of two: always exact


def test_packed_integers_by_row(checkpoint):
    tensors, values = packed_layer(4, 1)
    weights = INT4 | {"strategy": "channel", "group_size": None}
    check(checkpoint(compressed(**weights), tensors).tensors["a.weight"], values, "Q4_0")


def test_packed_integers_with_sorted_columns(checkpoint):
    order = np.random.default_rng(10).permutation(np.arange(128) // 64)
    tensors, values = packed_layer(4, 2, g_idx=order)
    check(checkpoint(compressed(**INT4), tensors).tensors["a.weight"], values, "BF16")


@pytest.mark.parametrize("shape", [(1,), (40,), (40, 1), (2, 3)])
def test_compressed_fp8(checkpoint, shape):
    codes, scale = random_codes(40, 90), random_scales(*shape).to(torch.bfloat16)
    weights = {"num_bits": 8, "type": "float", "block_structure": [32, 32]}
    tensors = {"a.weight": codes, "a.weight_scale": scale, "a.input_scale": torch.ones(1)}
    opened = checkpoint(compressed(**weights), tensors)
    assert list(opened.tensors) == ["a.weight"]
    if shape == (2, 3):
        wide = scale.float().repeat_interleave(32, 0).repeat_interleave(32, 1)[:40, :90]
    else:
        wide = scale.float().reshape(-1, 1)
    check(opened.tensors["a.weight"], bf16(codes.float() * wide), "BF16")


def test_mxfp8(checkpoint):
    codes = random_codes(10, 96)
    exponents = torch.from_numpy(np.random.default_rng(14).integers(110, 130, (10, 3), np.uint8))
    weights = {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32}
    tensors = {"a.weight": codes, "a.weight_scale": exponents}
    opened = checkpoint(compressed(**weights), tensors)
    wide = (2.0 ** (exponents.float() - 127)).repeat_interleave(32, 1)
    check(opened.tensors["a.weight"], (codes.float() * wide).numpy(), "BF16")


def test_integers_of_eight_bits(checkpoint):
    q = torch.from_numpy(np.random.default_rng(11).integers(-128, 128, (9, 64), np.int8))
    scale = random_scales(9, 1).half()
    tensors = {"a.weight": q, "a.weight_scale": scale}
    opened = checkpoint(compressed(num_bits=8, type="int", strategy="channel"), tensors)
    check(opened.tensors["a.weight"], (q.float() * scale.float()).numpy(), "Q8_0")


@pytest.mark.parametrize("method", ["compressed-tensors", "modelopt"])
def test_nvfp4(checkpoint, method):
    """One divides by the scale of the whole, the other multiplies."""
    rng = np.random.default_rng(12)
    packed = torch.from_numpy(rng.integers(0, 256, (10, 24), np.uint8))
    scale = torch.from_numpy(rng.integers(1, 127, (10, 3), np.uint8)).view(torch.float8_e4m3fn)
    tensors = (
        {"a.weight_packed": packed, "a.weight_scale": scale,
         "a.weight_global_scale": torch.tensor([64.0])}
        if method == "compressed-tensors" else
        {"a.weight": packed, "a.weight_scale": scale, "a.weight_scale_2": torch.tensor(1 / 64)}
    )  # fmt: skip
    settings = compressed(num_bits=4, type="float") | {"quant_method": method}
    opened = checkpoint(settings, tensors)
    unscaled = four_bit(packed, torch.full((10, 2), 127))
    expected = unscaled * scale.float().numpy().repeat(16, axis=1) / 64
    check(opened.tensors["a.weight"], expected, "BF16")


def test_compressed_mxfp4(checkpoint):
    rng = np.random.default_rng(13)
    packed = torch.from_numpy(rng.integers(0, 256, (10, 32), np.uint8))
    scale = torch.from_numpy(rng.integers(100, 140, (10, 2), np.uint8))
    tensors = {"a.weight_packed": packed, "a.weight_scale": scale}
    opened = checkpoint(compressed(num_bits=4, type="float"), tensors)
    check(opened.tensors["a.weight"], four_bit(packed, scale), "MXFP4")


def test_modelopt_fp8(checkpoint):
    codes = random_codes(12, 20)
    tensors = {"a.weight": codes, "a.weight_scale": torch.tensor(0.25), "b.weight": torch.ones(2)}
    opened = checkpoint({"quant_method": "modelopt", "quant_algo": "FP8"}, tensors)
    check(opened.tensors["a.weight"], codes.float().numpy() / 4, "BF16")


# -- what is refused, and what is left alone -------------------------------------------------------


def test_the_methods_are_these():
    assert names() == ("awq", "compressed_tensors", "fp8", "gptq", "modelopt", "mxfp4")


@pytest.mark.parametrize("settings", [{"quant_method": "bitsandbytes"}, {}, {"quant_method": 3}])
def test_unknown_methods_are_left_to_whoever_asks(checkpoint, settings):
    opened = checkpoint(settings, {"a.weight": torch.ones(2, 2)})
    assert opened.metadata["quantization_config"] == settings
    assert list(opened.tensors) == ["a.weight"]


def test_the_settings_may_lie_with_the_language_model(checkpoint):
    codes = random_codes(4, 4)
    tensors = {"a.weight": codes, "a.weight_scale_inv": torch.tensor(1.0)}
    inner = {"quantization_config": FP8, "hidden_size": 4}
    opened = checkpoint(None, tensors, text_config=inner)
    assert opened.metadata["text_config"] == {"hidden_size": 4}
    assert opened.tensors["a.weight"].qtype == "BF16"


def gptq_with(**changes):
    return {**gptq_layer()[0], **changes}


@pytest.mark.parametrize(
    ("settings", "tensors", "error", "message"),
    [
        ("fp8", {}, MalformedFileError, "must be an object"),
        (FP8, {"a.weight": random_codes(4, 4)}, MalformedFileError, "no scale beside it"),
        (FP8, {"a.weight": random_codes(4), "a.weight_scale_inv": torch.ones(1)},
         MalformedFileError, "no matrix"),
        (FP8, {"a.weight": random_codes(4, 4), "a.weight_scale_inv": torch.ones(2, 1)},
         MalformedFileError, r"not \[1, 1\]"),
        (FP8, {"a.weight": random_codes(0, 4), "a.weight_scale_inv": torch.ones(1)},
         MalformedFileError, "is empty"),
        ({"quant_method": "fp8"},
         {"a.weight": random_codes(4, 4), "a.weight_scale_inv": torch.ones(2, 1)},
         MalformedFileError, "no block size"),
        (FP8 | {"weight_block_size": [128, 0]}, {}, MalformedFileError, "two sizes"),
        (FP8, {"a.weight": random_codes(4, 4), "a.weight_scale_inv": torch.ones(1).long()},
         MalformedFileError, "has type I64"),
        ({"quant_method": "mxfp4"}, {"a_blocks": torch.zeros(2, 2, 16, dtype=torch.uint8)},
         MalformedFileError, "'a_scales' is missing"),
        ({"quant_method": "mxfp4"},
         {"a_blocks": torch.zeros(2, 2, 16, dtype=torch.uint8),
          "a_scales": torch.zeros(2, 3, dtype=torch.uint8)}, MalformedFileError, r"\[2, 3\]"),
        (GPTQ | {"bits": 3}, {}, UnsupportedModelError, "bits = 3"),
        (GPTQ | {"bits": True}, {}, UnsupportedModelError, "bits = "),
        (GPTQ | {"dynamic": {"x": 1}}, {}, UnsupportedModelError, "dynamic"),
        (GPTQ | {"group_size": "x"}, gptq_layer()[0], MalformedFileError, "group_size"),
        (GPTQ | {"group_size": 48}, gptq_layer()[0], MalformedFileError, "a.scales"),
        (GPTQ, gptq_with(**{"a.weight": torch.ones(2, 2)}), MalformedFileError, "twice"),
        (GPTQ, gptq_with(**{"a.qzeros": torch.ones(3, 4).int()}), MalformedFileError, "a.qzeros"),
        (AWQ | {"version": "gemv"}, {}, UnsupportedModelError, "GEMM"),
        (compressed(num_bits=3), packed_layer(4, 2)[0], UnsupportedModelError, "3 bits"),
        ({"quant_method": "compressed-tensors"}, packed_layer(4, 2)[0], MalformedFileError,
         "config_groups"),
        (compressed(**INT4) | {"config_groups": {"a": {"weights": INT4}, "b": {"weights": {}}}},
         packed_layer(4, 2)[0], UnsupportedModelError, "several ways"),
        ({"quant_method": "modelopt"}, {"a.weight": torch.ones(2, 2),
                                        "a.weight_scale": torch.ones(1)},
         MalformedFileError, "has type F32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_on_opening(checkpoint, settings, tensors, error, message):
    with pytest.raises(error, match=message):
        checkpoint(settings, {**tensors, "norm.weight": torch.ones(2)})


def test_numbers_are_checked_when_they_are_read(checkpoint):
    tensors, *_ = gptq_layer(symmetric=False)
    with pytest.raises(MalformedFileError, match=r"a\.weight.*symmetric"):
        checkpoint(GPTQ, tensors).tensors["a.weight"].bytes()
    tensors, *_ = gptq_layer(groups_of=np.arange(96) % 3)
    with pytest.raises(MalformedFileError, match=r"a\.weight.*in order"):
        checkpoint(GPTQ, tensors).tensors["a.weight"].to_f32()
    tensors["a.g_idx"][5] = 3
    with pytest.raises(MalformedFileError, match=r"a\.weight.*outside the 3"):
        checkpoint(GPTQ | {"desc_act": True}, tensors).tensors["a.weight"].bytes()
    tensors, _ = packed_layer(4, 2)
    tensors["a.weight_shape"][1] -= 1
    with pytest.raises(MalformedFileError, match="not as large"):
        checkpoint(compressed(**INT4), tensors).tensors["a.weight"].bytes()
    tensors, _ = packed_layer(4, 2)
    tensors["a.weight_scale"][3, 1] = 1e30
    with pytest.raises(MalformedFileError, match=r"a\.weight.*too large"):
        checkpoint(compressed(**INT4), tensors).tensors["a.weight"].bytes()


def awq_layer():
    return {
        "a.qweight": awq_words(np.ones((64, 24), int)),
        "a.qzeros": awq_words(np.ones((2, 24), int)),
        "a.scales": torch.ones(2, 24).half(),
    }


ODD = [None, True, 0, -1, 4.0, 1 << 70, "x", [1, 0], [2, 2.0], [1 << 70] * 2, [128, 128], {"x": {}},
       {"g": {"weights": 3}}, {"g": []}]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        (FP8,
         lambda: {"a.weight": random_codes(4, 200), "a.weight_scale_inv": random_scales(1, 2)}),
        (GPTQ, lambda: gptq_layer()[0]),
        (AWQ, awq_layer),
        (compressed(**INT4), lambda: packed_layer(4, 2, zero_points=True)[0]),
        (compressed(**INT4),
         lambda: {"a.weight": random_codes(4, 128), "a.weight_scale": random_scales(4, 2)}),
        ({"quant_method": "mxfp4"},
         lambda: {"a_blocks": torch.zeros(2, 2, 16, dtype=torch.uint8),
                  "a_scales": torch.zeros(2, 2, dtype=torch.uint8)}),
    ],
)  # fmt: skip
def test_any_settings_and_parts_give_values_or_an_error_that_tells(checkpoint, settings, layer):
    """Every setting takes odd values, every part is left out, cut short or of another type."""
    cases = [(settings | {key: odd}, layer()) for key in [*settings, "more"] for odd in ODD]
    inner = settings.get("config_groups", {}).get("group_0", {}).get("weights", {})
    for key in [*inner, "block_structure"] if inner else ():
        cases += [(compressed(**inner | {key: odd}), layer()) for odd in ODD]
    for name in layer():
        whole = layer()
        part = whole.pop(name)
        cases.append((settings, whole))
        for other in (part[:1], part[..., :1], part.reshape(-1), torch.ones(part.shape).half(),
                      part[None], part[:0], torch.ones(part.shape).long()):  # fmt: skip
            cases.append((settings, whole | {name: other}))
    values = errors = 0
    for some, tensors in cases:
        try:
            opened = checkpoint(some, tensors)
            for tensor in opened.tensors.values():
                if isinstance(tensor, DerivedTensor):
                    tensor.to_f32()
                    values += 1
        except UserError as error:
            errors += bool(error.message)
    assert values
    assert errors


def test_claimed_sizes_cost_no_memory(checkpoint):
    """Tiles and groups far larger than the matrix."""
    huge = {"weight_block_size": [150, 1 << 19]}
    tensors = {"a.weight": random_codes(300, 4), "a.weight_scale_inv": torch.ones(2, 1)}
    wide = checkpoint(FP8 | huge, tensors).tensors["a.weight"]
    words, *_ = gptq_layer(size=96)
    grouped = checkpoint(GPTQ | {"group_size": 1 << 30}, words).tensors["a.weight"]
    for tensor in (wide, grouped):
        tracemalloc.start()
        tensor.bytes()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 << 20


def test_strange_scales_decode_to_what_they_are(checkpoint):
    """Infinity and NaN in a scale are no reason for a warning, let alone for another number."""
    codes, scale = random_codes(3, 4), torch.tensor([[np.inf], [np.nan], [1.0]])
    settings = {"quant_method": "fp8", "weight_block_size": [1, 4]}
    opened = checkpoint(settings, {"a.weight": codes, "a.weight_scale_inv": scale})
    values = opened.tensors["a.weight"].to_f32()
    assert not np.isfinite(values[:2]).any()
    assert np.array_equal(values[2], codes[2].float().numpy())
