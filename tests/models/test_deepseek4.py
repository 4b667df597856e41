# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V4: logits against transformers from every way to store it, and the identities every
model must keep, with caches of several windows and entries made of several positions."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import gguf
import numpy as np
import pytest

import tiny_chat
import tiny_deepseek4
import tiny_models
from batching import PagedRunner, full_logits, make_batch
from budgets import limit, logits_error
from devices import best_params, open_device
from engine_invariants import (
    assert_chunks_and_company_change_nothing,
    assert_prefixes_and_preemption_change_nothing,
)
from freehold import backends
from freehold.cli.main import run
from freehold.engine.kv_cache import block_bytes
from freehold.errors import MalformedFileError, UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.config import read_config
from freehold.models.deepseek4 import DIALECT
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
CASES = list(tiny_deepseek4.CASES)


@functools.cache
def transformers_model(case: str):
    return tiny_deepseek4.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("deepseek4")

    @functools.cache
    def path(case: str, form: str = "hf") -> Path:
        if form == "gguf":
            return tiny_deepseek4.write_gguf(transformers_model(case), root / f"{case}.gguf")
        transformers_model(case).save_pretrained(root / case)
        return root / case

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


def within_budget(ops, got, want):
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, want) < limit(ops.name, "logits", kind)


# -- logits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case, device, model_path):
    ops = open_device(device)
    within_budget(ops, full_logits(load(model_path(case), ops), ops, IDS), expected_logits(case))


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("case", ["v4", "v4-sparse"])
def test_gguf_files_give_the_same(case, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, "gguf"), ops), ops, IDS)
    within_budget(ops, got, expected_logits(case))


@pytest.mark.parametrize("vendor", [False, True])
def test_names_of_the_code_and_of_the_vendor(vendor, model_path, tmp_path):
    """transformers writes the vendor's names, in part; both pure forms are read as well."""
    from safetensors.numpy import load_file, save_file

    source = model_path("v4")
    tensors = tiny_deepseek4.transformers_names(transformers_model("v4"))
    keys = json.loads((source / "config.json").read_text())
    if vendor:
        heads = {
            "hc_head.hc_": "hc_head_",
            "embed_tokens.": "embed.",
            "attn.norm.": "attn.kv_norm.",
        }
        tensors = {}
        for name, value in load_file(source / "model.safetensors").items():
            for theirs, plain in heads.items():
                name = name.replace(theirs, plain)
            tensors[name.removeprefix("model.")] = value
        tensors["mtp.0.attn.wq_a.weight"] = np.zeros((3, 5), np.float32)
        # The vendor's own keys.
        rope = keys.pop("rope_parameters")["compress"]
        theirs = ("factor", "beta_fast", "beta_slow", "original_max_position_embeddings")
        keys["rope_scaling"] = {"type": "yarn", **{name: rope[name] for name in theirs}}
        keys["num_hash_layers"] = keys.pop("mlp_layer_types").count("hash_moe")
        for name in ("partial_rotary_factor", "tie_word_embeddings", "n_shared_experts"):
            keys.pop(name)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(keys))
    ops = backends.create("reference")
    within_budget(ops, full_logits(load(tmp_path, ops), ops, IDS), expected_logits("v4"))


def test_every_part_counts(model_path):
    """The comparison above would notice if any of these were left out."""
    ops = backends.create("reference")
    model, want = load(model_path("v4"), ops), expected_logits("v4")
    hashed, sparse, heavy = (model.layers[i] for i in (0, 1, 2))
    config = model.config
    sizes = config.compressed
    changes = [
        (hashed.experts, "table", hashed.experts.table[::-1]),
        (sparse.experts, "bias", None),
        (sparse.experts, "limit", 0.0),
        (hashed.attention, "sinks", hashed.attention.sinks + 1),
        (sparse.attention, "sinks", sparse.attention.sinks + 1),
        (heavy.attention, "output_parts", heavy.attention.output_parts[::-1]),
        (heavy.attention.compressor, "bias", heavy.attention.compressor.bias * 0),
        (sparse.attention.compressor, "bias", sparse.attention.compressor.bias[::-1]),
        (sparse.attn_mixer, "rounds", 1),
        (model, "config", dataclasses.replace(
            config, compressed=dataclasses.replace(sizes, compressed_rope=config.rope))),
    ]  # fmt: skip
    for owner, name, other in changes:
        kept = getattr(owner, name)
        object.__setattr__(owner, name, other)
        assert logits_error(full_logits(model, ops, IDS), want) > 1e-3, name
        object.__setattr__(owner, name, kept)
    picky = dataclasses.replace(sparse.attention.indexer, count=1)
    object.__setattr__(sparse.attention, "indexer", picky)
    assert logits_error(full_logits(model, ops, IDS), want) > 1e-3


# -- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("case", ["v4", "v4-odd-rates", "v4-sparse"])
def test_chunks_and_company_change_nothing(case, device, model_path):
    ops = open_device(device)
    model = load(model_path(case), ops)
    # Blocks that entries fill, and blocks that they do not: the order of sums hangs on them.
    for size in (16, 5) if ops.name == "reference" else (16, 48):
        assert_chunks_and_company_change_nothing(model, ops, block_size=size)


