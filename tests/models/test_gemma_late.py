# SPDX-License-Identifier: Apache-2.0
"""Gemma 3n and 4: logits against transformers from every way to store them, and the identities
every model must keep."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import tiny_gemma
import tiny_models
from batching import PagedRunner, full_logits, make_batch
from budgets import limit, logits_error
from devices import best_params, cpu_params, open_device
from engine_invariants import assert_chunks_and_company_change_nothing
from freehold import backends
from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.gguf_writer import write_gguf
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
    assert_chunks_and_company_change_nothing(model, ops)


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


@pytest.mark.parametrize("case", ["gemma4-small", "gemma4-experts", "gemma3n"])
@pytest.mark.parametrize("device", best_params())
def test_only_wanted_rows_pass_the_layers_that_share_keys(case, device, model_path):
    """Whichever rows are wanted, they are those of all rows, to the last bit on the cpu."""
    ops = open_device(device)
    model = load(model_path(case, "F32"), ops)
    chunks = [IDS[:20], tiny_models.prompt(seed=1)[:9], IDS[:3]]
    tables = [[3, 1], [2], [4]]
    groups = len(PagedRunner(model, ops).cache.num_blocks)

    def hidden(rows):
        runner = PagedRunner(model, ops)  # a fresh cache
        batch = make_batch(chunks, [0, 0, 0], tables, 16, rows, num_groups=groups)
        return np.array(ops.to_numpy(model.forward(batch, runner.cache, ops)))

    whole = hidden(None)
    assert len(whole) == 32
    # The ends of all, of some, more than one of each; rows in the middle, which have to wait.
    for rows in ([19, 28, 31], [28], [18, 19, 31], [5], [0, 28], list(range(20)), []):
        got = hidden(rows)
        assert got.shape == (len(rows), 64)
        if ops.name == "cpu":
            np.testing.assert_array_equal(got, whole[rows])
        elif rows:
            np.testing.assert_allclose(got, whole[rows], rtol=1e-5, atol=1e-5)


# -- what is wrong with a file ---------------------------------------------------------------------


def changed(path: Path, target: Path, drop: str = "", **keys) -> Path:
    """A copy of a GGUF file with other keys ("__" for "."; None leaves one out)."""
    with open_checkpoint(path) as opened:
        arch = opened.architecture
        metadata = dict(opened.metadata)
        for name, value in keys.items():
            full = f"{arch}.{name.replace('__', '.')}"
            metadata.pop(full, None)
            if value is not None:
                metadata[full] = value
        tensors = [t for t in opened.tensors.values() if t.name != drop]
        write_gguf(target, metadata, tensors)
    return target


@pytest.mark.parametrize(
    ("case", "keys"),
    [
        ("gemma4-small", {"attention__sliding_window_pattern": None}),
        ("gemma4-small", {"attention__sliding_window_pattern": [True, False]}),
        ("gemma4-small", {"attention__shared_kv_layers": 8}),
        ("gemma4-small", {"attention__head_count_kv": [2, 2]}),
        ("gemma4-small", {"attention__head_count_kv": [3] * 8}),
        ("gemma4-small", {"feed_forward_length": [96] * 7 + [0]}),
        ("gemma4-small", {"attention__key_length": None}),
        ("gemma4-small", {"attention__value_length_swa": 64}),
        ("gemma4-small", {"rope__dimension_count": 32}),
        ("gemma4-small", {"rope__dimension_count_swa": 33}),
        ("gemma4-small", {"final_logit_softcapping": -1.0}),
        ("gemma4-experts", {"expert_used_count": 9}),
        ("gemma4-experts", {"expert_feed_forward_length": None}),
        ("gemma3n", {"altup__num_inputs": 1}),
        ("gemma3n", {"altup__active_idx": 4}),
        ("gemma3n", {"activation_sparsity_scale": [1.0]}),
        ("gemma3n", {"activation_sparsity_scale": [float("nan")] * 8}),
    ],
)
def test_a_bad_key_is_named(case, keys, model_path, tmp_path):
    path = changed(model_path(case, "F32"), tmp_path / "bad.gguf", **keys)
    with pytest.raises(MalformedFileError, match=next(iter(keys)).replace("__", r"\.")):
        load(path, REFERENCE)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("gemma4-small", "per_layer_token_embd.weight"),
        ("gemma4-small", "blk.4.attn_v.weight"),  # a layer may go without, but not the norms'
        ("gemma4-small", "blk.0.attn_k_norm.weight"),
        ("gemma4-experts", "blk.1.ffn_down_exps.scale"),
        ("gemma3n", "altup_proj.weight"),
        ("gemma3n", "blk.7.laurel_l.weight"),
    ],
)
def test_a_missing_tensor_is_named(case, name, model_path, tmp_path):
    path = changed(model_path(case, "F32"), tmp_path / "bad.gguf", drop=name)
    if name.endswith("attn_v.weight"):  # keys then serve as values, as in the larger models
        assert load(path, REFERENCE).config.keys_are_values == {4}
        return
    with pytest.raises(MalformedFileError, match=name.replace(".", r"\.")):
        load(path, REFERENCE)


def test_layers_must_find_keys_to_share(model_path, tmp_path):
    pattern = [True] * 5 + [False] * 3
    path = changed(
        model_path("gemma4-small", "F32"),
        tmp_path / "bad.gguf",
        attention__sliding_window_pattern=pattern,
    )
    with pytest.raises(MalformedFileError, match="layer 5 shares"):
        load(path, REFERENCE)


@pytest.mark.parametrize(
    ("case", "change", "word"),
    [
        ("gemma4-small", {"attention_bias": True}, "biases"),
        ("gemma4-small", {"use_bidirectional_attention": "all"}, "bidirectional"),
        ("gemma4-small", {"hidden_activation": "silu"}, "silu"),
        ("gemma4-small", {"per_layer_config": {"1": {"num_attention_heads": 2}}}, "every layer"),
        ("gemma3n", {"altup_correct_scale": False}, "correct_scale"),
        ("gemma3n", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "linear"),
    ],
)
def test_what_no_published_model_has_is_refused(case, change, word, model_path, tmp_path):
    folder = tmp_path / "hf"
    shutil.copytree(model_path(case, "hf"), folder)
    config = json.loads((folder / "config.json").read_text()) | change
    if "rope_scaling" in change:
        del config["rope_parameters"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match=word):
        load(folder, REFERENCE)


def test_published_spelling_of_layers_of_two_shapes(model_path, tmp_path):
    """Before transformers 5.23 the shape of layers without a window had keys of its own."""
    folder = tmp_path / "hf"
    shutil.copytree(model_path("gemma4-experts", "hf"), folder)
    config = json.loads((folder / "config.json").read_text())
    del config["per_layer_config"]
    config |= {"global_head_dim": 64, "num_global_key_value_heads": 1}
    wrapped = {"model_type": "gemma4", "text_config": config, "tie_word_embeddings": True}
    for values in (config, wrapped):
        (folder / "config.json").write_text(json.dumps(values))
        got = full_logits(load(folder, REFERENCE), REFERENCE, IDS)
        assert logits_error(got, expected_logits("gemma4-experts")) < limit("reference", "logits")


# -- quantised -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qtype", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("case", ["gemma4-small", "gemma3n-three-streams"])
def test_quantised_files_stay_within_budget_on_cpu(case, qtype, model_path):
    logits = {}
    for device in ("reference", "cpu"):
        ops = backends.create(device)
        model = load(model_path(case, qtype), ops)
        logits[ops.name] = full_logits(model, ops, IDS)
    error = logits_error(logits["cpu"], logits["reference"])
    assert 1e-5 < error < limit("cpu", "logits", qtype)


@pytest.mark.parametrize("case", ["gemma4-wide", "gemma4-experts", "gemma3n-wide"])
def test_mixes_keep_small_matrices_exact(case, model_path, tmp_path):
    report = quantize(model_path(case, "hf"), tmp_path / "q.gguf", "Q4_K_M")
    kept = ("ffn_gate_inp", "altup", "laurel", "model_proj", "norm", "scale", "rope_freqs")
    for name, qtype in report.tensors.items():
        assert (qtype == "F32") == any(part in name for part in kept), (name, qtype)
    got = full_logits(load(tmp_path / "q.gguf", REFERENCE), REFERENCE, IDS)
    assert np.corrcoef(got.ravel(), expected_logits(case).ravel())[0, 1] > 0.9


def test_the_null_backend_counts_upwards(model_path):
    ops = backends.create("null")
    for case in ("gemma4-small", "gemma4-experts", "gemma3n"):
        logits = full_logits(load(model_path(case, "F32"), ops), ops, [5, 9])
        assert np.argmax(logits, axis=1).tolist() == [6, 10]
