# SPDX-License-Identifier: Apache-2.0
"""Model configs from both formats: what they mean, and what a hostile number does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.errors import FreeholdError, MalformedFileError, UnsupportedModelError, UserError
from freehold.formats.checkpoint import Checkpoint
from freehold.models.base import ModelConfig
from freehold.models.config import families, read_config
from freehold.models.rope import RopeScaling, inverse_frequencies

GGUF = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.vocab_size": 100,
}
QWEN2 = {key.replace("llama", "qwen2"): value for key, value in GGUF.items()}
QWEN2["general.architecture"] = "qwen2"
HF = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "max_position_embeddings": 2048,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 100,
}


class Vector:
    """A tensor that is nothing but its values."""

    qtype = "F32"

    def __init__(self, name: str, values: np.ndarray) -> None:
        self.name, self.shape, self.values = name, values.shape, values
        self.nbytes = values.nbytes

    def to_f32(self) -> np.ndarray:
        return self.values.astype(np.float32)


def checkpoint(metadata: dict, tensors: dict | None = None) -> Checkpoint:
    gguf = "general.architecture" in metadata or "model_type" not in metadata
    return Checkpoint(
        path=Path("model.gguf" if gguf else "model"),
        directory=Path(),
        format="gguf" if gguf else "safetensors",
        architecture=metadata.get("general.architecture" if gguf else "model_type", ""),
        metadata=metadata,
        value_types={},
        tensors=tensors or {},
        files=[],
        _open=[],
    )


def config_of(base: dict, **changes) -> ModelConfig:
    """Config of `base` with changes; "__" in a key stands for "."; ... removes the key."""
    merged = {**base, **{key.replace("__", "."): value for key, value in changes.items()}}
    return read_config(checkpoint({k: v for k, v in merged.items() if v is not ...}))


# -- what the keys mean -----------------------------------------------------------------------


@pytest.mark.parametrize("base", [GGUF, HF], ids=["gguf", "hf"])
def test_sizes(base):
    config = config_of(base)
    assert (config.architecture, config.num_layers, config.context_length) == ("llama", 4, 2048)
    assert (config.hidden_size, config.ffn_size, config.vocab_size) == (64, 96, 100)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 2, 8)
    assert config.norm_eps == 1e-5
    assert config.rope.interleaved == (base is GGUF)
    assert config.sliding_window == 0
    np.testing.assert_allclose(config.rope.inv_freq, 10000.0 ** (-np.arange(0, 8, 2) / 8))


def test_defaults_of_absent_keys():
    gguf = config_of(GGUF, llama__attention__head_count_kv=..., llama__rope__freq_base=...)
    assert gguf.num_kv_heads == 8
    assert gguf.rope.inv_freq[1] == pytest.approx(10000.0**-0.25)
    hf = config_of(HF, num_key_value_heads=..., rms_norm_eps=...)
    assert (hf.num_kv_heads, hf.norm_eps) == (8, 1e-6)
    assert config_of(HF, num_key_value_heads=None).num_kv_heads == 8
    assert config_of({**HF, "model_type": "qwen3"}).head_dim == 128


def test_per_layer_numbers_count_where_they_agree():
    assert config_of(GGUF, llama__attention__head_count_kv=np.array([2] * 4)).num_kv_heads == 2
    with pytest.raises(MalformedFileError, match=r"feed_forward_length must be the same"):
        config_of(GGUF, llama__feed_forward_length=[96, 96, 64, 96])


def test_window_of_each_family():
    mistral = {**HF, "model_type": "mistral", "sliding_window": 512}
    assert [config_of(mistral).window(i) for i in range(4)] == [512] * 4
    assert config_of(mistral, sliding_window=None).window(0) == 0
    assert config_of(HF, sliding_window=512).window(0) == 0  # Llama has no such key
    qwen = {**HF, "model_type": "qwen2", "sliding_window": 512, "max_window_layers": 3}
    assert config_of(qwen).window(3) == 0
    assert config_of(qwen, use_sliding_window=False).window(3) == 0
    on = config_of(qwen, use_sliding_window=True)
    assert [on.window(i) for i in range(4)] == [0, 0, 0, 512]
    kinds = ["full_attention", "sliding_attention"] * 2
    typed = config_of({**mistral, "model_type": "ministral"}, layer_types=kinds)
    assert [typed.window(i) for i in range(4)] == [0, 512, 0, 512]
    with pytest.raises(UnsupportedModelError, match="chunked_attention"):
        config_of(mistral, layer_types=["chunked_attention"] * 4)
    with pytest.raises(MalformedFileError, match="layer_types must be a list of 4 names"):
        config_of(mistral, layer_types=kinds[:3])


def test_window_of_gguf():
    config = config_of(GGUF, llama__attention__sliding_window=64)
    assert [config.window(i) for i in range(4)] == [64] * 4
    flags = np.array([True, False, True, True])
    config = config_of(
        GGUF,
        llama__attention__sliding_window=64,
        llama__attention__sliding_window_pattern=flags,
    )
    assert [config.window(i) for i in range(4)] == [64, 0, 64, 64]
    config = config_of(
        GGUF, llama__attention__sliding_window=64, llama__attention__sliding_window_pattern=2
    )
    assert [config.window(i) for i in range(4)] == [64, 0, 64, 0]


def test_tied_embeddings():
    assert config_of(HF, tie_word_embeddings=True).tied_embeddings
    assert not config_of(HF, tie_word_embeddings=False).tied_embeddings
    table = Vector("token_embd.weight", np.zeros((100, 64)))
    assert read_config(checkpoint(GGUF, {table.name: table})).tied_embeddings
    output = Vector("output.weight", np.zeros((100, 64)))
    both = {table.name: table, output.name: output}
    assert not read_config(checkpoint(GGUF, both)).tied_embeddings


def test_text_part_of_a_multimodal_config():
    inner = {**HF, "model_type": "mistral", "sliding_window": None}
    config = config_of({"model_type": "mistral3", "text_config": inner, "hidden_size": 7})
    assert (config.architecture, config.hidden_size) == ("llama", 64)
    unnamed = {k: v for k, v in inner.items() if k != "model_type"}
    assert config_of({"model_type": "mistral3", "text_config": unnamed}).architecture == "llama"
    other = config_of(
        {"model_type": "mistral3", "text_config": inner | {"model_type": "ministral3"}}
    )
    assert other.architecture == "mistral3"
    with pytest.raises(UnsupportedModelError, match="ministral9"):
        config_of({"model_type": "mistral3", "text_config": {**inner, "model_type": "ministral9"}})


# -- rope -------------------------------------------------------------------------------------

_TRAINED = {"factor": 8.0, "original_max_position_embeddings": 512}
SCALINGS = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, **_TRAINED},
    {"rope_type": "yarn", **_TRAINED},
    {"rope_type": "yarn", "beta_fast": 16.0, "beta_slow": 2.0, **_TRAINED},
    {"rope_type": "yarn", "truncate": False, **_TRAINED},
    {"rope_type": "yarn", "attention_factor": 0.7, **_TRAINED},
    {"rope_type": "yarn", "mscale": 0.7, "mscale_all_dim": 1.3, **_TRAINED},
    # The ramp ends beyond the last pair.
    {"rope_type": "yarn", "rope_theta": 100.0, "factor": 2.0,
     "original_max_position_embeddings": 2048},
    {"rope_type": "yarn", "factor": 4.0},  # trained context = max_position_embeddings
]  # fmt: skip


@pytest.mark.parametrize("style", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_rope_equals_transformers(scaling, style):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    sizes = {"hidden_size": 512, "num_attention_heads": 4, "max_position_embeddings": 4096}
    parameters = {"rope_theta": 50000.0, **scaling}
    kind = scaling["rope_type"]
    theirs = LlamaConfig(**sizes, rope_parameters=dict(parameters))
    if kind == "default":
        want, magnitude = 50000.0 ** (-np.arange(0, 128, 2) / 128), 1.0
    else:
        tensor, magnitude = ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
        want = tensor.numpy()
    if style == "rope_parameters":
        changes = {"rope_parameters": parameters}
    else:  # before transformers 5: "type", and the base beside it
        old = {"type": kind, **{k: v for k, v in scaling.items() if k[:5] != "rope_"}}
        changes = {"rope_theta": parameters["rope_theta"], "rope_scaling": old}
    ours = config_of({**HF, **sizes, "num_key_value_heads": 4}, **changes).rope
    np.testing.assert_allclose(ours.inv_freq, want, rtol=3e-6)
    assert ours.magnitude == pytest.approx(magnitude, rel=1e-9)


def gguf_rope(**scaling):
    keys = {f"llama__rope__scaling__{key}": value for key, value in scaling.items()}
    return config_of(GGUF, llama__attention__key_length=64,
                     llama__attention__value_length=64, **keys).rope  # fmt: skip


def test_yarn_reaches_beyond_the_trained_context():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    assert config_of(HF, rope_scaling=yarn).context_length == 8192
    assert config_of(HF, rope_scaling={**yarn, "factor": 0.5}).context_length == 2048
    assert config_of(HF, rope_scaling={"type": "yarn", "factor": 4.0}).context_length == 2048
    assert config_of(HF, rope_scaling={"type": "linear", "factor": 4.0}).context_length == 2048
    keys = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    assert config_of({**GGUF, **keys}).context_length == 2048
    keys["llama.rope.scaling.original_context_length"] = 2048
    assert config_of({**GGUF, **keys}).context_length == 8192
    keys["llama.context_length"] = 10_000
    assert config_of({**GGUF, **keys}).context_length == 10_000


def test_gguf_linear_spellings():
    plain = gguf_rope().inv_freq
    np.testing.assert_allclose(gguf_rope(type="linear", factor=4.0).inv_freq, plain / 4)
    np.testing.assert_allclose(gguf_rope(factor=4.0).inv_freq, plain / 4)
    np.testing.assert_allclose(gguf_rope(type="none", factor=4.0).inv_freq, plain)
    np.testing.assert_allclose(gguf_rope(factor=0.0).inv_freq, plain)
    old = config_of(GGUF, llama__rope__scale_linear=2.0).rope.inv_freq
    np.testing.assert_allclose(old, config_of(GGUF).rope.inv_freq / 2)
    with pytest.raises(UnsupportedModelError, match="longrope"):
        gguf_rope(type="longrope")


def test_gguf_yarn():
    base = {"type": "yarn", "factor": 4.0, "original_context_length": 512}
    natural = 0.1 * math.log(4) + 1
    want = inverse_frequencies(64, 10000.0, RopeScaling("yarn", 4.0, 512))
    rope = gguf_rope(**base)
    np.testing.assert_allclose(rope.inv_freq, want)
    assert rope.magnitude == pytest.approx(natural)
    assert gguf_rope(**base, attn_factor=0.5).magnitude == pytest.approx(natural / 2)
    assert gguf_rope(**base, yarn_attn_factor=1.1).magnitude == pytest.approx(1.1)
    log = gguf_rope(**base, yarn_log_multiplier=0.5).magnitude
    assert log == pytest.approx(natural / (0.05 * math.log(4) + 1))
    off = gguf_rope(**base, yarn_ext_factor=0.0)
    np.testing.assert_allclose(off.inv_freq, gguf_rope().inv_freq / 4)
    assert off.magnitude == 1.0


def test_gguf_rope_freqs_divide():
    factors = np.array([1.0, 2.0, 4.0, 8.0])
    tensors = {"rope_freqs.weight": Vector("rope_freqs.weight", factors)}
    rope = read_config(checkpoint(GGUF, tensors)).rope
    np.testing.assert_allclose(rope.inv_freq, config_of(GGUF).rope.inv_freq / factors)
    for bad in (np.ones(5), np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, np.nan, 1.0, 1.0])):
        tensors = {"rope_freqs.weight": Vector("rope_freqs.weight", bad)}
        with pytest.raises(MalformedFileError, match=r"rope_freqs\.weight"):
            read_config(checkpoint(GGUF, tensors))


def test_partial_rotation():
    assert len(config_of(GGUF, llama__rope__dimension_count=4).rope.inv_freq) == 2
    assert len(config_of(HF, partial_rotary_factor=0.5).rope.inv_freq) == 2
    for bad in (3, 10, 0):
        with pytest.raises(MalformedFileError, match="dimension_count"):
            config_of(GGUF, llama__rope__dimension_count=bad)


# -- refusals ---------------------------------------------------------------------------------

_BAD = [0, -1, 2**32 - 1, 10**400, math.nan, math.inf, "64", True, [], {}, [1, 2]]


@pytest.mark.parametrize("value", _BAD, ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize(
    ("base", "key"),
    [(b, k) for b in (GGUF, HF) for k in b
     if k not in ("general.architecture", "model_type", "llama.vocab_size")],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_a_bad_number_is_named(base, key, value):
    if key == "llama.rope.freq_base" and value == 2**32 - 1:
        value = -1.0  # a base that large is odd, and legal
    with pytest.raises(MalformedFileError, match=key.rpartition(".")[2]):
        config_of({**base, key: value})


@pytest.mark.parametrize("base", [GGUF, HF], ids=["gguf", "hf"])
def test_a_missing_number_is_named(base):
    optional = {"kv", "key_value", "rms", "freq_base", "vocab_size", "architecture", "model_type"}
    for key in base:
        if not any(word in key for word in optional):
            with pytest.raises(MalformedFileError, match=f"{key} is missing"):
                config_of({k: v for k, v in base.items() if k != key})


def test_sizes_that_contradict_each_other():
    with pytest.raises(MalformedFileError, match="head_count_kv must be a divisor"):
        config_of(GGUF, llama__attention__head_count_kv=3)
    with pytest.raises(MalformedFileError, match="num_key_value_heads must be a divisor"):
        config_of(HF, num_key_value_heads=3)
    with pytest.raises(MalformedFileError, match="head_count must be a divisor"):
        config_of(GGUF, llama__attention__head_count=6)
    with pytest.raises(MalformedFileError, match="value_length must be equal"):
        config_of(GGUF, llama__attention__value_length=16)
    table = Vector("model.embed_tokens.weight", np.zeros((90, 64)))
    with pytest.raises(MalformedFileError, match="vocab_size is 100"):
        read_config(checkpoint(HF, {table.name: table}))


def test_tokenizer_must_fit_the_embedding():
    table = {"token_embd.weight": Vector("token_embd.weight", np.zeros((3, 64)))}
    tokens = {"tokenizer.ggml.tokens": ["a", "b", "c"]}
    assert read_config(checkpoint({**GGUF, **tokens}, table)).vocab_size == 3
    for extra, name in (
        ({"tokenizer.ggml.tokens": list("abcd")}, "tokens"),
        ({"tokenizer.ggml.bos_token_id": 3}, "bos_token_id"),
        ({"tokenizer.ggml.eos_token_id": -2}, "eos_token_id"),
        ({"tokenizer.ggml.scores": [0.0]}, "scores"),
        ({"tokenizer.ggml.token_type": 3}, "token_type"),
        ({"tokenizer.ggml.tokens": 7}, "tokens"),
    ):
        with pytest.raises(MalformedFileError, match=name):
            read_config(checkpoint({**GGUF, **tokens, **extra}, table))


@pytest.mark.parametrize(
    ("base", "changes", "word"),
    [
        (GGUF, {"general.architecture": "zorkformer"}, "zorkformer"),
        (HF, {"model_type": "mamba"}, "mamba"),
        (QWEN2, {"qwen2.expert_count": 8}, "mixture of 8 experts"),
        (GGUF, {"llama.attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        (GGUF, {"llama.attention.causal": False}, "attention.causal"),
        (HF, {"hidden_act": "gelu"}, "gelu"),
        (HF, {"mlp_bias": True}, "mlp_bias"),
        (HF, {"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        (HF, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_refusals_name_the_reason(base, changes, word):
    with pytest.raises(UnsupportedModelError, match=word):
        config_of({**base, **changes})


def test_an_unknown_architecture_hears_what_is_supported():
    with pytest.raises(UnsupportedModelError) as caught:
        config_of(GGUF, **{"general.architecture": "zorkformer"})
    assert {"llama", "mixtral", "qwen2", "qwen2moe", "qwen3", "qwen3moe"} <= set(families())
    for name in families():
        assert name in str(caught.value)


def test_an_undeclared_architecture():
    with pytest.raises(MalformedFileError, match=r"general\.architecture is missing"):
        config_of(GGUF, general__architecture=...)


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([0, 1, 2, 8, 64, "yarn", "linear", "llama3", 2**31, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["rope_type", "factor", "type", "rope_theta", "beta_fast", "beta_slow",
                         "low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim",
                         "original_max_position_embeddings", "attention_factor", "model_type"]),
        inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
_GGUF_KEYS = [
    *GGUF, "llama.attention.key_length", "llama.attention.sliding_window",
    "llama.attention.sliding_window_pattern", "llama.rope.dimension_count",
    "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.expert_count",
    "llama.rope.scaling.yarn_beta_fast", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
    "tokenizer.ggml.bos_token_id",
]  # fmt: skip
_HF_KEYS = [
    *HF, "head_dim", "rope_parameters", "rope_scaling", "rope_theta", "sliding_window",
    "layer_types", "use_sliding_window", "max_window_layers", "text_config",
    "quantization_config", "tie_word_embeddings", "partial_rotary_factor",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([(GGUF, _GGUF_KEYS), (HF, _HF_KEYS),
                     ({**HF, "model_type": "mistral"}, _HF_KEYS),
                     ({**HF, "model_type": "qwen3"}, _HF_KEYS)]).flatmap(
        lambda pair: st.tuples(
            st.just(pair[0]),
            st.dictionaries(st.sampled_from(pair[1]), _junk, min_size=1, max_size=4),
        )
    )
)  # fmt: skip
def test_junk_values_never_escape_as_other_errors(pair):
    base, junk = pair
    merged = {**base, **junk}
    for key in ("general.architecture", "model_type"):
        if key in merged and not isinstance(merged[key], str):
            merged[key] = base[key]  # the checkpoint has refused those already
    try:
        config = read_config(checkpoint(merged))
    except UserError as error:
        if len(str(error)) > 600:
            pytest.fail("a file's junk must not flood the message")
        return
    except FreeholdError as error:
        pytest.fail(f"not a user's error: {error!r}")
    assert np.isfinite(config.rope.inv_freq).all()
    assert math.isfinite(config.rope.magnitude)
    assert config.num_heads % config.num_kv_heads == 0
    assert all(config.window(i) >= 0 for i in range(config.num_layers))


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_llama3_scaling_without_a_blend(factor):
    """Llama 4 Scout has one bound for both: what turns less often is stretched, all else kept."""
    table = {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": factor,
             "high_freq_factor": factor, "original_max_position_embeddings": 64}  # fmt: skip
    config = config_of(HF, rope_scaling=table, head_dim=32)
    plain = 10000.0 ** -(np.arange(16) / 16)
    turns = 64 * plain / (2 * np.pi)
    want = np.where(turns >= factor, plain, plain / 16)
    assert 0 < (want == plain).sum() < 16
    np.testing.assert_allclose(config.rope.inv_freq, want, rtol=1e-12)
    with pytest.raises(MalformedFileError, match="high_freq_factor"):
        config_of(HF, rope_scaling={**table, "high_freq_factor": factor / 2})
