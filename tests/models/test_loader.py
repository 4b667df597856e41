# SPDX-License-Identifier: Apache-2.0
"""From file to model: which tensors must be there, and what is refused before loading."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny_models
from batching import PagedRunner, full_logits, make_batch
from freehold import backends, models
from freehold.errors import (
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
    UserError,
)
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import families, load_model, read_config
from shared_data import SHARED_DATA, shared_path

REFERENCE = backends.create("reference")


@pytest.fixture(scope="module")
def model():
    return tiny_models.build(tiny_models.CASES["llama-gqa"])


@pytest.fixture
def hf(model, tmp_path):
    """A fresh Hugging Face directory, and a function that rewrites its tensors."""
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rewrite(directory, change):
    """Apply `change` to the dictionary of tensors on disk."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    save_file(change(tensors), file)
    return directory


def without(name):
    return lambda tensors: {n: t for n, t in tensors.items() if n != name}


def set_config(directory, **changes):
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return directory


def load(path, ops=REFERENCE, **more):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops, **more)


def test_progress_counts_every_byte(hf):
    seen = []
    model = load(hf, progress=lambda done, total: seen.append((done, total)))
    file_bytes = sum(t.nbytes for t in load_file(hf / "model.safetensors").values())
    assert [total for _, total in seen] == [file_bytes] * len(seen)
    done = [d for d, _ in seen]
    assert done == sorted(set(done))
    assert done[-1] == file_bytes
    # The reference keeps matrices in float64 and vectors in float32.
    vectors = 7 * 64 * 4
    assert model.weight_bytes() == 2 * (file_bytes - vectors) + vectors


