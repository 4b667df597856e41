# SPDX-License-Identifier: Apache-2.0
"""Files kept outside the repository: malformed ones with verdicts, and real weights."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint

DATA = Path(__file__).parents[2].parent / "shared" / "data"
MALFORMED = DATA / "malformed"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="conformance data is not here")


def _cases() -> list[tuple[str, str]]:
    found = []
    for kind in ("gguf", "safetensors"):
        index = MALFORMED / kind / "cases.json"
        if index.is_file():
            found += [(f"{kind}/{c['file']}", c["expect"]) for c in json.loads(index.read_text())]
    return found or [("", "skip")]


@needs_data
@pytest.mark.parametrize(("name", "expect"), _cases())
def test_verdict(name, expect):
    if expect == "skip":
        pytest.skip("no malformed files in the conformance data")
    path = MALFORMED / name
    began = time.process_time()
    # A model_* file is sound as a file; what it lacks is for the model loader to notice.
    if expect.startswith("accept") or "/model_" in name:
        with open_checkpoint(path) as checkpoint:
            for tensor in checkpoint.tensors.values():
                assert tensor.to_f32().shape == tensor.shape
    elif expect == "reject":
        with pytest.raises((MalformedFileError, UnsupportedModelError)) as caught:
            open_checkpoint(path)
        assert path.name in caught.value.message
    else:  # either is right, but nothing else
        try:
            with open_checkpoint(path) as checkpoint:
                json.dumps(list(checkpoint.metadata))
        except MalformedFileError:
            pass
    assert time.process_time() - began < 0.5


@needs_data
@pytest.mark.parametrize(
    "name",
    [
        "stories260K/stories260K.gguf",
        "babyllama105/babyllama105-f16.gguf",
        "babyllama105/babyllama105-q8_0.gguf",
        "babyllama105/babyllama105-q4_0.gguf",
    ],
)
def test_real_gguf_equals_the_reference_reader(name):
    gguf = pytest.importorskip("gguf")
    path = DATA / "weights" / name
    reference = gguf.GGUFReader(path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.architecture == "llama"
        assert list(checkpoint.tensors) == [tensor.name for tensor in reference.tensors]
        for tensor in reference.tensors:
            view = checkpoint.tensors[tensor.name]
            assert view.qtype == tensor.tensor_type.name
            assert list(view.shape) == list(reversed(tensor.shape.tolist()))
            assert view.offset == tensor.data_offset
            assert np.array_equal(view.bytes(), tensor.data.reshape(-1).view(np.uint8))
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert np.array_equal(view.to_f32(), expected.reshape(view.shape))
        _compare_metadata(checkpoint.metadata, reference)


def _compare_metadata(metadata, reference):
    fields = {k: v for k, v in reference.fields.items() if not k.startswith("GGUF.")}
    assert list(metadata) == list(fields)
    for key, field in fields.items():
        value, expected = metadata[key], field.contents()
        if isinstance(expected, list):
            assert value.tolist() == expected
        else:
            assert value == expected
            assert type(value) is type(expected)


@needs_data
@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "deepseek-coder"])
def test_real_vocabulary_equals_the_reference_reader(name):
    gguf = pytest.importorskip("gguf")
    (path,) = (DATA / "tokenizers" / name).glob("*.gguf")
    with open_checkpoint(path) as checkpoint:
        assert not checkpoint.tensors
        _compare_metadata(checkpoint.metadata, gguf.GGUFReader(path))


@needs_data
@pytest.mark.parametrize("name", ["stories260K/hf", "babyllama105/hf"])
def test_real_safetensors_equals_the_reference_reader(name):
    reference = pytest.importorskip("safetensors.numpy")
    directory = DATA / "weights" / name
    expected = reference.load_file(directory / "model.safetensors")
    with open_checkpoint(directory) as checkpoint:
        assert checkpoint.architecture == "llama"
        assert checkpoint.metadata == json.loads((directory / "config.json").read_text())
        assert checkpoint.tensors.keys() == expected.keys()
        for key, array in expected.items():
            assert checkpoint.tensors[key].shape == array.shape
            assert np.array_equal(checkpoint.tensors[key].to_f32(), array.astype(np.float32))
        assert checkpoint.nbytes == sum(array.nbytes for array in expected.values())
