# SPDX-License-Identifier: Apache-2.0
"""Logits of tiny random models against transformers, and the identities every model must keep."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from batching import PagedRunner, full_logits, make_batch
from budgets import limit, logits_error
from devices import all_params, best_params, open_device
from engine_invariants import assert_chunks_and_company_change_nothing
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model

IDS = tiny_models.prompt()


@functools.cache
def transformers_model(case: str):
    return tiny_models.build(tiny_models.CASES[case])


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, format) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model = transformers_model(case)
        if form == "hf":
            model.save_pretrained(root / case)
            return root / case
        return tiny_models.write_gguf(model, root / f"{case}.{form}.gguf", form)

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("form", ["hf", "F32"])
@pytest.mark.parametrize("case", tiny_models.CASES)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    model = load(model_path(case, form), ops)
    got = full_logits(model, ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize("case", ["llama-gqa", "mistral-window", "qwen3", "gemma2", "gemma3"])
@pytest.mark.parametrize("device", all_params())
def test_chunks_and_company_change_nothing(device, case, model_path):
    ops = open_device(device)
    model = load(model_path(case, "F32"), ops)
    assert_chunks_and_company_change_nothing(model, ops)


@pytest.mark.parametrize("kv_dtype", ["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("device", all_params())
def test_cache_types_stay_within_budget(device, kv_dtype, model_path):
    ops = open_device(device)
    model = load(model_path("qwen3", "F32"), ops)  # heads of 32, the least q8_0 takes
    exact = full_logits(model, ops, IDS)
    error = logits_error(full_logits(model, ops, IDS, kv_dtype=kv_dtype), exact)
    # A cache that silently kept float32 would be exact.
    assert 1e-6 < error < limit(ops.name, "kv_logits", kv_dtype)


def test_unwanted_rows_are_not_computed(model_path):
    ops = open_device(("reference", {}))
    model = load(model_path("llama-gqa", "F32"), ops)
    whole = full_logits(model, ops, IDS)
    runner = PagedRunner(model, ops)
    for rows in ([], [3, 39], [39, 0], [0]):
        batch = make_batch([IDS], [0], [[7, 3, 9]], 16, rows)
        hidden = model.forward(batch, runner.cache, ops)
        assert hidden.shape == (len(rows), model.config.hidden_size)
        got = ops.to_numpy(model.logits(hidden, ops))
        np.testing.assert_allclose(got, whole[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "qtype", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q6_K", "IQ4_XS"]
)
@pytest.mark.parametrize("device", all_params())
def test_quantised_files(device, qtype, model_path):
    """The reference decodes exactly what the `gguf` package decodes; devices stay in budget."""
    import torch

    case = "llama-wide" if "_K" in qtype or qtype == "IQ4_XS" else "llama-gqa"
    path = model_path(case, qtype)
    judge = tiny_models.build(tiny_models.CASES[case])
    with torch.no_grad():
        for parameter in judge.parameters():
            if parameter.ndim == 2:
                parameter.copy_(_through(parameter, qtype))
    want = tiny_models.reference_logits(judge, IDS)
    ops = open_device(device)
    got = full_logits(load(path, ops), ops, IDS)
    kind = qtype if ops.name == "cpu" else ""
    assert logits_error(got, want) < limit(ops.name, "logits", kind)


def _through(parameter, qtype):
    """A matrix after encoding and decoding. Rows are encoded alone, so order does not matter."""
    import gguf
    import torch

    kind = gguf.GGMLQuantizationType[qtype]
    data = tiny_models.encoded(parameter.numpy(), qtype)
    return torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(parameter.shape).copy())
