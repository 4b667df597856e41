# SPDX-License-Identifier: Apache-2.0
"""Gemma: what files leave out, old spellings and new, the language model inside a larger one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_config import _junk

import tiny_models
from batching import full_logits
from budgets import limit, logits_error
from freehold import backends
from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.models.base import ModelConfig
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.quantize import quantize

REFERENCE = backends.create("reference")
IDS = tiny_models.prompt()


def checkpoint(metadata: dict) -> Checkpoint:
    """A file of metadata alone."""
    gguf = "general.architecture" in metadata
    return Checkpoint(
        path=Path("model"),
        directory=Path(),
        format="gguf" if gguf else "safetensors",
        architecture=metadata["general.architecture" if gguf else "model_type"],
        metadata=metadata,
        value_types={},
        tensors={},
        files=[],
        _open=[],
    )


def gguf(architecture: str, **more) -> ModelConfig:
    """Config of a GGUF file; "__" in a key stands for "."."""
    keys = {
        "block_count": 12,
        "context_length": 8192,
        "embedding_length": 96,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "vocab_size": 100,
    } | {key.replace("__", "."): value for key, value in more.items()}
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    return read_config(checkpoint({"general.architecture": architecture, **metadata}))


def hf(model_type: str, **more) -> ModelConfig:
    return read_config(checkpoint({"model_type": model_type, **more}))


def windows(config: ModelConfig) -> list[int]:
    return [config.window(i) for i in range(config.num_layers)]


def inv_freq(base: float, dim: int) -> np.ndarray:
    return base ** (-np.arange(0, dim, 2) / dim)


# -- constants that are in no file -----------------------------------------------------------------


def test_what_a_gguf_of_each_leaves_out():
    one = gguf("gemma")
    assert (windows(one), one.attn_softcap, one.final_softcap) == ([0] * 12, 0, 0)
    two = gguf("gemma2")
    assert windows(two) == [4096, 0] * 6
    assert (two.attn_softcap, two.final_softcap, two.local_rope) == (50.0, 30.0, None)
    three = gguf("gemma3", attention__sliding_window=512, rope__freq_base=1e6)
    assert windows(three) == ([512] * 5 + [0]) * 2
    assert (three.attn_softcap, three.final_softcap) == (0, 0)
    assert three.local_rope is not None
    np.testing.assert_allclose(three.local_rope.inv_freq, inv_freq(1e4, 32))
    np.testing.assert_allclose(three.rope.inv_freq, inv_freq(1e6, 32))
    for config in (one, two, three):
        assert config.activation == "gelu_tanh"
        assert config.embedding_scale == 96**0.5
        assert config.attention_scale == 0.0  # 1/√head_dim
        assert not config.rope.interleaved


def test_a_gguf_may_say_otherwise():
    config = gguf("gemma2", attn_logit_softcapping=20.0, final_logit_softcapping=0.0,
                  attention__sliding_window=64, attention__sliding_window_pattern=3)  # fmt: skip
    assert (config.attn_softcap, config.final_softcap) == (20.0, 0.0)
    assert windows(config) == [64, 64, 0] * 4
    assert windows(gguf("gemma2", attention__sliding_window=0)) == [0] * 12
    without = gguf("gemma3")
    assert windows(without) == [0] * 12
    assert without.local_rope is None
    config = gguf("gemma3", attention__sliding_window=64, final_logit_softcapping=9.0,
                  rope__freq_base_swa=500.0, attention__scale=0.25,
                  rope__scaling__type="linear", rope__scaling__factor=8.0)  # fmt: skip
    assert (config.final_softcap, config.attention_scale) == (9.0, 0.25)
    assert config.local_rope is not None
    np.testing.assert_allclose(config.local_rope.inv_freq, inv_freq(500.0, 32))
    np.testing.assert_allclose(config.rope.inv_freq, inv_freq(1e4, 32) / 8)


@pytest.mark.parametrize(("architecture", "layers"), [("gemma2", 46), ("gemma3", 62)])
def test_the_27b_models_scale_queries_by_the_width(architecture, layers):
    sizes = {"embedding_length": 96, "attention__head_count": 6, "attention__head_count_kv": 3}
    assert gguf(architecture, block_count=layers, **sizes).attention_scale == 16**-0.5
    assert gguf(architecture, block_count=layers - 1, **sizes).attention_scale == 0.0


def test_sparse_config_of_a_multimodal_gemma_3():
    """Published 4B files name eight numbers of the language model and leave out the rest."""
    config = hf(
        "gemma3",
        architectures=["Gemma3ForConditionalGeneration"],
        image_token_index=262144,
        text_config={
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        vision_config={"hidden_size": 1152, "model_type": "siglip_vision_model"},
    )  # fmt: skip
    assert config.architecture == "gemma3"
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
    assert (config.vocab_size, config.context_length) == (262208, 131072)
    assert windows(config)[:7] == [1024] * 5 + [0, 1024]
    np.testing.assert_allclose(config.rope.inv_freq, inv_freq(1e6, 256) / 8)
    assert config.local_rope is not None
    np.testing.assert_allclose(config.local_rope.inv_freq, inv_freq(1e4, 256))


@pytest.mark.parametrize("kind", ["Gemma", "Gemma2", "Gemma3Text"])
def test_absent_keys_mean_what_transformers_takes_them_for(kind):
    import transformers

    theirs = getattr(transformers, f"{kind}Config")()
    ours = hf(theirs.model_type)
    for name, value in {
        "vocab_size": ours.vocab_size, "hidden_size": ours.hidden_size,
        "intermediate_size": ours.ffn_size, "num_hidden_layers": ours.num_layers,
        "num_attention_heads": ours.num_heads, "num_key_value_heads": ours.num_kv_heads,
        "head_dim": ours.head_dim, "max_position_embeddings": ours.context_length,
        "rms_norm_eps": ours.norm_eps,
    }.items():  # fmt: skip
        assert value == getattr(theirs, name), name
    kinds = getattr(theirs, "layer_types", None) or ["full_attention"] * ours.num_layers
    expected = [theirs.sliding_window if k == "sliding_attention" else 0 for k in kinds]
    assert windows(ours) == expected
    assert (ours.attn_softcap or None) == getattr(theirs, "attn_logit_softcapping", None)
    assert (ours.final_softcap or None) == getattr(theirs, "final_logit_softcapping", None)


def test_old_spelling_and_new_mean_the_same():
    old = hf("gemma3_text", rope_theta=5e5, rope_local_base_freq=2e4, sliding_window_pattern=3,
             rope_scaling={"factor": 4.0, "rope_type": "linear"}, num_hidden_layers=6)  # fmt: skip
    new = hf(
        "gemma3_text",
        num_hidden_layers=6,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    )
    assert windows(old) == windows(new) == [4096, 4096, 0] * 2
    np.testing.assert_array_equal(old.rope.inv_freq, new.rope.inv_freq)
    assert old.local_rope is not None
    assert new.local_rope is not None
    np.testing.assert_array_equal(old.local_rope.inv_freq, new.local_rope.inv_freq)
    np.testing.assert_allclose(old.rope.inv_freq, inv_freq(5e5, 256) / 4)
    np.testing.assert_allclose(old.local_rope.inv_freq, inv_freq(2e4, 256))


def test_gelu_of_the_first_files_is_the_tanh_form():
    assert hf("gemma", hidden_act="gelu", hidden_activation=None).activation == "gelu_tanh"


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "change", "word"),
    [
        ("gemma", {"hidden_act": "silu"}, "silu"),
        ("gemma2", {"hidden_activation": "gelu"}, "'gelu'"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "bidirectional"),
        ("gemma3_text", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 26}, "chunked"),
    ],
)
def test_refusals_name_the_reason(model_type, change, word):
    with pytest.raises(UnsupportedModelError, match=word):
        hf(model_type, **change)


def test_a_wrapper_with_another_mask_is_refused():
    with pytest.raises(UnsupportedModelError, match="paligemma"):
        hf("paligemma", text_config={"model_type": "gemma2"})


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("gemma2", {"query_pre_attn_scalar": 0}),
        ("gemma2", {"attn_logit_softcapping": "x"}),
        ("gemma2", {"final_logit_softcapping": float("nan")}),
        ("gemma2", {"final_logit_softcapping": -1.0}),
        ("gemma3_text", {"sliding_window_pattern": 0}),
        ("gemma3_text", {"rope_local_base_freq": 0.5}),
        ("gemma3_text", {"rope_parameters": 7}),
        ("gemma3_text", {"rope_parameters": {"full_attention": [1]}}),
        ("gemma3_text", {"rope_parameters": {"sliding_attention": {"rope_theta": -1.0}}}),
        ("gemma3_text", {"num_hidden_layers": 10**9}),
    ],
)
def test_a_bad_number_of_config_json_is_named(model_type, change):
    with pytest.raises(MalformedFileError, match=r"scal|soft|pattern|base|rope|layers"):
        hf(model_type, **change)


@pytest.mark.parametrize(
    "change",
    [{"attn_logit_softcapping": -2.0}, {"final_logit_softcapping": "x"}, {"attention__scale": 0.0},
     {"attention__sliding_window_pattern": [True]}, {"rope__freq_base_swa": float("inf")}],
)  # fmt: skip
def test_a_bad_number_of_gguf_is_named(change):
    with pytest.raises(MalformedFileError, match=next(iter(change)).replace("__", r"\.")):
        gguf("gemma2", **change)


_HF_KEYS = [
    "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "sliding_window",
    "sliding_window_pattern", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping",
    "final_logit_softcapping", "hidden_act", "hidden_activation", "num_hidden_layers", "head_dim",
    "use_bidirectional_attention", "text_config",
]  # fmt: skip
_GGUF_KEYS = [
    "attention__sliding_window", "attention__sliding_window_pattern", "attention__scale",
    "attn_logit_softcapping", "final_logit_softcapping", "rope__freq_base", "rope__freq_base_swa",
    "rope__scaling__factor", "block_count", "attention__key_length",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        [(hf, name, _HF_KEYS) for name in ("gemma", "gemma2", "gemma3_text")]
        + [(gguf, name, _GGUF_KEYS) for name in ("gemma", "gemma2", "gemma3")]
    ).flatmap(
        lambda way: st.tuples(
            st.just(way), st.dictionaries(st.sampled_from(way[2]), _junk, min_size=1, max_size=4)
        )
    )
)
@example(((gguf, "gemma2", _GGUF_KEYS), {"attn_logit_softcapping": -7e-273}))
def test_junk_values_never_escape_as_other_errors(drawn):
    (read, name, _), junk = drawn
    try:
        config = read(name, **junk)
    except UserError as error:
        if len(str(error)) > 600:
            pytest.fail("a file's junk must not flood the message")
        return
    for rope in config.rotations():
        assert np.isfinite(rope.inv_freq).all()
    numbers = (config.attention_scale, config.attn_softcap, config.final_softcap)
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    assert all(window >= 0 for window in windows(config))


# -- whole files -----------------------------------------------------------------------------------


def test_the_language_model_inside_a_multimodal_one(tmp_path):
    import transformers

    text = {**tiny_models._COMMON, **tiny_models.CASES["gemma3"].options}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4,
        image_token_index=150, boi_token_index=151, eoi_token_index=152,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.Gemma3ForConditionalGeneration(config).eval().float()
    tiny_models.randomised(model).save_pretrained(tmp_path / "hf")
    ids = [i for i in IDS if i < 150]
    want = tiny_models.reference_logits(model, ids)
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        with open_checkpoint(path) as opened:
            assert opened.architecture == "gemma3"
            got = full_logits(load_model(opened, REFERENCE), REFERENCE, ids)
        assert logits_error(got, want) < limit("reference", "logits")


def test_norm_weights_keep_their_last_bits_in_bfloat16(tmp_path):
    """1 + w is added in float32: w itself may be stored coarser than the sum can say."""
    import torch

    model = tiny_models.build(tiny_models.CASES["gemma"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.mul_(1e-3)
            parameter.copy_(parameter.bfloat16())
    want = tiny_models.reference_logits(model, IDS)
    model.bfloat16().save_pretrained(tmp_path / "hf")
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "BF16")
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        with open_checkpoint(path) as opened:
            got = full_logits(load_model(opened, REFERENCE), REFERENCE, IDS)
        assert logits_error(got, want) < limit("reference", "logits")


def test_written_keys_are_those_readers_know(tmp_path):
    """A number for a regular pattern, no key where the file's silence means the same."""
    for case, present, absent in (
        ("gemma", {}, {"attention.sliding_window", "attn_logit_softcapping", "attention.scale"}),
        (
            "gemma2",
            {"attention.sliding_window": 8, "attention.sliding_window_pattern": 2,
             "attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0,
             "attention.scale": pytest.approx(24**-0.5)},
            {"rope.freq_base_swa"},
        ),
        (
            "gemma3",
            {"attention.sliding_window_pattern": 6, "rope.freq_base": 1e6,
             "rope.freq_base_swa": 10000.0, "rope.scaling.type": "linear",
             "rope.scaling.factor": 8.0},
            {"attn_logit_softcapping", "final_logit_softcapping"},
        ),
        (
            "gemma3-irregular",
            {"attention.sliding_window_pattern": [False, True, True], "rope.freq_base_swa": 500.0},
            {"attention.scale"},
        ),
    ):  # fmt: skip
        tiny_models.build(tiny_models.CASES[case]).save_pretrained(tmp_path / case)
        quantize(tmp_path / case, tmp_path / f"{case}.gguf", "F32")
        with open_checkpoint(tmp_path / f"{case}.gguf") as written:
            family = written.architecture
            keys = {k.removeprefix(f"{family}."): v for k, v in written.metadata.items()}
        assert family == case.partition("-")[0]
        for key, value in present.items():
            stored = keys[key].tolist() if isinstance(keys[key], np.ndarray) else keys[key]
            assert stored == value, (case, key)
        assert not absent & keys.keys()


