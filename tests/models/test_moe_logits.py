# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts: logits against transformers from every way to store them, and the
identities every model must keep."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny_models
import tiny_moe
from batching import PagedRunner, full_logits
from budgets import limit, logits_error
from devices import best_params, cpu_params, open_device
from engine_invariants import assert_chunks_and_company_change_nothing
from freehold import backends
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
# One matrix per expert, all gates above all ups, GGUF's one tensor a layer, and one each.
FORMS = ["hf", "hf-merged", "F32", "F32-one-by-one"]
SMALL = [name for name in tiny_moe.CASES if name != "mixtral-wide"]


@functools.cache
def transformers_model(case: str):
    return tiny_moe.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("moe")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model, place = transformers_model(case), root / f"{case}.{form}"
        if form.startswith("hf"):
            model.save_pretrained(place, save_original_format=form == "hf")
            names = load_file(place / "model.safetensors").keys()
            merged = [name for name in names if name.endswith("experts.gate_up_proj")]
            assert bool(merged) == (form == "hf-merged")
            return place
        qtype, _, rest = form.partition("-")
        place = root / f"{case}.{form}.gguf"
        return tiny_moe.write_gguf(model, place, qtype, one_by_one=bool(rest))

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", tiny_moe.CASES)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, form), ops), ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize("case", SMALL)
def test_both_layouts_of_a_format_are_the_same_numbers(case, model_path):
    ops = open_device(best_params()[-1].values[0])
    for one, other in (("hf", "hf-merged"), ("F32", "F32-one-by-one")):
        logits = [full_logits(load(model_path(case, f), ops), ops, IDS) for f in (one, other)]
        np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("case", SMALL)
def test_the_tests_tell_experts_apart(case, model_path):
    """A model that let any one expert answer for another would be far off."""
    model = load(model_path(case, "F32"), ops := backends.create("reference"))
    want = full_logits(model, ops, IDS)
    swapped = False
    for layer in model.layers:
        if hasattr(layer.ffn, "experts"):
            object.__setattr__(layer.ffn, "experts", layer.ffn.experts[::-1])
            swapped = True
    assert swapped
    assert logits_error(full_logits(model, ops, IDS), want) > 0.05


@pytest.mark.parametrize(
    ("device", "case", "form"),
    [(p.values[0], "mixtral", "Q8_0") for p in cpu_params() if not p.marks]
    + [(p.values[0], case, "F32") for p in best_params() if not p.marks
       for case in ("mixtral", "qwen2moe-normalised", "qwen3moe")],
)  # fmt: skip
def test_chunks_and_company_change_nothing(device, case, form, model_path):
    ops = open_device(device)
    model = load(model_path(case, form), ops)
    assert_chunks_and_company_change_nothing(model, ops)


@pytest.mark.parametrize("form", ["Q8_0", "BF16", "Q4_K", "Q8_0-one-by-one"])
@pytest.mark.parametrize("device", best_params())
def test_quantised_files(device, form, model_path):
    qtype = form.partition("-")[0]
    judge = tiny_moe.through(tiny_moe.build("mixtral-wide"), qtype)
    want = tiny_models.reference_logits(judge, IDS)
    ops = open_device(device)
    got = full_logits(load(model_path("mixtral-wide", form), ops), ops, IDS)
    kind = qtype if ops.name == "cpu" else ""
    assert logits_error(got, want) < limit(ops.name, "logits", kind)


def test_experts_of_different_types(tmp_path):
    """Old files have one tensor, hence one type, per expert."""
    model, ops = tiny_moe.build("mixtral"), backends.create("reference")
    path = tiny_moe.write_gguf(model, tmp_path / "m.gguf", one_by_one=True, **{"2": "F16"})
    got = full_logits(load(path, ops), ops, IDS)
    error = logits_error(got, tiny_models.reference_logits(model, IDS))
    assert 1e-6 < error < 2e-3  # expert 2 is off by half precision, and no more


@pytest.mark.parametrize("form", ["hf", "hf-merged"])
@pytest.mark.parametrize("case", SMALL)
def test_converted_files_compute_what_the_original_does(case, form, model_path, tmp_path):
    import gguf

    model, ops = transformers_model(case), backends.create("reference")
    quantize(model_path(case, form), tmp_path / "out.gguf", "F32")
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    written = {t.name: t.data for t in reader.tensors}
    expected = tiny_moe.gguf_tensors(model)
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    judged = gguf.GGUFReader(model_path(case, "F32")).fields
    for key, field in judged.items():
        if "expert" in key or key == "general.architecture":
            assert fields[key] == field.contents(), key
    got = full_logits(load(tmp_path / "out.gguf", ops), ops, IDS)
    assert logits_error(got, expected_logits(case)) < 2e-5


def test_mixes_know_experts(model_path, tmp_path):
    """Routers stay exact, experts get the mix's type, and the file runs."""
    report = quantize(model_path("mixtral-wide", "hf"), tmp_path / "q.gguf", "Q4_K_M")
    assert report.tensors["blk.0.ffn_gate_inp.weight"] == "F32"
    assert report.tensors["blk.0.ffn_gate_exps.weight"] == "Q4_K"
    ops = backends.create("reference")
    got = full_logits(load(tmp_path / "q.gguf", ops), ops, IDS)
    want = expected_logits("mixtral-wide")
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.95


def test_the_null_backend_counts_upwards(model_path):
    ops = backends.create("null")
    runner = PagedRunner(load(model_path("qwen2moe", "F32"), ops), ops)
    logits = runner.step({"a": [5, 9], "b": [tiny_models.VOCAB - 1]})
    assert np.argmax(logits["a"], axis=1).tolist() == [6, 10]
    assert np.argmax(logits["b"], axis=1).tolist() == [0]
