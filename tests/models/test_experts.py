# SPDX-License-Identifier: Apache-2.0
"""Experts in files: where their bytes are taken from, what the configs mean, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from test_config import GGUF, HF, Vector, checkpoint, config_of

import tiny_moe
from freehold import backends
from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.formats.checkpoint import open_checkpoint
from freehold.models._expert_tensors import ExpertStack, stack_experts
from freehold.models.config import canonical_tensors, family_of, read_config
from freehold.models.loader import load_model
from freehold.models.names import canonical_name

REFERENCE = backends.create("reference")


def gguf_of(arch, **changes):
    base = {key.replace("llama", arch): value for key, value in GGUF.items()}
    base |= {"general.architecture": arch, f"{arch}.expert_count": 8,
             f"{arch}.expert_used_count": 2}  # fmt: skip
    return config_of(base, **{f"{arch}__{key}": value for key, value in changes.items()})


HF_MIXTRAL = {**HF, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
HF_QWEN2 = {**HF, "model_type": "qwen2_moe", "num_experts": 6, "num_experts_per_tok": 3,
            "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}  # fmt: skip
HF_QWEN3 = {**HF, "model_type": "qwen3_moe", "num_local_experts": 16, "num_experts_per_tok": 4,
            "moe_intermediate_size": 32}  # fmt: skip


# -- what the keys mean -----------------------------------------------------------------------


def test_a_llama_with_experts_is_mixtral():
    base = {**GGUF, "llama.expert_count": 8, "llama.expert_used_count": 2}
    assert family_of(checkpoint(base)) == "mixtral"
    assert family_of(checkpoint({**GGUF, "llama.expert_count": 0})) == "llama"
    for config in (gguf_of("llama"), config_of(HF_MIXTRAL)):
        assert config.architecture == "llama"
        assert config.moe.num_experts == 8
        assert (config.moe.expert_ffn_size, config.moe.shared_ffn_size) == (96, 0)
        assert (config.moe.routing.top_k, config.moe.routing.normalise) == (2, True)
    assert gguf_of("llama").rope.interleaved
    assert config_of(GGUF).moe is None
    assert config_of(HF).moe is None


def test_what_qwen_files_leave_out():
    """Keys that files of the day lacked, and the renormalising that none of them states."""
    qwen2 = gguf_of("qwen2moe").moe
    assert (qwen2.expert_ffn_size, qwen2.shared_ffn_size) == (48, 96)
    assert not qwen2.routing.normalise
    named = gguf_of("qwen2moe", expert_feed_forward_length=40,
                    expert_shared_feed_forward_length=72, expert_weights_norm=True,
                    expert_weights_scale=2.5).moe  # fmt: skip
    assert (named.expert_ffn_size, named.shared_ffn_size) == (40, 72)
    assert (named.routing.normalise, named.routing.scale) == (True, 2.5)
    qwen3 = gguf_of("qwen3moe").moe
    assert (qwen3.shared_ffn_size, qwen3.routing.normalise) == (0, True)
    assert not gguf_of("qwen3moe", expert_weights_norm=False).moe.routing.normalise
    assert gguf_of("qwen3moe", expert_weights_scale=0.0).moe.routing.scale == 1.0


def test_hugging_face_keys():
    qwen2, qwen3 = config_of(HF_QWEN2), config_of(HF_QWEN3)
    assert (qwen2.architecture, qwen3.architecture) == ("qwen2moe", "qwen3moe")
    assert (qwen2.moe.num_experts, qwen2.moe.shared_ffn_size) == (6, 48)
    assert (qwen3.moe.num_experts, qwen3.moe.shared_ffn_size) == (16, 0)
    assert not qwen3.moe.routing.normalise
    assert config_of(HF_QWEN3, norm_topk_prob=True).moe.routing.normalise
    old_name = config_of(HF_QWEN3, num_local_experts=..., num_experts=16)
    assert old_name.moe == qwen3.moe
    assert config_of(HF_QWEN2, mlp_only_layers=[1, 3]).moe.dense_layers == {1, 3}
    assert config_of(HF_QWEN2, decoder_sparse_step=3).moe.dense_layers == {0, 1, 3}


@pytest.mark.parametrize("layers", [1, 4, 40])
@pytest.mark.parametrize("first", [0, 3])
def test_windows_are_those_of_transformers(layers, first):
    from transformers import Qwen2MoeConfig

    sizes = {"num_hidden_layers": layers, "max_window_layers": first}
    window = {"use_sliding_window": True, "sliding_window": 7}
    theirs = Qwen2MoeConfig(**sizes, **window).layer_types
    ours = config_of(HF_QWEN2, **sizes, **window)
    want = [7 if kind == "sliding_attention" else 0 for kind in theirs]
    assert [ours.window(i) for i in range(layers)] == want
    assert config_of(HF_QWEN2, **sizes, sliding_window=7).window(0) == 0
    # Qwen3-MoE has it in all layers or none.
    assert config_of(HF_QWEN3, **sizes, **window).window(layers - 1) == 7


@pytest.mark.parametrize("arch", ["llama", "qwen2moe", "qwen3moe"])
@pytest.mark.parametrize(
    ("key", "value"),
    [("expert_gating_func", 2), ("expert_group_count", 4), ("leading_dense_block_count", 1),
     ("interleave_moe_layer_step", 2)],
)  # fmt: skip
def test_other_ways_to_route_are_refused(arch, key, value):
    with pytest.raises(UnsupportedModelError, match=key):
        gguf_of(arch, **{key: value})


def test_sizes_that_contradict_each_other():
    with pytest.raises(MalformedFileError, match="expert_used_count"):
        gguf_of("llama", expert_used_count=9)
    with pytest.raises(MalformedFileError, match="expert_count"):
        gguf_of("qwen3moe", expert_count=0)
    with pytest.raises(MalformedFileError, match="expert_count is missing"):
        gguf_of("qwen3moe", expert_count=...)
    with pytest.raises(MalformedFileError, match="num_experts_per_tok"):
        config_of(HF_MIXTRAL, num_experts_per_tok=0)
    with pytest.raises(MalformedFileError, match="mlp_only_layers"):
        config_of(HF_QWEN2, mlp_only_layers="all")
    # So many matrices that listing them alone would take gigabytes.
    with pytest.raises(MalformedFileError, match="expert_count"):
        gguf_of("qwen3moe", block_count=4096, expert_count=4096)
    with pytest.raises(MalformedFileError, match="num_local_experts"):
        config_of(HF_MIXTRAL, num_local_experts=2**31 - 1)


_JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(
    st.integers(-2, 9), max_size=3
)  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_junk_never_escapes_as_other_errors(data):
    base = data.draw(st.sampled_from([
        {**GGUF, "llama.expert_count": 8, "llama.expert_used_count": 2},
        HF_MIXTRAL, HF_QWEN2, HF_QWEN3,
    ]))  # fmt: skip
    keys = [k for k in base if k not in ("general.architecture", "model_type")]
    extra = ["llama.expert_weights_norm", "llama.expert_weights_scale", "norm_topk_prob",
             "mlp_only_layers", "decoder_sparse_step", "llama.expert_gating_func"]  # fmt: skip
    junk = data.draw(st.dictionaries(st.sampled_from(keys + extra), _JUNK, max_size=4))
    try:
        config = read_config(checkpoint({**base, **junk}))
    except UserError:
        return
    assert config.moe is None or 1 <= config.moe.routing.top_k <= config.moe.num_experts


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("block_sparse_moe.gate.weight", "ffn_gate_inp.weight"),
        ("block_sparse_moe.experts.7.w1.weight", "ffn_gate.7.weight"),
        ("block_sparse_moe.experts.7.w3.weight", "ffn_up.7.weight"),
        ("block_sparse_moe.experts.7.w2.weight", "ffn_down.7.weight"),
        ("mlp.gate.weight", "ffn_gate_inp.weight"),
        ("mlp.experts.127.gate_proj.weight", "ffn_gate.127.weight"),
        ("mlp.experts.127.up_proj.weight", "ffn_up.127.weight"),
        ("mlp.experts.127.down_proj.weight", "ffn_down.127.weight"),
        ("mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight"),
        ("mlp.experts.down_proj", "ffn_down_exps.weight"),
        ("mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"),
        ("mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"),
        ("mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"),
        ("mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"),
    ],
)
def test_names(theirs, ours):
    assert canonical_name(f"model.layers.11.{theirs}") == f"blk.11.{ours}"
    wrapped = f"model.language_model.layers.11.{theirs}"
    assert canonical_name(wrapped) == f"blk.11.{ours}"


# -- where the bytes are ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return tiny_moe.build("mixtral")


@pytest.fixture(scope="module")
def paths(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("experts")
    model.save_pretrained(root / "hf")
    model.save_pretrained(root / "merged", save_original_format=False)
    return {
        "hf": root / "hf",
        "merged": root / "merged",
        "gguf": tiny_moe.write_gguf(model, root / "a.gguf", "Q8_0"),
        "one_by_one": tiny_moe.write_gguf(model, root / "b.gguf", "Q8_0", one_by_one=True),
    }


@pytest.mark.parametrize("form", ["hf", "merged", "gguf", "one_by_one"])
def test_every_expert_is_a_stretch_of_the_file(form, model, paths):
    """A backend can read each matrix straight from disk, and no byte is held twice."""
    want = tiny_moe.gguf_tensors(model)
    with open_checkpoint(paths[form]) as opened:
        tensors = canonical_tensors(opened)
        for name in ("blk.1.ffn_gate_exps.weight", "blk.2.ffn_up_exps.weight",
                     "blk.0.ffn_down_exps.weight"):  # fmt: skip
            stack = tensors[name]
            assert isinstance(stack, ExpertStack)
            assert stack.shape == want[name].shape
            for index in range(8):
                part = stack.part(index)
                path, offset = part.file_span()
                with Path(path).open("rb") as file:
                    file.seek(offset)
                    assert file.read(part.nbytes) == part.bytes().tobytes()
                np.testing.assert_allclose(part.to_f32(), want[name][index], atol=0.02)
            np.testing.assert_array_equal(stack.to_f32()[5], stack.part(5).to_f32())
            assert stack.bytes().tobytes() == b"".join(
                stack.part(i).bytes().tobytes() for i in range(8)
            )
            assert stack.nbytes == len(stack.bytes())


@pytest.mark.parametrize("form", ["hf", "merged", "gguf", "one_by_one"])
def test_progress_counts_every_byte(form, paths):
    seen = []
    with open_checkpoint(paths[form]) as opened:
        load_model(opened, REFERENCE, lambda done, total: seen.append((done, total)))
        assert seen[-1] == (opened.nbytes, opened.nbytes)
    assert len(seen) > 3 * 3 * 8  # one step an expert's matrix


class Made:
    """A tensor that exists nowhere in a file but makes its rows on demand."""

    def __init__(self, values):
        self.name, self.shape, self.qtype = "made", values.shape, "F32"
        self.values, self.asked = np.ascontiguousarray(values, np.float32), []
        self.nbytes = self.values.nbytes

    def rows(self, start, stop):
        self.asked.append((start, stop))
        flat = self.values.reshape(-1, self.shape[-1])[start:stop]
        return np.ascontiguousarray(flat).view(np.uint8).reshape(-1)

    def bytes(self):
        raise AssertionError("all of it was made for the sake of one expert")


def test_tensors_made_on_demand_make_no_more_than_one_expert():
    values = np.random.default_rng(0).standard_normal((3, 8, 5)).astype(np.float32)
    made = Made(values)
    stacks = stack_experts({"blk.0.ffn_gate_up_exps.weight": made}, "here")
    np.testing.assert_array_equal(
        stacks["blk.0.ffn_up_exps.weight"].part(1).to_f32(), values[1, 4:]
    )
    np.testing.assert_array_equal(
        stacks["blk.0.ffn_gate_exps.weight"].part(2).to_f32(), values[2, :4]
    )
    assert made.asked == [(12, 16), (16, 20)]


# -- what is refused --------------------------------------------------------------------------


def rewritten(source, target, change):
    target.mkdir()
    (target / "config.json").write_text((source / "config.json").read_text())
    save_file(change(load_file(source / "model.safetensors")), target / "model.safetensors")
    return target


def refused(path, error, text):
    class Watchful(type(REFERENCE)):
        def load_weight(self, tensor):
            raise AssertionError(f"{tensor.name} was loaded")

    with open_checkpoint(path) as opened, pytest.raises(error, match=text):
        load_model(opened, Watchful())


EXPERT = "model.layers.1.block_sparse_moe.experts.{}.w1.weight"


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda t: t.pop(EXPERT.format(3)), MalformedFileError,
         r"blk\.1\.ffn_gate\.3\.weight is missing"),
        (lambda t: t.pop(EXPERT.format(7)), MalformedFileError,
         r"experts\.0\.w1\.weight has shape \[7, 96, 64\].+\[8, 96, 64\]"),
        (lambda t: t.update({EXPERT.format(8): t[EXPERT.format(7)]}), MalformedFileError,
         r"shape \[9, 96, 64\]"),
        (lambda t: t.update({EXPERT.format(4): np.zeros((64, 96), np.float32)}),
         MalformedFileError, r"experts\.4\.w1\.weight has shape \[64, 96\]"),
        (lambda t: t.update({EXPERT.format(4): t[EXPERT.format(4)].astype(np.int32)}),
         UnsupportedModelError, "I32"),
        (lambda t: t.pop("model.layers.0.block_sparse_moe.gate.weight"), MalformedFileError,
         r"blk\.0\.ffn_gate_inp\.weight is missing"),
        (lambda t: t.update(
            {"model.layers.1.mlp.experts.down_proj": np.zeros((8, 64, 96), np.float32)}),
         MalformedFileError, "twice"),
        (lambda t: t.update({"model.layers.0.mlp.up_proj.weight": np.zeros((96, 64), np.float32)}),
         UnsupportedModelError, r"mlp\.up_proj"),
    ],
    ids=["hole", "too few", "too many", "turned", "integers", "no router", "twice", "dense too"],
)  # fmt: skip
def test_bad_experts_are_named(change, error, text, paths, tmp_path):
    def changed(tensors):
        change(tensors)
        return tensors

    refused(rewritten(paths["hf"], tmp_path / "bad", changed), error, text)


@pytest.mark.parametrize(
    "shape", [(8, 64, 192), (7, 192, 64), (8, 191, 64), (8, 192), (0, 192, 64)]
)
def test_merged_tensors_of_another_shape(shape, paths, tmp_path):
    def changed(tensors):
        return tensors | {
            "model.layers.2.mlp.experts.gate_up_proj": np.zeros(shape, np.float32)
        }  # fmt: skip

    path = rewritten(paths["merged"], tmp_path / "bad", changed)
    refused(path, UserError, r"layers\.2\.mlp\.experts\.gate_up|blk\.2\.ffn_gate_exps")


def test_the_count_must_be_the_files(paths, tmp_path):
    path = rewritten(paths["merged"], tmp_path / "bad", dict)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_local_experts": 4}))
    refused(path, MalformedFileError, r"\[8, 96, 64\].+\[4, 96, 64\]|\[8, 64\].+\[4, 64\]")


def test_dense_layers_are_told_by_their_tensors():
    base = {key.replace("llama", "qwen3moe"): value for key, value in GGUF.items()}
    base |= {"general.architecture": "qwen3moe", "qwen3moe.expert_count": 8,
             "qwen3moe.expert_used_count": 2}  # fmt: skip
    gate = Vector("blk.2.ffn_gate.weight", np.zeros((96, 64)))
    assert read_config(checkpoint(base, {gate.name: gate})).moe.dense_layers == {2}