@pytest.mark.parametrize("case", ["v4", "v4-sparse"])
def test_prefixes_and_preemption_change_nothing(case, model_path):
    ops = backends.create("cpu", threads=1)
    model = load(model_path(case), ops)
    assert_prefixes_and_preemption_change_nothing(model, ops)


@pytest.mark.parametrize("device", best_params())
def test_unwanted_rows_are_not_computed(device, model_path):
    ops = open_device(device)
    model = load(model_path("v4-sparse"), ops)
    whole = full_logits(model, ops, IDS)
    runner = PagedRunner(model, ops)
    for rows in ([], [3, 39], [39, 0], [0]):
        groups = len(runner.cache.num_blocks)
        batch = make_batch([IDS], [0], [[7, 3, 9]], 16, rows, groups)
        hidden = model.forward(batch, runner.cache, ops)
        assert hidden.shape == (len(rows), model.config.hidden_size)
        if not rows:
            continue
        got = ops.to_numpy(model.logits(hidden, ops))
        np.testing.assert_allclose(got, whole[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kv_dtype", ["f16", "bf16"])
def test_narrow_caches_lose_little(kv_dtype, model_path):
    ops = {name: backends.create(name) for name in ("reference", "cpu")}
    got = {n: full_logits(load(model_path("v4"), o), o, IDS, kv_dtype=kv_dtype)
           for n, o in ops.items()}  # fmt: skip
    error = logits_error(got["reference"], expected_logits("v4"))
    assert 1e-5 < error < (0.01 if kv_dtype == "f16" else 0.08)
    assert logits_error(got["cpu"], got["reference"]) < error


def test_what_is_cached(model_path):
    ops = backends.create("null")
    layers = load(model_path("v4"), ops).kv_layers()
    told = [(s.key_dim, s.value_dim, s.window, s.rows, s.stride) for s in layers]
    window = (32, 0, 7)
    sparse = [(*window, True, 1), (64, 64, 8, True, 1), (32, 0, 0, True, 4),
              (32, 32, 8, True, 1), (16, 0, 0, True, 4)]  # fmt: skip
    heavy = [(*window, True, 1), (32, 32, 8, True, 1), (32, 0, 0, True, 8)]
    assert told == [(*window, False, 1), *sparse, *heavy, *sparse]
    # Of what grows with the text, a quarter and an eighth of a row per position is kept.
    grows = block_bytes([s for s in layers if not s.window], 16, "f32")
    assert grows == 4 * 16 * (2 * (32 + 16) // 4 + 32 // 8)
    cache = backends.create("reference").alloc_kv(layers, 3, 16, "f32")
    assert cache.nbytes == 3 * block_bytes(layers, 16, "f32")
    assert backends.create("cpu").alloc_kv(layers, 3, 16, "f32").nbytes >= cache.nbytes


@pytest.mark.parametrize("case", CASES)
def test_the_null_backend_counts_upwards(case, model_path):
    ops = backends.create("null")
    logits = full_logits(load(model_path(case), ops), ops, [5, 9])
    assert np.argmax(logits, axis=1).tolist() == [6, 10]


# -- files ----------------------------------------------------------------------------------------


@pytest.fixture
def gguf_ready(tmp_path):
    """A model whose rates GGUF has room for."""
    rates = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}
    model = tiny_deepseek4.build("v4", compress_rates=rates, vocab_size=260, eos_token_id=259)
    model.save_pretrained(tmp_path / "hf")
    assert tiny_chat.write_hf_tokenizer(tmp_path / "hf") == 260
    return model


def test_converted_files_are_what_the_gguf_package_writes(gguf_ready, tmp_path):
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    theirs = tiny_deepseek4.write_gguf(
        gguf_ready, tmp_path / "theirs.gguf", nextn_predict_layers=None
    )
    ours, judged = (gguf.GGUFReader(path) for path in (tmp_path / "out.gguf", theirs))
    written = {t.name: t for t in ours.tensors}
    assert written.keys() == {t.name for t in judged.tensors}
    for tensor in judged.tensors:
        np.testing.assert_array_equal(written[tensor.name].data, tensor.data, err_msg=tensor.name)
    for key, field in judged.fields.items():
        if key.startswith("deepseek4."):
            want = field.contents()
            want = want[:4] if isinstance(want, list) else want  # ratios of layers we leave out
            assert ours.fields[key].contents() == (
                want if isinstance(want, str) else pytest.approx(want)
            ), key
    assert "deepseek4.rope.scaling.yarn_attn_factor" not in ours.fields
    ops = backends.create("reference")
    want = tiny_models.reference_logits(gguf_ready, IDS)
    within_budget(ops, full_logits(load(tmp_path / "out.gguf", ops), ops, IDS), want)


def test_show_quantize_and_run(gguf_ready, tmp_path, capsys):
    target = str(tmp_path / "out.gguf")
    assert run(["quantize", str(tmp_path / "hf"), target, "--type", "Q4_K_M"]) == 0
    capsys.readouterr()
    for path in (str(tmp_path / "hf"), target):
        assert run(["show", path, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["runs"], told["sizes"]["hidden_size"]) == (True, 64)
        with open_checkpoint(path) as opened:
            assert len(read_config(opened).kv_layers()) == 14
        assert run(["show", path]) == 0
        assert told["architecture"] in capsys.readouterr().out
    assert run(["run", target, "the cat", "--max-tokens", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"attention.compress_ratios": None}, MalformedFileError, "compress_ratios is missing"),
        ({"attention.compress_ratios": [0, 4]}, MalformedFileError, "a list of 4"),
        ({"attention.compress_ratios": [0, 4, 1, 4]}, MalformedFileError, "numbers from 2"),
        ({"attention.compress_rope_freq_base": None}, MalformedFileError, "freq_base is missing"),
        ({"attention.output_group_count": 3}, MalformedFileError, "a divisor of the 4 heads"),
        ({"attention.indexer.key_length": 4}, MalformedFileError, "key_length must be"),
        ({"attention.head_count_kv": 2}, MalformedFileError, "one key head"),
        ({"hyper_connection.count": 99}, MalformedFileError, "from 1 to 16"),
        ({"hyper_connection.count": 2}, MalformedFileError, "output_hc_fn"),
        ({"expert_gating_func": 3}, UnsupportedModelError, "function 3"),
        ({"swiglu_clamp_exp": [1.0, 2.0, 1.0, 1.0]}, UnsupportedModelError, "differently"),
        ({"swiglu_clamp_shexp": [2.0] * 4}, UnsupportedModelError, "differently"),
        ({"hash_layer_count": 2}, MalformedFileError, "blk.1.ffn_gate_tid2eid"),
    ],
)
def test_wrong_keys_of_gguf(changes, error, words, tmp_path):
    path = tiny_deepseek4.write_gguf(transformers_model("v4"), tmp_path / "m.gguf", **changes)
    with pytest.raises(error, match=words):
        load(path, backends.create("null"))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layer_types": ["full_attention"] * 4}, UnsupportedModelError, "layers of type"),
        ({"layer_types": ["sliding_attention"]}, MalformedFileError, "layer_types must be"),
        ({"mlp_layer_types": ["dense"] * 4}, MalformedFileError, "mlp_layer_types must be"),
        ({"compress_rates": {"compressed_sparse_attention": 1}}, MalformedFileError, "sparse_att"),
        ({"scoring_func": "tanh"}, UnsupportedModelError, "scores experts by 'tanh'"),
        ({"attention_bias": True}, UnsupportedModelError, "attention_bias"),
        ({"qk_rope_head_dim": 7}, MalformedFileError, "qk_rope_head_dim must be"),
        ({"o_groups": 3}, MalformedFileError, "o_groups must be a divisor"),
        ({"n_shared_experts": 2}, MalformedFileError, "n_shared_experts"),
        ({"sliding_window": 0}, MalformedFileError, "sliding_window must be"),
        ({"hc_mult": 0}, MalformedFileError, "hc_mult must be"),
        ({"rope_parameters": 3}, MalformedFileError, "rope_parameters must be a table"),
        ({"index_head_dim": 8}, MalformedFileError, "indexer"),
    ],
)
def test_wrong_keys_of_config_json(changes, error, words, model_path, tmp_path):
    source = model_path("v4")
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    keys = json.loads((source / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(error, match=words):
        load(tmp_path, backends.create("null"))


def test_a_table_of_experts_that_are_not_there(model_path, tmp_path):
    from safetensors.numpy import load_file, save_file

    source, name = model_path("v4"), "model.layers.0.ffn.gate.tid2eid"
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    for table, words in (
        (np.full_like(tensors[name], 6), "names experts from 6 to 6, but there are 6"),
        (tensors[name] - 7, "names experts from -7"),
        (tensors[name].astype(np.float32), "must hold whole numbers"),
        (tensors[name][1:], "has shape"),
    ):
        save_file({**tensors, name: np.ascontiguousarray(table)}, tmp_path / "model.safetensors")
        with pytest.raises(MalformedFileError, match=words):
            load(tmp_path, backends.create("null"))
    tensors["model.layers.0.mlp.gate.tid2eid"] = tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(MalformedFileError, match="are the same tensor"):
        load(tmp_path, backends.create("null"))


@pytest.mark.parametrize("case", ["v4-odd-rates", "late-table"])
def test_what_gguf_has_no_keys_for(case, model_path, tmp_path):
    if case == "v4-odd-rates":
        source = model_path("v4-odd-rates")
    else:
        kinds = ["moe", "hash_moe", "moe", "moe"]
        source = tmp_path / "hf"
        tiny_deepseek4.build("v4", mlp_layer_types=kinds).save_pretrained(source)
    with open_checkpoint(source) as opened:
        config = read_config(opened)
    with pytest.raises(UnsupportedModelError, match="GGUF has no key for"):
        DIALECT.gguf_keys(config)
