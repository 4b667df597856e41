# SPDX-License-Identifier: Apache-2.0
"""Keys of Llama 4, Muse Glimmer and gpt-oss: what files leave out, what their numbers mean, and
what is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import _junk
from test_gemma import checkpoint, windows

from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.models._family import dialect_of
from freehold.models.base import ModelConfig
from freehold.models.config import architecture_of, families, family_of, read_config
from freehold.models.rope import RopeScaling, inverse_frequencies

_EXPERTS = {"expert_count": 16, "expert_used_count": 1, "expert_feed_forward_length": 48}
_GGUF = {
    "llama4": {**_EXPERTS, "interleave_moe_layer_step": 1},
    "muse-glimmer": {"logit_scale": 0.2, "attention.sliding_window": 2048},
    "gpt-oss": {**_EXPERTS, "attention.sliding_window": 128},
}


def gguf(architecture: str, **more) -> ModelConfig:
    """Config of a GGUF file; "__" in a key stands for ".", ... takes the key away."""
    keys = {
        "block_count": 12,
        "context_length": 8192,
        "embedding_length": 96,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "vocab_size": 100,
    } | _GGUF[architecture]
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    metadata = {f"{architecture}.{key}": value for key, value in keys.items() if value is not ...}
    return read_config(checkpoint({"general.architecture": architecture, **metadata}))


def hf(model_type: str, **more) -> ModelConfig:
    return read_config(checkpoint({"model_type": model_type, **more}))


def inv_freq(base: float, dim: int) -> np.ndarray:
    return base ** (-np.arange(0, dim, 2) / dim)


# -- names -----------------------------------------------------------------------------------------


def test_gguf_names_that_no_module_can_have():
    for family, name in (("gpt_oss", "gpt-oss"), ("muse_glimmer", "muse-glimmer")):
        assert family in families()
        assert architecture_of(family) == name
        assert family_of(checkpoint({"general.architecture": name})) == family
        assert gguf(name).architecture == name
        with pytest.raises(UnsupportedModelError, match=family):
            family_of(checkpoint({"general.architecture": family}))


@pytest.mark.parametrize(
    ("model_type", "family"),
    [("llama4", "llama4"), ("llama4_text", "llama4"), ("muse_glimmer", "muse_glimmer"),
     ("muse_glimmer_text", "muse_glimmer"), ("gpt_oss", "gpt_oss")],
)  # fmt: skip
def test_model_types(model_type, family):
    assert family_of(checkpoint({"model_type": model_type})) == family
    nested = {"model_type": "wrapper", "text_config": {"model_type": model_type}}
    assert family_of(checkpoint(nested)) == family


# -- Llama 4 ---------------------------------------------------------------------------------------


def test_llama4_constants_that_are_in_no_gguf():
    config = gguf("llama4")
    last_of_four = frozenset({3, 7, 11})
    assert (config.chunk, config.full_attention_layers, config.nope_layers) == (
        8192, last_of_four, last_of_four,
    )  # fmt: skip
    temperature = config.query_temperature
    assert temperature is not None
    factors = temperature.factors(np.array([0, 8190, 8191, 16383], dtype=np.int32))
    np.testing.assert_allclose(factors, 1 + 0.1 * np.log([1, 1, 2, 3]), rtol=1e-6)
    assert [config.tempered(i) for i in range(5)] == [False, False, False, True, False]
    assert config.qk_norm_after_rope
    assert config.rope.interleaved
    assert windows(config) == [0] * 12
    moe = config.moe
    assert moe is not None
    assert (moe.num_experts, moe.expert_ffn_size, moe.shared_ffn_size) == (16, 48, 48)
    assert (moe.routing.scoring, moe.routing.normalise) == ("sigmoid", False)
    assert (moe.weigh_input, moe.shared_is_gated, moe.dense_layers) == (True, False, frozenset())


def test_a_llama4_window_is_a_switch():
    for window in (1, 512, 8192):
        config = gguf("llama4", attention__sliding_window=window)
        assert (config.chunk, config.sliding_window, len(config.nope_layers)) == (8192, 0, 3)
    plain = gguf("llama4", attention__sliding_window=0)
    assert (plain.chunk, plain.nope_layers, plain.query_temperature) == (0, frozenset(), None)
    assert plain.full_attention_layers == frozenset()
    assert plain.qk_norm_after_rope


def test_llama4_keys_that_say_otherwise():
    config = gguf("llama4", attention__sliding_window_pattern=3, attention__chunk_size=64,
                  attention__temperature_scale=0.5, attention__temperature_length=32)  # fmt: skip
    assert (config.chunk, sorted(config.full_attention_layers)) == (64, [2, 5, 8, 11])
    assert sorted(config.nope_layers) == [3, 7, 11]
    assert config.query_temperature is not None
    assert (config.query_temperature.scale, config.query_temperature.length) == (0.5, 32)
    assert gguf("llama4", attention__temperature_scale=0.0).query_temperature is None


def test_maverick():
    config = gguf("llama4", expert_count=128, interleave_moe_layer_step=2)
    assert not config.qk_norm_after_rope
    assert config.moe is not None
    assert config.moe.dense_layers == frozenset(range(0, 12, 2))
    assert gguf("llama4", expert_count=0).moe is None
    assert gguf("llama4", interleave_moe_layer_step=0).moe is None


def test_llama4_as_published():
    """Scout's file: an empty list of layers, a number for a truth, one bound of frequencies."""
    config = hf(
        "llama4",
        text_config={
            "model_type": "llama4_text", "attn_temperature_tuning": 4, "no_rope_layers": [],
            "moe_layers": None, "num_local_experts": 16, "interleave_moe_layer_step": 1,
            "rope_scaling": {"factor": 16.0, "high_freq_factor": 1.0, "low_freq_factor": 1.0,
                             "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        },
        vision_config={"model_type": "llama4_vision_model"},
    )  # fmt: skip
    assert sorted(config.nope_layers) == list(range(3, 48, 4))
    assert config.full_attention_layers == config.nope_layers
    assert (config.num_layers, config.ffn_size, config.chunk) == (48, 16384, 8192)
    assert config.query_temperature is not None
    assert config.moe is not None
    assert config.moe.expert_ffn_size == 8192
    plain = inv_freq(500000.0, 128)
    np.testing.assert_allclose(
        config.rope.inv_freq, np.where(8192 * plain / (2 * np.pi) >= 1, plain, plain / 16)
    )
    assert config.rope.interleaved


def test_llama4_layers_by_name():
    config = hf("llama4_text", num_hidden_layers=4, moe_layers=[1, 2], no_rope_layers=[1, 0, 1, 1],
                attn_temperature_tuning=False, use_qk_norm=False,
                layer_types=["full_attention", "chunked_attention"] * 2)  # fmt: skip
    assert (config.nope_layers, config.full_attention_layers) == ({1}, {0, 2})
    assert config.moe is not None
    assert config.moe.dense_layers == {0, 3}
    assert config.query_temperature is None
    assert not config.qk_norm_after_rope


# -- Muse Glimmer ----------------------------------------------------------------------------------


def test_muse_constants_that_are_in_no_gguf():
    config = gguf("muse-glimmer")
    assert windows(config) == [2048, 2048, 2048, 0] * 3
    assert config.nope_layers == {3, 7, 11}
    assert (config.embedding_norm, config.post_norm_eps, config.logit_scale) == (True, 1e-8, 0.2)
    assert config.final_softcap == 0.0
    assert config.rope.interleaved
    flags = [True, False] * 6
    config = gguf("muse-glimmer", attention__sliding_window_pattern=np.array(flags),
                  final_logit_softcapping=20.0, rope__freq_base=5e5)  # fmt: skip
    assert windows(config) == [2048, 0] * 6
    assert config.nope_layers == frozenset(range(1, 12, 2))
    assert config.final_softcap == 20.0
    np.testing.assert_allclose(config.rope.inv_freq, inv_freq(5e5, 32))


def test_muse_layers_are_counted_from_the_last():
    config = hf("muse_glimmer_text", num_hidden_layers=6)
    assert windows(config) == [2048, 0, 2048, 2048, 2048, 0]
    assert config.nope_layers == {1, 5}
    assert (config.logit_scale, config.final_softcap) == (0.19611613513818404, 20.0)
    bases = [0, 5e5, 0.0, 1e4, 5e5, 5e5]
    assert hf("muse_glimmer_text", num_hidden_layers=6, layer_rope_theta=bases).nope_layers == {
        0, 2,
    }  # fmt: skip


# -- gpt-oss ---------------------------------------------------------------------------------------


def test_gpt_oss_constants_that_are_in_no_gguf():
    config = gguf("gpt-oss", feed_forward_length=..., rope__freq_base=150000.0,
                  rope__scaling__type="yarn", rope__scaling__factor=32.0,
                  rope__scaling__original_context_length=4096, expert_used_count=4)  # fmt: skip
    assert windows(config) == [128, 0] * 6
    assert config.activation == "swiglu_oai"
    moe = config.moe
    assert moe is not None
    assert (moe.num_experts, moe.expert_ffn_size, moe.biases) == (16, 48, True)
    assert (moe.routing.top_k, moe.routing.normalise, moe.routing.scoring) == (4, True, "softmax")
    assert not config.rope.interleaved
    whole = RopeScaling("yarn", 32.0, 4096)
    ours = inverse_frequencies(32, 150000.0, RopeScaling("yarn", 32.0, 4096, truncate=False))
    assert not np.allclose(ours, inverse_frequencies(32, 150000.0, whole), rtol=1e-3)
    np.testing.assert_allclose(config.rope.inv_freq, ours)
    assert config.rope.magnitude == pytest.approx(0.1 * math.log(32) + 1)
    assert windows(gguf("gpt-oss", attention__sliding_window_pattern=3)) == [128, 128, 0] * 4


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_gpt_oss_as_published(key):
    """Sizes of the 20B in its own words, old spelling and new."""
    yarn = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
            "original_max_position_embeddings": 4096, "truncate": False}  # fmt: skip
    config = hf(
        "gpt_oss", num_hidden_layers=24, num_local_experts=32, experts_per_token=4,
        num_experts_per_tok=4, initial_context_length=4096, rope_theta=150000, swiglu_limit=7.0,
        layer_types=["sliding_attention", "full_attention"] * 12, **{key: yarn},
    )  # fmt: skip
    assert windows(config) == [128, 0] * 12
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (64, 8, 64)
    assert (config.hidden_size, config.context_length) == (2880, 131072)
    assert config.moe is not None
    assert (config.moe.num_experts, config.moe.expert_ffn_size) == (32, 2880)
    want = inverse_frequencies(64, 150000.0, RopeScaling("yarn", 32.0, 4096, truncate=False))
    np.testing.assert_allclose(config.rope.inv_freq, want)


# -- what is left out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Llama4Text", "MuseGlimmerText", "GptOss"])
def test_absent_keys_mean_what_transformers_takes_them_for(kind):
    import transformers

    if kind == "MuseGlimmerText":
        theirs = transformers.MuseGlimmerConfig().text_config
    else:
        theirs = getattr(transformers, f"{kind}Config")()
    ours = hf(theirs.model_type)
    for name, value in {
        "vocab_size": ours.vocab_size, "hidden_size": ours.hidden_size,
        "num_hidden_layers": ours.num_layers, "num_attention_heads": ours.num_heads,
        "num_key_value_heads": ours.num_kv_heads, "head_dim": ours.head_dim,
        "max_position_embeddings": ours.context_length, "rms_norm_eps": ours.norm_eps,
        "intermediate_size": ours.moe.expert_ffn_size if ours.moe else ours.ffn_size,
    }.items():  # fmt: skip
        assert value == getattr(theirs, name), name
    window, chunk = (getattr(theirs, k, 0) for k in ("sliding_window", "attention_chunk_size"))
    wants = {"sliding_attention": (window, 0), "chunked_attention": (0, chunk),
             "full_attention": (0, 0)}  # fmt: skip
    got = [(ours.window(i), ours.chunk_of(i)) for i in range(ours.num_layers)]
    assert got == [wants[kind] for kind in theirs.layer_types]
    rope = theirs.rope_parameters
    scaling = RopeScaling()
    if rope["rope_type"] == "yarn":
        scaling = RopeScaling(
            "yarn", rope["factor"], rope["original_max_position_embeddings"],
            truncate=rope["truncate"],
        )  # fmt: skip
    np.testing.assert_allclose(
        ours.rope.inv_freq, inverse_frequencies(ours.head_dim, rope["rope_theta"], scaling)
    )
    if ours.moe:
        assert ours.moe.num_experts == theirs.num_local_experts
        assert ours.moe.routing.top_k == theirs.num_experts_per_tok


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "change", "word"),
    [
        ("gpt_oss", {"attention_bias": False}, "attention_bias"),
        ("gpt_oss", {"swiglu_limit": 6.0}, "swiglu_limit"),
        ("gpt_oss", {"swiglu_alpha": 1.0}, "swiglu_alpha"),
        ("gpt_oss", {"hidden_act": "gelu"}, "gelu"),
        ("gpt_oss", {"layer_types": ["chunked_attention"] * 36}, "chunked_attention"),
        ("llama4_text", {"hidden_act": "gelu"}, "gelu"),
        ("muse_glimmer_text", {"hidden_activation": "gelu"}, "gelu"),
    ],
)
def test_refusals_name_the_reason(model_type, change, word):
    with pytest.raises(UnsupportedModelError, match=word):
        hf(model_type, **change)


