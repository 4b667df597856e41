# SPDX-License-Identifier: Apache-2.0
"""DeepSeek V2 to V3.2, Mistral Small 4 and DeepSeek MoE 16B: logits against transformers (the last
against code written here) from every way to store them, and the identities every model must keep.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import gguf
import numpy as np
import pytest

import tiny_chat
import tiny_deepseek_moe
import tiny_latent
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
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.quantize import quantize

IDS = tiny_models.prompt()
CASES = [name for name in tiny_latent.CASES if name != "v3-wide"]
KINDS = ["v2-lite", "v2-grouped", "v3", "mistral4", "v3.2-sparse"]


@functools.cache
def transformers_model(case: str):
    return tiny_latent.build(case)


@functools.cache
def expected_logits(case: str) -> np.ndarray:
    return tiny_models.reference_logits(transformers_model(case), IDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """(case, form) to a path; each file is written once."""
    root = tmp_path_factory.mktemp("latent")

    @functools.cache
    def path(case: str, form: str) -> Path:
        model = transformers_model(case)
        if form == "hf":
            model.save_pretrained(root / case)
            return root / case
        qtype, _, age = form.partition("-")
        return tiny_latent.write_gguf(model, root / f"{case}.{form}.gguf", qtype, old=bool(age))

    return path


def load(path: Path, ops):
    with open_checkpoint(path) as checkpoint:
        return load_model(checkpoint, ops)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("form", ["hf", "F32", "F32-old"])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_transformers(case, form, device, model_path):
    ops = open_device(device)
    got = full_logits(load(model_path(case, form), ops), ops, IDS)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, expected_logits(case)) < limit(ops.name, "logits", kind)


@pytest.mark.parametrize("case", ["v2-lite", "v3", "mistral4"])
def test_every_part_counts(case, model_path):
    """The comparison above would notice if any of these were left out."""
    import dataclasses

    ops = backends.create("reference")
    model, want = load(model_path(case, "hf"), ops), expected_logits(case)
    config = model.config
    stretch = tiny_latent.score_stretch(transformers_model(case))
    assert config.attention_scale == pytest.approx(config.head_dim**-0.5 * stretch)
    attention = model.layers[1].attention
    spec = dataclasses.replace(attention.spec, scale=config.head_dim**-0.5)
    changes = [
        (attention, "spec", spec),
        (attention, "out_of_latent", attention.out_of_latent[::-1]),
        (attention, "into_latent", attention.into_latent[::-1]),
        (attention, "interleaved", False),
        (model.layers[1].ffn, "shared", None),
    ]
    if case == "v3":
        ffn = model.layers[1].ffn
        by_one = dataclasses.replace(ffn.routing, group_score="max")
        changes += [(ffn, "bias", None), (ffn, "routing", by_one)]
    if case == "mistral4":
        changes.append((attention, "tempered", False))
    for owner, name, other in changes:
        kept = getattr(owner, name)
        object.__setattr__(owner, name, other)
        assert logits_error(full_logits(model, ops, IDS), want) > 1e-3, name
        object.__setattr__(owner, name, kept)
    assert logits_error(full_logits(model, ops, IDS), want) < limit("reference", "logits")


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("device", best_params())
def test_chunks_and_company_change_nothing(device, case, model_path):
    ops = open_device(device)
    model = load(model_path(case, "F32"), ops)
    assert_chunks_and_company_change_nothing(model, ops)


@pytest.mark.parametrize("case", ["v3", "v3.2-sparse"])
def test_prefixes_and_preemption_change_nothing(case, model_path):
    ops = backends.create("cpu", threads=1)
    model = load(model_path(case, "F32"), ops)
    assert_prefixes_and_preemption_change_nothing(model, ops)


def test_only_the_latent_is_cached(model_path):
    ops = backends.create("null")
    layers = load(model_path("v3", "F32"), ops).kv_layers()
    assert [(s.num_kv_heads, s.key_dim, s.value_dim) for s in layers] == [(1, 64, 0)] * 3
    layers = load(model_path("v3.2", "F32"), ops).kv_layers()
    assert [s.key_dim for s in layers] == [64] * 3 + [32] * 3
    assert {(s.num_kv_heads, s.value_dim) for s in layers} == {(1, 0)}


@pytest.mark.parametrize("case", ["v2-lite", "v2-grouped", "v3", "mistral4", "v3.2"])
def test_converted_files_are_what_the_gguf_package_writes(case, model_path, tmp_path):
    """The same tensors under the same names, and every key that other readers ask for."""
    ops = backends.create("reference")
    quantize(model_path(case, "hf"), tmp_path / "out.gguf", "F32")
    ours, theirs = (gguf.GGUFReader(p) for p in (tmp_path / "out.gguf", model_path(case, "F32")))
    written = {t.name: t.data for t in ours.tensors}
    judged = {t.name: t.data for t in theirs.tensors}
    assert written.keys() == judged.keys()
    for name, array in judged.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)
    fields = {key: field.contents() for key, field in ours.fields.items()}
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            want = field.contents()
            assert fields[key] == (want if isinstance(want, str) else pytest.approx(want)), key
    assert not any(key.endswith("yarn_attn_factor") for key in fields)
    got = full_logits(load(tmp_path / "out.gguf", ops), ops, IDS)
    assert logits_error(got, expected_logits(case)) < limit("reference", "logits")


@pytest.mark.parametrize("form", ["Q8_0", "Q4_0", "Q4_K", "Q8_0-old", "Q4_K-old", "BF16-old"])
def test_quantised_files_stay_within_budget_on_cpu(form, model_path):
    path, logits = model_path("v3-wide", form), {}
    for name in ("reference", "cpu"):
        ops = backends.create(name)
        logits[name] = full_logits(load(path, ops), ops, IDS)
    error = logits_error(logits["cpu"], logits["reference"])
    assert 1e-5 < error < limit("cpu", "logits", form.partition("-")[0])


def test_a_joint_matrix_in_blocks_becomes_parts_with_its_values(model_path):
    """Turned, its keys are half precision: off by 2⁻¹¹ of themselves and no more."""
    ops = backends.create("reference")
    with open_checkpoint(model_path("v3-wide", "Q4_K-old")) as opened:
        joint = opened.tensors["blk.1.attn_kv_b.weight"].to_f32().reshape(4, 128, 256)
        attention = load_model(opened, ops).layers[1].attention
    for head in range(4):
        keys, values = attention.into_latent[head], attention.out_of_latent[head]
        assert (keys.qtype, values.qtype) == ("F16", "Q4_K")
        np.testing.assert_allclose(keys.values, joint[head, :64].T, rtol=2**-10, atol=1e-7)
        np.testing.assert_array_equal(values.values, joint[head, 64:])


def test_unwanted_rows_are_not_computed(model_path):
    ops = backends.create("reference")
    model = load(model_path("v3.2-sparse", "F32"), ops)
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


def test_parts_beside_the_joint_matrix(tmp_path):
    """The first files for latent caches held both, with the sizes of a head in their keys."""
    path = tiny_latent.write_gguf(
        transformers_model("v3"), tmp_path / "m.gguf", old=True, flat=True
    )
    ops = backends.create("reference")
    got = full_logits(load(path, ops), ops, IDS)
    assert logits_error(got, expected_logits("v3")) < limit("reference", "logits")


def test_a_joint_matrix_of_another_shape_is_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    from freehold.errors import MalformedFileError

    tiny_latent.build("v3").save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.self_attn.kv_b_proj.weight"
    for rows in (tensors[name][:-1], tensors[name][: 4 * 24], tensors[name][:, :, None]):
        save_file({**tensors, name: np.ascontiguousarray(rows)}, file)
        with pytest.raises(MalformedFileError, match=r"kv_b_proj.*4 heads"):
            load(tmp_path / "hf", backends.create("null"))


def test_the_language_model_inside_a_multimodal_one(tmp_path):
    """Mistral Small 4 is published with a vision tower around it."""
    from safetensors.numpy import load_file, save_file

    tiny_latent.build("mistral4").save_pretrained(tmp_path / "hf")
    file, config = tmp_path / "hf" / "model.safetensors", tmp_path / "hf" / "config.json"
    wrapped = {f"language_model.{name}": value for name, value in load_file(file).items()}
    wrapped["vision_tower.patch_conv.weight"] = np.zeros((3, 3), np.float32)
    save_file(wrapped, file, metadata={"format": "pt"})
    inner = json.loads(config.read_text())
    config.write_text(json.dumps({"model_type": "mistral3", "text_config": inner}))
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    ops = backends.create("reference")
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        got = full_logits(load(path, ops), ops, IDS)
        assert logits_error(got, expected_logits("mistral4")) < limit("reference", "logits")


# -- layers that guess further tokens -----------------------------------------------------------


def test_layers_behind_the_last_are_left_out(tmp_path):
    from safetensors.numpy import load_file, save_file

    model = tiny_latent.build("v3")
    model.save_pretrained(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)
    for name in ("eh_proj.weight", "enorm.weight", "mlp.gate.e_score_correction_bias",
                 "self_attn.kv_b_proj.weight", "mlp.experts.7.up_proj.weight"):  # fmt: skip
        tensors[f"model.layers.3.{name}"] = np.zeros((3, 5), np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    ops = backends.create("reference")
    got = full_logits(load(tmp_path / "hf", ops), ops, IDS)
    assert logits_error(got, expected_logits("v3")) < limit("reference", "logits")


def test_gguf_may_count_them_among_its_blocks(tmp_path, model_path):
    written = gguf.GGUFReader(model_path("v3", "F32"))
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek2")
    for key, field in written.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            value = 4 if key == "deepseek2.block_count" else field.contents()
            writer.add_key_value(key, value, field.types[0])
    writer.add_uint32("deepseek2.nextn_predict_layers", 1)
    for tensor in written.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    for name in ("nextn.eh_proj.weight", "attn_kv_b.weight", "ffn_norm.weight"):
        writer.add_tensor(f"blk.3.{name}", np.zeros((2, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ops = backends.create("reference")
    got = full_logits(load(tmp_path / "m.gguf", ops), ops, IDS)
    assert logits_error(got, expected_logits("v3")) < limit("reference", "logits")


# -- small floats with a scale per tile ------------------------------------------------------------


def test_weights_in_eight_bits_with_a_scale_per_tile(tmp_path):
    """As DeepSeek publishes V3: the joint matrix is taken apart where it is decoded."""
    import torch
    from safetensors.torch import load_file, save_file

    model = tiny_latent.build("v3")
    model.save_pretrained(tmp_path / "hf")
    path, state = tmp_path / "hf" / "model.safetensors", {}
    stored = load_file(path)
    names = {name for name, _ in model.named_parameters()}
    for name, value in list(stored.items()):
        if (
            value.ndim != 2
            or name not in names
            or "embed" in name
            or "lm_head" in name
            or "mlp.gate." in name
        ):
            continue
        rows, columns = value.shape
        tiles = torch.zeros(-(-rows // 16), -(-columns // 16))
        scaled = torch.empty_like(value)
        for i in range(tiles.shape[0]):
            for j in range(tiles.shape[1]):
                part = (slice(16 * i, 16 * i + 16), slice(16 * j, 16 * j + 16))
                tiles[i, j] = value[part].abs().max() / 448
                scaled[part] = value[part] / tiles[i, j]
        stored[name] = scaled.to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = tiles
        wide = tiles.repeat_interleave(16, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
        state[name] = (stored[name].float() * wide).bfloat16().float()
    save_file(stored, path, metadata={"format": "pt"})
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    _, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    ops = backends.create("reference")
    got = full_logits(load(tmp_path / "hf", ops), ops, IDS)
    want = tiny_models.reference_logits(model, IDS)
    assert logits_error(got, want) < limit("reference", "logits")


# -- DeepSeek MoE 16B, whose code is in no library -------------------------------------------------


@pytest.mark.parametrize("device", best_params())
def test_deepseek_moe_16b(device, tmp_path):
    want = tiny_deepseek_moe.deepseek_moe(tmp_path / "hf")
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    ops = open_device(device)
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        got = full_logits(load(path, ops), ops, IDS)
        kind = "" if ops.name == "reference" else "F32"
        assert logits_error(got, want) < limit(ops.name, "logits", kind)
    keys = gguf.GGUFReader(tmp_path / "out.gguf").fields
    for key, value in {"expert_count": 6, "expert_used_count": 3, "expert_shared_count": 2,
                       "expert_feed_forward_length": 32, "leading_dense_block_count": 1,
                       "expert_weights_scale": 1.0}.items():  # fmt: skip
        assert keys[f"deepseek.{key}"].contents() == value, key


# -- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["v2-lite", "v3", "mistral4", "v3.2", "moe-16b"])
def test_show_quantize_and_run(case, tmp_path, capsys):
    vocabulary = 260
    if case == "moe-16b":
        tiny_deepseek_moe.deepseek_moe(tmp_path / "hf", vocabulary)
    else:
        model = tiny_latent.build(case, vocab_size=vocabulary, eos_token_id=259)
        model.save_pretrained(tmp_path / "hf")
    assert tiny_chat.write_hf_tokenizer(tmp_path / "hf") == vocabulary
    target = str(tmp_path / "out.gguf")
    assert run(["quantize", str(tmp_path / "hf"), target, "--type", "Q4_K_M"]) == 0
    capsys.readouterr()
    for path in (str(tmp_path / "hf"), target):
        assert run(["show", path, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["runs"], told["sizes"]["hidden_size"]) == (True, 64)
        with open_checkpoint(path) as opened:
            config = read_config(opened)
        widths = 64 * 3 + 32 * 3 * (case == "v3.2") if case != "moe-16b" else 2 * 64 * 3
        assert (
            sum(s.key_dim + s.value_dim for s in config.kv_layers()) * (config.num_kv_heads)
            == widths
        )
        assert run(["show", path]) == 0
        assert told["architecture"] in capsys.readouterr().out
    assert run(["run", target, "the cat", "--max-tokens", "4", "--temperature", "0"]) == 0
    assert capsys.readouterr().out
