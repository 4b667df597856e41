# SPDX-License-Identifier: Apache-2.0
"""Ministral 3, SmolLM3, OLMo 2 and 3, Granite, Apertus and GPT-NeoX: logits against transformers
from every way to store them, the identities every model must keep, and files through the commands.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import gguf
import numpy as np
import pytest

import tiny_chat
import tiny_dense
import tiny_models
from batching import PagedRunner, full_logits
from budgets import limit, logits_error
from devices import best_params, open_device
from engine_invariants import (
    assert_chunks_and_company_change_nothing,
    assert_prefixes_and_preemption_change_nothing,
)
from freehold import backends
from freehold.cli.main import run
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
GGUF_CASES = [name for name in tiny_dense.CASES if name not in tiny_dense.SAFETENSORS_ONLY]
# One of each way a layer can be put together.
KINDS = ["mistral3", "smollm3", "olmo3", "granite", "apertus", "gptneox", "gptneox-in-turn"]


@functools.cache
def transformers_model(case: str):
    return tiny_dense.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("dense")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model = transformers_model(case)
        if form == "hf":
            model.save_pretrained(root / case)
            return root / case
        return tiny_dense.write_gguf(model, root / f"{case}.{form}.gguf", form)

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize(
    ("case", "form"),
    [(case, "hf") for case in tiny_dense.CASES] + [(case, "F32") for case in GGUF_CASES],
)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, form), ops), ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize("case", GGUF_CASES)
def test_converted_files_are_what_the_gguf_package_writes(case, model_path, tmp_path):
    """The same tensors under the same names, and every key that other readers ask for."""
    ops = backends.create("reference")
    quantize(model_path(case, "hf"), tmp_path / "out.gguf", "F32")
    ours, theirs = (gguf.GGUFReader(p) for p in (tmp_path / "out.gguf", model_path(case, "F32")))
    written = {t.name: t.data for t in ours.tensors}
    judged = {t.name: t.data for t in theirs.tensors}
    assert written.keys() == judged.keys()
    for name, array in judged.items():
        np.testing.assert_allclose(written[name], array, rtol=1e-6, atol=0, err_msg=name)
    fields = {key: field.contents() for key, field in ours.fields.items()}
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            want = field.contents()
            assert fields[key] == (want if isinstance(want, str) else pytest.approx(want)), key
    got = full_logits(load(tmp_path / "out.gguf", ops), ops, IDS)
    assert logits_error(got, expected_logits(case)) < limit("reference", "logits")


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("device", best_params())
def test_chunks_and_company_change_nothing(device, case, model_path):
    ops = open_device(device)
    model = load(model_path(case, "F32"), ops)
    assert_chunks_and_company_change_nothing(model, ops)


@pytest.mark.parametrize("case", ["mistral3", "olmo3", "apertus", "gptneox"])
def test_prefixes_and_preemption_change_nothing(case, model_path):
    ops = backends.create("cpu", threads=1)
    model = load(model_path(case, "F32"), ops)
    assert_prefixes_and_preemption_change_nothing(model, ops)


@pytest.mark.parametrize("qtype", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("case", KINDS)
def test_quantised_files_stay_within_budget_on_cpu(case, qtype, model_path):
    path, logits = model_path(case, qtype), {}
    for name in ("reference", "cpu"):
        ops = backends.create(name)
        logits[name] = full_logits(load(path, ops), ops, IDS)
    error = logits_error(logits["cpu"], logits["reference"])
    assert 1e-5 < error < limit("cpu", "logits", qtype)


@pytest.mark.parametrize("case", ["olmo2", "gptneox"])
def test_unwanted_rows_are_not_computed(case, model_path):
    from batching import make_batch

    ops = backends.create("reference")
    model = load(model_path(case, "F32"), ops)
    whole = full_logits(model, ops, IDS)
    runner = PagedRunner(model, ops)
    for rows in ([], [3, 39], [39, 0], [0]):
        batch = make_batch([IDS], [0], [[7, 3, 9]], 16, rows)
        hidden = model.forward(batch, runner.cache, ops)
        assert hidden.shape == (len(rows), model.config.hidden_size)
        got = ops.to_numpy(model.logits(hidden, ops))
        np.testing.assert_allclose(got, whole[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", KINDS)
def test_the_null_backend_counts_upwards(case, model_path):
    ops = backends.create("null")
    logits = full_logits(load(model_path(case, "F32"), ops), ops, [5, 9])
    assert np.argmax(logits, axis=1).tolist() == [6, 10]


@pytest.mark.parametrize(
    "case", ["mistral3", "smollm3", "olmo2", "olmo3", "granite", "apertus", "gptneox"]
)
def test_show_quantize_and_run(case, tmp_path, capsys):
    vocabulary = 260
    model = tiny_dense.build(case, vocab_size=vocabulary, eos_token_id=259)
    model.save_pretrained(tmp_path / "hf")
    assert tiny_chat.write_hf_tokenizer(tmp_path / "hf") == vocabulary
    target = str(tmp_path / "out.gguf")
    assert run(["quantize", str(tmp_path / "hf"), target, "--type", "Q8_0"]) == 0
    capsys.readouterr()
    for path in (str(tmp_path / "hf"), target):
        assert run(["show", path, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["runs"], told["sizes"]["hidden_size"]) == (True, 64)
        with open_checkpoint(path) as opened:
            assert told["architecture"] == opened.architecture
            assert read_config(opened).architecture == tiny_dense.gguf_architecture(model)
        assert run(["show", path]) == 0
        assert told["architecture"] in capsys.readouterr().out
    assert run(["run", target, "the cat", "--max-tokens", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out