def test_a_second_base_of_rotation_is_refused():
    gguf("muse-glimmer", rope__freq_base=5e5, rope__freq_base_swa=5e5)
    with pytest.raises(UnsupportedModelError, match="freq_base_swa"):
        gguf("muse-glimmer", rope__freq_base=5e5, rope__freq_base_swa=1e4)


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("llama4_text", {"no_rope_layers": [1, 0]}),
        ("llama4_text", {"no_rope_layers": [2] * 48}),
        ("llama4_text", {"no_rope_layers": 7}),
        ("llama4_text", {"moe_layers": ["x"]}),
        ("llama4_text", {"attention_chunk_size": 0}),
        ("llama4_text", {"layer_types": ["sliding_attention"] * 48}),
        ("llama4_text", {"num_local_experts": 0}),
        ("llama4_text", {"attn_temperature_tuning": "yes"}),
        ("llama4_text", {"floor_scale": -1}),
        ("muse_glimmer_text", {"layer_rope_theta": [0]}),
        ("muse_glimmer_text", {"layer_rope_theta": [-1.0] * 52}),
        ("muse_glimmer_text", {"output_multiplier": 0}),
        ("muse_glimmer_text", {"qk_scale_factor": "x"}),
        ("muse_glimmer_text", {"final_logit_softcapping": float("nan")}),
        ("gpt_oss", {"num_experts_per_tok": 129}),
        ("gpt_oss", {"num_local_experts": 10**9}),
    ],
)
def test_a_bad_number_of_config_json_is_named(model_type, change):
    with pytest.raises(MalformedFileError, match=next(iter(change))):
        hf(model_type, **change)


