# SPDX-License-Identifier: Apache-2.0
"""`freehold show`: what it says is what the file holds, and it loads nothing to say it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import BABY_Q8, GPT2_VOCAB, PHI, STORIES, STORIES_HF, model

from freehold import quants
from freehold.backends.cpu import NATIVE_TYPES
from freehold.cli.main import run
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_writer import write_gguf
from freehold.formats.tensor_view import LazyTensor


def shown(capsys, path: str, *flags: str) -> dict:
    assert run(["show", path, "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_gguf_model(capsys):
    d = shown(capsys, model(*BABY_Q8))
    assert (d["architecture"], d["format"], d["runs"]) == ("llama", "gguf", True)
    assert d["sizes"]["context_length"] == 256
    assert (d["sizes"]["num_layers"], d["sizes"]["hidden_size"]) == (5, 128)
    assert (d["sizes"]["num_heads"], d["sizes"]["num_kv_heads"], d["sizes"]["head_dim"]) == (
        8,
        4,
        16,
    )
    assert d["tokenizer"] == {"kind": "llama", "vocab_size": 105}
    assert d["chat_template"] is None
    by_type = {group["type"]: group for group in d["types"]}
    assert set(by_type) == {"Q8_0", "F32"}
    assert sum(group["parameters"] for group in d["types"]) == d["parameters"]
    assert sum(group["bytes"] for group in d["types"]) == d["tensor_bytes"]
    # 8 bits and a 16-bit scale per 32 weights.
    assert by_type["Q8_0"]["bytes"] == by_type["Q8_0"]["parameters"] * 34 // 32


def test_the_cache_grows_with_the_context_and_shrinks_with_the_type(capsys):
    d = shown(capsys, model(*BABY_Q8), "--context", "100")["memory"]
    assert d["context"] == 100
    # keys and values: 5 layers, 4 heads of 16, 7 blocks of 16 positions
    assert d["kv_cache"]["f16"] == 2 * 5 * 4 * 16 * 112 * 2
    assert d["kv_cache"]["f32"] == 2 * d["kv_cache"]["f16"]
    assert d["kv_cache"]["q8_0"] == d["kv_cache"]["f16"] * 34 // 64
    assert d["total"]["f16"] == d["weights"] + d["kv_cache"]["f16"] + d["beside"]


def test_the_same_model_in_both_formats(capsys):
    gguf, hf = shown(capsys, model(*STORIES)), shown(capsys, model(*STORIES_HF))
    for name in ("num_layers", "hidden_size", "ffn_size", "num_heads", "num_kv_heads", "head_dim"):
        assert gguf["sizes"][name] == hf["sizes"][name]
    assert hf["rope"]["base"] == 10000.0
    assert hf["tokenizer"]["vocab_size"] == gguf["tokenizer"]["vocab_size"] == 512


def test_models_that_cannot_run_are_described_with_the_reason(capsys):
    d = shown(capsys, model("malformed", "gguf", "model_unknown_architecture.gguf"))
    assert not d["runs"]
    assert "zorkformer" in d["refusal"]
    assert d["parameters"] > 0
    assert not shown(capsys, model(*PHI))["runs"]
    vocabulary = shown(capsys, model(*GPT2_VOCAB))
    assert not vocabulary["runs"]
    assert vocabulary["tokenizer"]["vocab_size"] == 50257


def test_a_header_without_weights(capsys):
    d = shown(capsys, model("malformed", "gguf", "ok_metadata_only.gguf"))
    assert not d["runs"]
    assert d["parameters"] == 0


def test_types_that_can_be_read_but_not_run_are_told(capsys, tmp_path, monkeypatch):
    """Decoders come before kernels: a file may open and still be refused by the CPU."""
    assert set(quants.names()) == NATIVE_TYPES  # none is waiting now, so one is made to
    monkeypatch.setattr("freehold.backends.cpu.NATIVE_TYPES", NATIVE_TYPES - {"MXFP4"})
    kind = quants.get("MXFP4")
    path = tmp_path / "m.gguf"
    with open_checkpoint(model(*BABY_Q8)) as source:
        tensors = [
            t if len(t.shape) < 2 else LazyTensor(
                t.name, t.shape, kind.name,
                lambda n=t.num_elements: np.zeros(kind.nbytes(n), np.uint8),
            )
            for t in source.tensors.values()
        ]  # fmt: skip
        write_gguf(path, source.metadata, tensors, value_types=source.value_types)
    d = shown(capsys, str(path))
    assert not d["runs"]
    assert kind.name in d["refusal"]
    assert "freehold quantize" in d["refusal"]
    assert run(["run", str(path), "x"]) != 0
    assert "freehold quantize" in capsys.readouterr().err


@pytest.fixture
def hf_copy(tmp_path) -> Path:
    """A model directory that the test may add files to."""
    for file in Path(model(*STORIES_HF)).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_side_files_of_a_model_directory(hf_copy, capsys):
    (hf_copy / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n")
    (hf_copy / "chat_template.jinja").write_text("{{ messages }}\nsecond line")
    (hf_copy / "generation_config.json").write_text(
        '{"temperature": 0.6, "top_p": 0.95, "top_k": 40}'
    )
    d = shown(capsys, str(hf_copy))
    assert d["licence"] == "apache-2.0"
    assert d["licences"]["binding"] == ["apache-2.0"]
    assert d["licences"]["source"] == "metadata-claim"
    assert d["chat_template"]["source"] == "{{ messages }}\nsecond line"
    assert d["recommended_sampling"] == {"temperature": 0.6, "top_p": 0.95, "top_k": 40}
    assert run(["show", str(hf_copy)]) == 0
    out = capsys.readouterr().out
    assert d["chat_template"]["sha256"][:16] in out
    assert "apache-2.0" in out
    assert "temperature 0.6" in out


def test_a_recommendation_that_is_nonsense_does_not_stop_the_description(hf_copy, capsys):
    (hf_copy / "generation_config.json").write_text('{"temperature": -3}')
    assert "temperature" in shown(capsys, str(hf_copy))["recommended_sampling"]["unusable"]


def test_greedy_models_recommend_nothing(hf_copy, capsys):
    (hf_copy / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.6}')
    assert shown(capsys, str(hf_copy))["recommended_sampling"] == {}


def test_nothing_is_loaded_to_describe_a_model():
    script = (
        "import sys\n"
        "from freehold.cli.main import run\n"
        f"run(['show', {model(*STORIES)!r}])\n"
        "heavy = {'tokenizers', 'jinja2', 'freehold.llm', 'freehold.chat.tokenizer', 'torch'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "5 layers" in done.stdout