def test_a_stretched_local_rotation_is_not_written(tmp_path):
    case = tiny_models.CASES["gemma3"]
    parts = {
        "full_attention": {"rope_type": "default", "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    }
    model = tiny_models.build(case, rope_parameters=parts)
    model.save_pretrained(tmp_path / "hf")
    with open_checkpoint(tmp_path / "hf") as opened:
        got = full_logits(load_model(opened, REFERENCE), REFERENCE, IDS)
    want = tiny_models.reference_logits(model, IDS)
    assert logits_error(got, want) < limit("reference", "logits")
    with pytest.raises(UnsupportedModelError, match="sliding window"):
        quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")


@pytest.mark.parametrize("qtype", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("case", ["gemma", "gemma2-usual-caps", "gemma3-irregular"])
def test_quantised_files_stay_within_budget_on_cpu(case, qtype, tmp_path):
    path = tiny_models.write_gguf(
        tiny_models.build(tiny_models.CASES[case]), tmp_path / "out.gguf", qtype
    )
    logits = {}
    for device in ("reference", "cpu"):
        ops = backends.create(device)
        with open_checkpoint(path) as opened:
            logits[ops.name] = full_logits(load_model(opened, ops), ops, IDS)
    error = logits_error(logits["cpu"], logits["reference"])
    assert 1e-5 < error < limit("cpu", "logits", qtype)


def test_the_null_backend_counts_upwards(tmp_path):
    path = tiny_models.write_gguf(
        tiny_models.build(tiny_models.CASES["gemma2"]), tmp_path / "out.gguf"
    )
    ops = backends.create("null")
    with open_checkpoint(path) as opened:
        logits = full_logits(load_model(opened, ops), ops, [5, 9])
    assert np.argmax(logits, axis=1).tolist() == [6, 10]


def test_caps_that_are_off_stay_off_in_gguf(tmp_path):
    """Gemma 2 has caps unless its file says it has none."""
    case = tiny_models.CASES["gemma2"]
    none = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    model = tiny_models.build(case, **none)
    model.save_pretrained(tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / "config.json").read_text()).keys() >= none.keys()
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    want = tiny_models.reference_logits(model, IDS)
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        with open_checkpoint(path) as opened:
            got = full_logits(load_model(opened, REFERENCE), REFERENCE, IDS)
        assert logits_error(got, want) < limit("reference", "logits")