@pytest.mark.parametrize(
    ("architecture", "change"),
    [
        ("llama4", {"expert_feed_forward_length": ...}),
        ("llama4", {"expert_used_count": 17}),
        ("llama4", {"attention__sliding_window": -1}),
        ("llama4", {"attention__chunk_size": 0}),
        ("llama4", {"attention__sliding_window_pattern": [True, False]}),
        ("llama4", {"attention__temperature_scale": float("inf")}),
        ("muse-glimmer", {"logit_scale": ...}),
        ("muse-glimmer", {"final_logit_softcapping": -1.0}),
        ("muse-glimmer", {"attention__sliding_window_pattern": [True]}),
        ("gpt-oss", {"attention__sliding_window": ...}),
        ("gpt-oss", {"expert_count": ...}),
        ("gpt-oss", {"expert_feed_forward_length": 0}),
    ],
)
def test_a_bad_number_of_gguf_is_named(architecture, change):
    with pytest.raises(MalformedFileError, match=next(iter(change)).replace("__", r"\.")):
        gguf(architecture, **change)


@pytest.mark.parametrize(
    ("model_type", "change", "word"),
    [
        ("llama4_text", {"moe_layers": [1]}, "experts"),
        ("llama4_text", {"use_qk_norm": False}, "normed"),
        ("llama4_text", {"no_rope_layers": [1, 0, 1, 1]}, "rotation"),
        ("muse_glimmer_text", {"post_norm_eps": 1e-6}, "post_norm_eps"),
        ("muse_glimmer_text", {"layer_rope_theta": [1.0] * 4}, "window"),
    ],
)
def test_what_gguf_has_no_key_for_is_not_written(model_type, change, word):
    config = hf(model_type, num_hidden_layers=4, **change)
    with pytest.raises(UnsupportedModelError, match=word):
        dialect_of(family_of(checkpoint({"model_type": model_type}))).gguf_keys(config)


