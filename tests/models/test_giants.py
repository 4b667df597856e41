# SPDX-License-Identifier: Apache-2.0
"""Llama 4, Muse Glimmer and gpt-oss: logits against transformers from every way to store them, and
what the converter writes."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import tiny_giants
import tiny_models
from batching import full_logits
from budgets import limit, logits_error
from devices import best_params, open_device
from engine_invariants import assert_chunks_and_company_change_nothing
from freehold import backends
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()


@functools.cache
def transformers_model(case: str):
    return tiny_giants.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("giants")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model, place = transformers_model(case), root / f"{case}.{form}"
        if form == "hf":
            model.save_pretrained(place)
            return place
        if form == "converted":
            quantize(path(case, "hf"), place, "F32")
            return place
        return tiny_giants.write_gguf(model, case, place, form)

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("form", ["hf", "F32", "converted"])
@pytest.mark.parametrize("case", tiny_giants.CASES)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, form), ops), ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize("case", tiny_giants.CASES)
def test_converted_files_hold_what_other_readers_expect(case, model_path):
    import gguf

    reader = gguf.GGUFReader(model_path(case, "converted"))
    written = {t.name: t.data for t in reader.tensors}
    judge = gguf.GGUFReader(model_path(case, "F32"))
    expected = {t.name: t.data for t in judge.tensors}
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        exact = name != "rope_freqs.weight"  # computed, not copied
        np.testing.assert_allclose(
            written[name], array, rtol=0 if exact else 1e-6, atol=0, err_msg=name
        )
    fields = {key: field.contents() for key, field in reader.fields.items()}
    for key, field in judge.fields.items():
        if not key.startswith("GGUF."):
            assert fields[key] == pytest.approx(field.contents()), key


@pytest.mark.parametrize("case", ["llama4", "muse-glimmer", "gpt-oss"])
@pytest.mark.parametrize("device", best_params())
def test_chunks_and_company_change_nothing(device, case, model_path):
    ops = open_device(device)
    model = load(model_path(case, "F32"), ops)
    assert_chunks_and_company_change_nothing(model, ops)


# Every expert at work, so that what rounding does to a router moves a result and swaps nothing.
SHALLOW = {
    "llama4": {"num_local_experts": 1, "num_hidden_layers": 4, "moe_layers": None},
    "muse-glimmer-all-local": {},
    "gpt-oss": {"num_experts_per_tok": 6, "num_hidden_layers": 2},
}


@pytest.mark.parametrize("case", SHALLOW)
@pytest.mark.parametrize("qtype", ["Q8_0", "BF16"])
def test_quantised_files_stay_within_budget_on_cpu(case, qtype, tmp_path):
    model = tiny_giants.build(case, **SHALLOW[case])
    path = tiny_giants.write_gguf(model, case, tmp_path / "q.gguf", qtype)
    logits = {}
    for device in ("reference", "cpu"):
        ops = backends.create(device)
        logits[device] = full_logits(load(path, ops), ops, IDS)
    assert logits_error(logits["cpu"], logits["reference"]) < limit("cpu", "logits", qtype)


@pytest.mark.parametrize("case", ["llama4", "muse-glimmer", "gpt-oss"])
def test_the_null_backend_counts_upwards(case, model_path):
    ops = backends.create("null")
    logits = full_logits(load(model_path(case, "F32"), ops), ops, [5, 9])
    assert np.argmax(logits, axis=1).tolist() == [6, 10]


@pytest.fixture(scope="module")
def microscaled(tmp_path_factory):
    """gpt-oss with the values its blocks stand for, and the directory that holds the blocks."""
    folder = tmp_path_factory.mktemp("mxfp4") / "hf"
    return tiny_giants.save_microscaled(tiny_giants.build("gpt-oss"), folder), folder


def test_experts_in_blocks_are_the_values_they_stand_for(microscaled, tmp_path):
    model, folder = microscaled
    want = tiny_models.reference_logits(model, IDS)
    ops = backends.create("reference")
    assert logits_error(full_logits(load(folder, ops), ops, IDS), want) < 2e-5
    report = quantize(folder, tmp_path / "out.gguf", "MXFP4_MOE")
    experts = {name: kind for name, kind in report.tensors.items() if "_exps.weight" in name}
    assert len(experts) == 12
    assert set(experts.values()) == {"MXFP4"}
    # The same bits as other converters give: judged by the `gguf` package's decoder.
    import gguf

    stored = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, array in tiny_giants.gguf_tensors(model, "gpt-oss").items():
        if "_exps.weight" in name:
            data = gguf.quants.dequantize(stored[name].data, stored[name].tensor_type)
            np.testing.assert_array_equal(data, array, err_msg=name)
    # What is not an expert went through Q8_0, which may swap one for another.
    got = full_logits(load(tmp_path / "out.gguf", ops), ops, IDS)
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.97


def test_blocks_in_gguf_are_the_blocks_of_safetensors(microscaled, tmp_path):
    model, folder = microscaled
    path = tiny_giants.write_gguf(model, "gpt-oss", tmp_path / "x.gguf", expert_type="MXFP4")
    ops = backends.create("reference")
    logits = [full_logits(load(p, ops), ops, IDS) for p in (path, folder)]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("case", ["llama4", "muse-glimmer", "gpt-oss"])
def test_the_tests_tell_the_parts_apart(case, model_path):
    """Leaving out any part that only these families have would be noticed."""
    from dataclasses import replace

    ops = backends.create("reference")
    model = load(model_path(case, "F32"), ops)
    want = full_logits(model, ops, IDS)
    attentions = [layer.attention for layer in model.layers]

    def error(**changes) -> float:
        for layer, attention in zip(model.layers, attentions, strict=True):
            kept = {k: v for k, v in changes.items() if getattr(attention, k) is not None}
            object.__setattr__(layer, "attention", replace(attention, **kept))
        return logits_error(full_logits(model, ops, IDS), want)

    assert error() == 0.0
    parts = {
        "llama4": [{"late_norm": None}, {"tempered": False}, {"rotation": None}],
        "muse-glimmer": [{"gate": None}, {"q_norm": None}, {"rotation": None}],
        "gpt-oss": [{"sinks": None}, {"output_bias": None}],
    }
    for part in parts[case]:
        assert error(**part) > 0.01, part
    for change in ({"chunk": 0}, {"window": 0}):
        if any(getattr(a.spec, next(iter(change))) for a in attentions):
            for layer, attention in zip(model.layers, attentions, strict=True):
                spec = replace(attention.spec, **change)
                object.__setattr__(layer, "attention", replace(attention, spec=spec))
            assert logits_error(full_logits(model, ops, IDS), want) > 0.01, change
