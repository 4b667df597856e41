# SPDX-License-Identifier: Apache-2.0
"""Models whole, from quantised safetensors and from the rarer GGUF types: the logits are those of
the weights the codes stand for.
"""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_models
from batching import full_logits
from budgets import limit, logits_error
from devices import best_params, cpu_params, open_device
from freehold.errors import InvalidParameterError
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
_PROJECTION = "_proj.weight"


def fp8(name: str, weight: torch.Tensor):
    """Tensors and what they stand for. Scales are powers of two, so that nothing is rounded."""
    rows, columns = (-(-size // 128) for size in weight.shape)
    scale = torch.empty(rows, columns)
    tiled = weight.clone()
    for i in range(rows):
        for j in range(columns):
            tile = tiled[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)]
            scale[i, j] = 2.0 ** torch.ceil(torch.log2(tile.abs().max() / 448))
            tile /= scale[i, j]
    codes = tiled.to(torch.float8_e4m3fn)
    wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)
    values = codes.float() * wide[: weight.shape[0], : weight.shape[1]]
    return {name: codes, name + "_scale_inv": scale}, values


def gptq(name: str, weight: torch.Tensor):
    """Symmetric, in groups of 64."""
    stem = name.removesuffix(".weight")
    n, width = weight.shape
    grouped = weight.reshape(n, -1, 64)
    scale = (grouped.abs().amax(-1) / 8).half()
    q = (grouped / scale.float()[..., None]).round().clamp(-8, 7) + 8
    values = ((q - 8) * scale.float()[..., None]).reshape(n, width)
    eights = q.reshape(n, -1, 8).long()
    words = (eights << (4 * torch.arange(8))).sum(-1)  # [n, width / 8]
    zeros = torch.full((width // 64, n // 8), 0x77777777)
    return {
        f"{stem}.qweight": words.T.to(torch.uint32).view(torch.int32).contiguous(),
        f"{stem}.qzeros": zeros.int(),
        f"{stem}.scales": scale.T.contiguous(),
        f"{stem}.g_idx": torch.arange(width).int() // 64,
    }, values


SETTINGS = {
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True, "desc_act": False},
}


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """Method → (the model with the values the codes stand for, the directory with the codes)."""
    made = {}

    def get(method: str):
        if method not in made:
            model = tiny_models.build(tiny_models.CASES["llama-wide"])
            folder = tmp_path_factory.mktemp(method)
            model.save_pretrained(folder)
            stored = {}
            for name, weight in load_file(folder / "model.safetensors").items():
                stored[name] = weight
                if name.endswith(_PROJECTION):
                    parts, values = {"fp8": fp8, "gptq": gptq}[method](name, weight)
                    del stored[name]
                    stored |= parts
                    with torch.no_grad():
                        model.get_parameter(name).copy_(values)
            save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
            config = json.loads((folder / "config.json").read_text())
            config["quantization_config"] = SETTINGS[method]
            (folder / "config.json").write_text(json.dumps(config))
            made[method] = model, folder
        return made[method]

    return get


def logits_of(path: Path, ops) -> np.ndarray:
    with open_checkpoint(path) as checkpoint:
        return full_logits(load_model(checkpoint, ops), ops, IDS)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize(("method", "qtype"), [("fp8", "BF16"), ("gptq", "Q4_0")])
def test_logits_are_those_of_the_decoded_weights(method, qtype, device, quantised):
    model, folder = quantised(method)
    ops = open_device(device)
    kind = "" if ops.name == "reference" else qtype
    expected = tiny_models.reference_logits(model, IDS)
    assert logits_error(logits_of(folder, ops), expected) <= limit(ops.name, "logits", kind)


def test_converted_to_gguf_they_keep_their_bits(quantised, tmp_path):
    """The blocks of a GPTQ file are Q4_0 blocks, so that Q4_0 loses nothing more."""
    _, folder = quantised("gptq")
    with open_checkpoint(folder) as before:
        name = "model.layers.0.mlp.down_proj.weight"
        blocks = before.tensors[name].bytes()
    with pytest.raises(InvalidParameterError, match="quantised already"):
        quantize(folder, tmp_path / "no.gguf", "Q8_0")
    quantize(folder, tmp_path / "out.gguf", "Q4_0", allow_requantize=True)
    with open_checkpoint(tmp_path / "out.gguf") as after:
        assert np.array_equal(after.tensors["blk.0.ffn_down.weight"].bytes(), blocks)


def test_fp8_may_be_quantised_further(quantised, tmp_path):
    _, folder = quantised("fp8")
    report = quantize(folder, tmp_path / "out.gguf", "Q8_0")
    assert report.types["Q8_0"] == 16


@pytest.mark.parametrize(
    ("case", "qtype"), [("llama-gqa", "MXFP4"), ("llama-wide", "TQ2_0"), ("llama-wide", "TQ1_0")]
)
def test_types_of_few_levels_run_and_convert(case, qtype, tmp_path):
    """The judge's matrices go through our encoder and the `gguf` package's decoder."""
    model = tiny_models.build(tiny_models.CASES[case])
    path = tiny_models.write_gguf(model, tmp_path / "in.gguf", qtype)
    kind = gguf.GGMLQuantizationType[qtype]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                data = tiny_models.encoded(parameter.numpy(), qtype)
                decoded = gguf.quants.dequantize(data, kind).reshape(parameter.shape)
                parameter.copy_(torch.from_numpy(decoded))
    expected = tiny_models.reference_logits(model, IDS)
    ops = open_device(("reference", {}))
    assert logits_error(logits_of(path, ops), expected) <= limit("reference", "logits")
    quantize(path, tmp_path / "out.gguf", "F32", allow_requantize=True)
    converted = logits_of(tmp_path / "out.gguf", ops)
    assert logits_error(converted, expected) <= limit("reference", "logits")
    for device in cpu_params():
        fast = open_device(device.values[0])
        assert logits_error(logits_of(path, fast), expected) <= limit("cpu", "logits", qtype)


RANDOM = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "NVFP4")


@pytest.mark.parametrize("qtype", RANDOM)
@pytest.mark.parametrize("device", cpu_params())
def test_types_that_nobody_here_encodes(qtype, device, tmp_path):
    """Random blocks; the reference, which decodes as the `gguf` package does, is the judge."""
    model = tiny_models.build(tiny_models.CASES["llama-wide"])
    path = tiny_models.write_gguf(model, tmp_path / "in.gguf", qtype)
    expected = logits_of(path, open_device(("reference", {})))
    got = logits_of(path, open_device(device))
    assert logits_error(got, expected) <= limit("cpu", "logits", qtype)
