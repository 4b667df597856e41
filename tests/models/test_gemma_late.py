# SPDX-License-Identifier: Apache-2.0
"""Gemma 3n and 4: logits against transformers from every way to store them, and the identities
every model must keep."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import tiny_gemma
import tiny_models
from batching import PagedRunner, full_logits
from budgets import limit, logits_error
from devices import best_params, cpu_params, open_device
from freehold import backends
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
REFERENCE = backends.create("reference")


@functools.cache
def transformers_model(case: str):
    return tiny_gemma.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("gemma")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model, place = transformers_model(case), root / f"{case}.{form}"
        if form == "hf":
            model.save_pretrained(place)
            return place
        if form == "converted":
            return quantize(path(case, "hf"), place.with_suffix(".gguf"), "F32").path
        return tiny_gemma.write_gguf(model, root / f"{case}.{form}.gguf", form)

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("form", ["hf", "F32", "converted"])
@pytest.mark.parametrize("case", tiny_gemma.CASES)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, form), ops), ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize(
    ("device", "case", "form"),
    [(p.values[0], "gemma4-small", "Q8_0") for p in cpu_params() if not p.marks]
    + [(p.values[0], case, "F32") for p in best_params() if not p.marks
       for case in ("gemma4-small", "gemma4-experts", "gemma3n", "gemma3n-three-streams")],
)  # fmt: skip
def test_chunks_and_company_change_nothing(device, case, form, model_path):
    ops = open_device(device)
    model = load(model_path(case, form), ops)
    whole = full_logits(model, ops, IDS)
    other = tiny_models.prompt(seed=1)
    runner = PagedRunner(model, ops)
    pieces = [runner.step({"b": other[:3], "a": IDS[:17]})["a"]]
    pieces.append(runner.step({"a": IDS[17:22], "b": other[3:36]})["a"])
    pieces.append(runner.step({"a": IDS[22:33]})["a"])
    pieces += [runner.step({"a": [t], "c": [other[0]], "b": [5]})["a"] for t in IDS[33:]]
    assert logits_error(np.concatenate(pieces), whole) <= limit(ops.name, "chunking")


@pytest.mark.parametrize("case", tiny_gemma.SMALL)
def test_converted_files_hold_what_published_ones_do(case, model_path):
    import gguf

    ours = gguf.GGUFReader(model_path(case, "converted"))
    theirs = gguf.GGUFReader(model_path(case, "F32"))
    written = {t.name: t.data for t in ours.tensors}
    expected = {t.name: t.data for t in theirs.tensors}
    if case == "gemma4-experts":  # we write gates and ups apart, which readers take too
        for i in range(4):
            pair = [written.pop(f"blk.{i}.ffn_{part}_exps.weight") for part in ("gate", "up")]
            written[f"blk.{i}.ffn_gate_up_exps.weight"] = np.concatenate(pair, axis=1)
    assert written.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    arch = tiny_gemma.gguf_architecture(transformers_model(case))
    for key, field in theirs.fields.items():
        if not key.startswith((f"{arch}.", "general.architecture")):
            continue
        want = np.array(field.contents())
        if key == f"{arch}.feed_forward_length" and len(set(want.tolist())) == 1:
            want = want[0]  # one number for all
        got = np.array(ours.fields[key].contents())
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=key)
        else:
            np.testing.assert_array_equal(got, want, err_msg=key)