def test_a_missing_tensor_is_named(hf):
    rewrite(hf, without("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(MalformedFileError, match=r"blk\.1\.ffn_up\.weight is missing"):
        load(hf)


@pytest.mark.parametrize(
    ("case", "hf_part", "part"),
    [
        ("qwen2", "k_proj.bias", "attn_k.bias"),
        ("qwen3", "q_norm.weight", "attn_q_norm.weight"),
    ],
)
def test_what_a_family_always_has_is_required(tmp_path, case, hf_part, part):
    tiny_models.build(tiny_models.CASES[case]).save_pretrained(tmp_path)
    rewrite(tmp_path, without(f"model.layers.2.self_attn.{hf_part}"))
    with pytest.raises(MalformedFileError, match=f"blk.2.{part} is missing"):
        load(tmp_path)


def test_a_wrong_shape_is_named_with_both_shapes(hf):
    name = "model.layers.2.mlp.down_proj.weight"
    rewrite(hf, lambda t: {**t, name: np.ascontiguousarray(t[name].T)})
    with pytest.raises(MalformedFileError, match=r"layers\.2.+\[96, 64\].+\[64, 96\]"):
        load(hf)


def test_a_tensor_without_a_place_is_not_ignored(hf):
    rewrite(hf, lambda t: {**t, "model.layers.0.mystery.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UnsupportedModelError, match="mystery"):
        load(hf)


def test_a_layer_beyond_the_count_is_not_ignored(hf):
    with pytest.raises(UnsupportedModelError, match=r"layers\.2\."):
        load(set_config(hf, num_hidden_layers=2))


def test_leftover_buffers_and_tied_copies_are_ignored(hf, model):
    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
        return tensors

    ids = tiny_models.prompt()
    untied = full_logits(load(rewrite(hf, change)), REFERENCE, ids)
    tied = full_logits(load(set_config(hf, tie_word_embeddings=True)), REFERENCE, ids)
    table = model.get_input_embeddings().weight.detach().numpy()
    head = model.lm_head.weight.detach().numpy()
    hidden = np.linalg.lstsq(head, untied.T, rcond=None)[0]
    np.testing.assert_allclose(tied, (table @ hidden).T, atol=1e-3)


def test_nothing_is_loaded_when_the_last_tensor_is_wrong(hf):
    class Watchful(type(REFERENCE)):
        def load_weight(self, tensor):
            raise AssertionError(f"{tensor.name} was loaded")

    rewrite(hf, without("lm_head.weight"))
    with pytest.raises(MalformedFileError, match=r"output\.weight is missing"):
        load(hf, Watchful())


def test_matrices_of_integers_are_refused(hf):
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(hf, lambda t: {**t, name: t[name].astype(np.int32)})
    with pytest.raises(UnsupportedModelError, match="I32"):
        load(hf)


def test_half_precision_norms_and_biases_are_decoded(tmp_path):
    judge = tiny_models.build(tiny_models.CASES["qwen2"])
    for parameter in judge.parameters():  # not `.bfloat16()`: that rounds the rope table too
        parameter.data = parameter.data.bfloat16().float()
    copy.deepcopy(judge).bfloat16().save_pretrained(tmp_path / "bf16")
    ids = tiny_models.prompt()
    got = full_logits(load(tmp_path / "bf16"), REFERENCE, ids)
    want = tiny_models.reference_logits(judge, ids)
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize(
    ("inner", "outer"),
    [("language_model.model.", "language_model."), ("model.language_model.", "")],
)
def test_the_language_model_inside_a_multimodal_one(tmp_path, inner, outer):
    model = tiny_models.build(tiny_models.CASES["mistral-nemo"])
    model.save_pretrained(tmp_path)
    ids = tiny_models.prompt()

    def wrap(tensors):
        wrapped = {
            inner + n.removeprefix("model.") if n.startswith("model.") else outer + n: t
            for n, t in tensors.items()
        }
        vision = {"vision_tower.patch.weight": np.zeros((2, 2), np.float32)}
        return wrapped | vision

    rewrite(tmp_path, wrap)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mistral3", "text_config": config})
    )
    got = full_logits(load(tmp_path), REFERENCE, ids)
    np.testing.assert_allclose(got, tiny_models.reference_logits(model, ids), atol=2e-4)


def test_each_family_file_is_a_family():
    files = {path.stem for path in Path(models.__path__[0]).glob("[a-z]*.py")}
    shared = {"adapted_ops", "adapters", "base", "blocks", "config", "loader", "names", "rope"}
    assert files - shared == set(families())
    assert {"llama", "mixtral", "qwen2", "qwen2moe", "qwen3", "qwen3moe"} <= set(families())


def test_config_needs_no_weights():
    with open_checkpoint(shared_path("malformed", "gguf", "ok_metadata_only.gguf")) as checkpoint:
        assert read_config(checkpoint).vocab_size == len(
            checkpoint.metadata["tokenizer.ggml.tokens"]
        )
        with pytest.raises(ModelNotFoundError, match="no weights"):
            load_model(checkpoint, REFERENCE)


def test_the_null_backend_counts_upwards(hf):
    ops = backends.create("null")
    model = load(hf, ops)
    runner = PagedRunner(model, ops)
    logits = runner.step({"a": [5, 9], "b": [tiny_models.VOCAB - 1]})
    assert np.argmax(logits["a"], axis=1).tolist() == [6, 10]
    assert np.argmax(logits["b"], axis=1).tolist() == [0]


def test_op_calls_per_layer_do_not_grow_with_tokens(hf):
    """Ten calls a layer, whatever the batch: the interpreter's share of a step stays fixed."""

    class Counting(type(backends.create("null"))):  # its ops call no others
        calls = 0

        def __getattribute__(self, name):
            if not name.startswith("_") and callable(getattr(type(self), name, None)):
                Counting.calls += 1
            return super().__getattribute__(name)

    ops = Counting()
    model = load(hf, ops)
    runner = PagedRunner(model, ops)
    counts = []
    for ids in ([3], [3] * 50):
        batch = make_batch([ids], [0], [[0, 1, 2, 3]], 16)
        before = Counting.calls
        model.forward(batch, runner.cache, ops)
        counts.append(Counting.calls - before)
    assert counts == [3 + 10 * 3] * 2


# -- the conformance files ----------------------------------------------------------------------

_CASES_FILE = SHARED_DATA / "malformed" / "gguf" / "cases.json"
CASES = json.loads(_CASES_FILE.read_text()) if _CASES_FILE.exists() else []
# What the tokenizer must refuse; token ids in, logits out needs none.
_TOKENIZER_ONLY = {"model_tokenizer_unknown.gguf"}


@pytest.mark.skipif(not CASES, reason="conformance data is not here: ../shared/data/malformed")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["file"])
def test_malformed_files(case):
    path = shared_path("malformed", "gguf", case["file"])
    if case["expect"] == "reject" and case["file"] not in _TOKENIZER_ONLY:
        with pytest.raises(UserError) as caught:
            load(path)
        assert case["file"] in str(caught.value)
    elif case["expect"].startswith("accept") and case["expect"] != "accept-metadata":
        logits = full_logits(load(path), REFERENCE, [1, 2, 3])
        # NaN weights load, run without a warning, and show: whoever samples must look.
        assert np.isfinite(logits).all() == (case["file"] != "model_nan_weights.gguf")


def test_an_unsupported_real_checkpoint(tmp_path):
    source = shared_path("weights", "random", "phi-tiny-random.safetensors")
    shutil.copy(source, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi"}))
    with pytest.raises(UnsupportedModelError, match="'phi'"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="model_type is missing"):
        load(tmp_path / "model.safetensors")