_HF_KEYS = [
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "layer_types", "head_dim",
    "num_hidden_layers", "no_rope_layers", "no_rope_layer_interval", "attention_chunk_size",
    "floor_scale", "attn_scale", "attn_temperature_tuning", "moe_layers", "num_local_experts",
    "interleave_moe_layer_step", "intermediate_size", "intermediate_size_mlp", "use_qk_norm",
    "num_experts_per_tok", "layer_rope_theta", "qk_scale_factor", "output_multiplier",
    "post_norm_eps", "final_logit_softcapping", "hidden_activation", "swiglu_limit", "text_config",
]  # fmt: skip
_GGUF_KEYS = [
    "attention__sliding_window", "attention__sliding_window_pattern", "attention__chunk_size",
    "attention__temperature_scale", "attention__temperature_length", "logit_scale",
    "final_logit_softcapping", "rope__freq_base_swa", "expert_count", "expert_used_count",
    "expert_feed_forward_length", "interleave_moe_layer_step", "block_count",
]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(
        [(hf, name, _HF_KEYS) for name in ("llama4_text", "muse_glimmer_text", "gpt_oss")]
        + [(gguf, name, _GGUF_KEYS) for name in _GGUF]
    ).flatmap(
        lambda way: st.tuples(
            st.just(way), st.dictionaries(st.sampled_from(way[2]), _junk, min_size=1, max_size=4)
        )
    )
)
def test_junk_values_never_escape_as_other_errors(drawn):
    (read, name, _), junk = drawn
    try:
        config = read(name, **junk)
    except UserError as error:
        if len(str(error)) > 600:
            pytest.fail("a file's junk must not flood the message")
        return
    assert np.isfinite(config.rope.inv_freq).all()
    assert math.isfinite(config.logit_scale)
    assert math.isfinite(config.final_softcap)
    assert config.chunk >= 0
    for layers in (config.nope_layers, config.full_attention_layers):
        assert all(0 <= layer < config.num_layers for layer in layers)
