# SPDX-License-Identifier: Apache-2.0
"""Keys of Ministral 3, SmolLM3, OLMo 2 and 3, Granite, Apertus and GPT-NeoX: constants that are in
no file, old spellings, wrappers, refusals, and hostile numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import _junk, checkpoint

import tiny_dense
import tiny_models
from batching import full_logits
from budgets import limit, logits_error
from freehold import backends
from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.base import ModelConfig
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.models.rope import QueryTemperature
from freehold.quantize import quantize

SIZES = {
    "block_count": 8,
    "context_length": 4096,
    "embedding_length": 96,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "vocab_size": 100,
}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 16.0,
        "rope.scaling.original_context_length": 256}  # fmt: skip
XIELU = {f"xielu.{part}": [0.1] * 8 for part in ("alpha_p", "alpha_n", "beta", "eps")}
HF = {
    "vocab_size": 100, "hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 8,
    "num_attention_heads": 4, "max_position_embeddings": 4096,
}  # fmt: skip


def gguf(architecture: str, bare: dict | None = None, **more) -> ModelConfig:
    """Config of a GGUF file; "__" in a key stands for "."."""
    eps = "layer_norm_epsilon" if architecture == "gptneox" else "layer_norm_rms_epsilon"
    keys = {**SIZES, f"attention.{eps}": 1e-6}
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    if bare is None and architecture == "apertus":
        bare = XIELU
    return read_config(
        checkpoint({"general.architecture": architecture, **metadata, **(bare or {})})
    )


def hf(model_type: str, **more) -> ModelConfig:
    return read_config(checkpoint({"model_type": model_type, **HF, **more}))


def windows(config: ModelConfig) -> list[int]:
    return [config.window(i) for i in range(config.num_layers)]


def inv_freq(base: float, dim: int) -> np.ndarray:
    return base ** (-np.arange(0, dim, 2) / dim)


# -- constants that are in no file -----------------------------------------------------------------


def test_what_a_gguf_of_each_leaves_out():
    assert gguf("smollm3").nope_layers == {3, 7}
    assert gguf("smollm3").rope.interleaved
    two, three = gguf("olmo2"), gguf("olmo2", attention__sliding_window=512, **YARN)
    assert (windows(two), two.local_rope) == ([0] * 8, None)
    assert windows(three) == ([512] * 3 + [0]) * 2
    assert three.local_rope is not None
    np.testing.assert_allclose(three.local_rope.inv_freq, inv_freq(1e4, 24))
    assert three.rope.magnitude > three.local_rope.magnitude == 1.0
    assert not two.rope.interleaved
    granite = gguf("granite", logit_scale=8.0)
    assert (granite.embedding_scale, granite.residual_scale) == (1.0, 1.0)
    assert granite.attention_scale == pytest.approx(24**-0.5)
    assert granite.logit_scale == 0.125
    assert gguf("granite", rope__scaling__finetuned=False).nope_layers == set(range(8))
    neox = gguf("gptneox", rope__dimension_count=6)
    assert (neox.activation, neox.parallel_residual, neox.num_kv_heads) == ("gelu", True, 4)
    assert len(neox.rope.inv_freq) == 3
    assert not gguf("gptneox", use_parallel_residual=False).parallel_residual


def test_mistral_files_hold_the_multiplier_as_it_is():
    """A log multiplier of 1 leaves cosine and sine alone; the temperature starts where the rotation
    was trained."""
    config = gguf("mistral3", attention__temperature_scale=0.1,
                  rope__scaling__yarn_log_multiplier=1.0, **YARN)  # fmt: skip
    assert config.rope.magnitude == pytest.approx(1.0)
    assert config.query_temperature == QueryTemperature(0.1, 256)
    assert gguf("mistral3").query_temperature is None
    longer = gguf("mistral3", attention__temperature_scale=0.1,
                  attention__temperature_length=512, **YARN)  # fmt: skip
    assert longer.query_temperature == QueryTemperature(0.1, 512)


def test_temperature_is_one_up_to_the_trained_length():
    positions = np.array([0, 15, 16, 47, 2_000_000], dtype=np.int32)
    factors = QueryTemperature(0.3, 16).factors(positions)
    want = [1.0, 1.0, 1 + 0.3 * math.log(2), 1 + 0.3 * math.log(3), 1 + 0.3 * math.log(125_001)]
    np.testing.assert_allclose(factors, want, rtol=1e-7)
    assert QueryTemperature(0.1, 16, offset=1).factors(positions[1:2]) > 1.0


def test_xielu_is_given_by_the_inverse_of_softplus():
    config = gguf("apertus", {**XIELU, "xielu.alpha_p": 0.3, "xielu.beta": [0.25] * 8})
    one = config.xielu[5]
    assert one.alpha_p == pytest.approx(math.log1p(math.exp(0.3)))
    assert one.alpha_n == pytest.approx(0.25 + math.log1p(math.exp(0.1)))
    assert len(config.xielu) == 8


@pytest.mark.parametrize(
    "kind", ["Ministral3", "SmolLM3", "Olmo2", "Olmo3", "Granite", "Apertus", "GPTNeoX"]
)
def test_absent_keys_mean_what_transformers_takes_them_for(kind):
    import transformers

    theirs = getattr(transformers, f"{kind}Config")(**HF)
    ours = hf(theirs.model_type)
    for name in ("num_key_value_heads", "rms_norm_eps", "layer_norm_eps", "tie_word_embeddings"):
        if hasattr(theirs, name) and name != "num_key_value_heads":
            mine = {"tie_word_embeddings": ours.tied_embeddings}.get(name, ours.norm_eps)
            assert mine == getattr(theirs, name), name
    rope = theirs.rope_parameters.get("full_attention", theirs.rope_parameters)
    head_dim = getattr(theirs, "head_dim", None) or 24
    assert ours.head_dim == head_dim
    dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    if rope.get("rope_type", "default") == "default":
        np.testing.assert_allclose(ours.rope.inv_freq, inv_freq(rope["rope_theta"], dim))
    kinds = getattr(theirs, "layer_types", None) or ["full_attention"] * 8
    expected = [theirs.sliding_window if k == "sliding_attention" else 0 for k in kinds]
    assert windows(ours) == expected
    nope = {i for i, has in enumerate(getattr(theirs, "no_rope_layers", [1] * 8)) if not has}
    assert ours.nope_layers == nope


def test_old_spellings():
    neox = hf("gpt_neox", rotary_pct=0.5, rotary_emb_base=500, layer_norm_eps=1e-3)
    np.testing.assert_allclose(neox.rope.inv_freq, inv_freq(500.0, 12))
    assert neox.norm_eps == 1e-3
    olmo = hf("olmo3", rope_theta=2e4, sliding_window=64,
              rope_scaling={"rope_type": "yarn", "factor": 8.0,
                            "original_max_position_embeddings": 512})  # fmt: skip
    assert windows(olmo) == ([64] * 3 + [0]) * 2
    assert olmo.local_rope is not None
    np.testing.assert_allclose(olmo.local_rope.inv_freq, inv_freq(2e4, 24))
    assert olmo.rope.magnitude > 1.0
    four = hf("granitemoehybrid", layers_block_type=["attention"] * 8, num_local_experts=0,
              shared_intermediate_size=64)  # fmt: skip
    assert (four.architecture, four.ffn_size) == ("granite", 64)
    assert four.nope_layers == set(range(8))


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_type", "change", "word"),
    [
        ("apertus", {"hidden_act": "silu"}, "xielu"),
        ("gpt_neox", {"hidden_act": "relu"}, "gelu"),
        ("granite", {"mlp_bias": True}, "mlp_bias"),
        ("granitemoehybrid", {"layer_types": ["mamba"] * 8}, "attention"),
        ("granitemoehybrid", {"layer_types": ["attention"] * 8}, "experts"),
        ("olmo3", {"layer_types": ["chunked_attention"] * 8}, "chunked"),
    ],
)
def test_refusals_name_the_reason(model_type, change, word):
    with pytest.raises(UnsupportedModelError, match=word):
        hf(model_type, **change)


@pytest.mark.parametrize(
    ("model_type", "change", "word"),
    [
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval"),
        ("granite", {"logits_scaling": 0.0}, "logits_scaling"),
        ("granite", {"residual_multiplier": float("nan")}, "residual_multiplier"),
        ("gpt_neox", {"rotary_pct": 7.0}, "rotary"),
        ("ministral3", {"rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
         "original_max_position_embeddings"),
        ("olmo3", {"rope_parameters": {"full_attention": [1]}}, "full_attention"),
    ],
)  # fmt: skip
def test_a_bad_number_of_config_json_is_named(model_type, change, word):
    with pytest.raises(MalformedFileError, match=word):
        hf(model_type, **change)


@pytest.mark.parametrize(
    ("architecture", "bare", "more", "word"),
    [
        ("apertus", {}, {}, "xielu.alpha_p is missing"),
        ("apertus", {**XIELU, "xielu.eps": [0.1] * 7}, {}, "xielu.eps must be a list of 8"),
        ("apertus", {**XIELU, "xielu.beta": [math.nan] * 8}, {}, "ordinary size"),
        ("gptneox", None, {"attention__layer_norm_epsilon": None}, "layer_norm_epsilon is missing"),
        ("mistral3", None, {"attention__temperature_scale": 0.1}, "original_context_length"),
        ("granite", None, {"logit_scale": -2.0}, "logit_scale"),
        ("olmo2", None, {"attention__sliding_window": 8, "rope__freq_base_swa": 0.5}, "base_swa"),
    ],
)
def test_a_bad_number_of_gguf_is_named(architecture, bare, more, word):
    with pytest.raises(MalformedFileError, match=word):
        gguf(architecture, bare, **more)


_HF_KEYS = [
    "rope_parameters", "rope_scaling", "rope_theta", "sliding_window", "layer_types",
    "use_sliding_window", "no_rope_layers", "no_rope_layer_interval", "hidden_act", "rotary_pct",
    "rotary_emb_base", "use_parallel_residual", "layer_norm_eps", "embedding_multiplier",
    "logits_scaling", "residual_multiplier", "attention_multiplier", "position_embedding_type",
    "num_local_experts", "shared_intermediate_size", "num_hidden_layers", "head_dim",
    "num_attention_heads", "text_config",
]  # fmt: skip
_GGUF_KEYS = [
    "attention__sliding_window", "attention__sliding_window_pattern", "attention__scale",
    "attention__temperature_scale", "attention__temperature_length", "rope__freq_base_swa",
    "rope__scaling__factor", "rope__scaling__finetuned", "embedding_scale", "residual_scale",
    "logit_scale", "use_parallel_residual", "block_count", "rope__scaling__yarn_log_multiplier",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        [(hf, name, _HF_KEYS) for name in ("ministral3", "smollm3", "olmo2", "olmo3", "granite",
                                           "granitemoehybrid", "apertus", "gpt_neox")]
        + [(gguf, name, _GGUF_KEYS) for name in ("mistral3", "smollm3", "olmo2", "granite",
                                                 "apertus", "gptneox")]
    ).flatmap(
        lambda way: st.tuples(
            st.just(way), st.dictionaries(st.sampled_from(way[2]), _junk, min_size=1, max_size=4)
        )
    )
)  # fmt: skip
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
    assert all(window >= 0 for window in windows(config))
    for number in (config.logit_scale, config.residual_scale, config.embedding_scale):
        assert math.isfinite(number)


# -- whole files -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "outer", "inner"),
    [("ministral3", False, False), ("ministral3", True, False), ("mistral", False, True)],
)
def test_the_language_model_inside_a_multimodal_one(kind, outer, inner, tmp_path):
    """What the wrapper says of the output matrix counts, whatever the part inside says."""
    import transformers

    own = tiny_dense._MINISTRAL if kind == "ministral3" else {"sliding_window": None}
    text = {**tiny_models._COMMON, **own, "model_type": kind, "tie_word_embeddings": inner}
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "head_dim": 8,
              "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
              "patch_size": 14}  # fmt: skip
    config = transformers.Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=150, tie_word_embeddings=outer,
        attn_implementation="eager",
    )  # fmt: skip
    model = transformers.Mistral3ForConditionalGeneration(config).eval().float()
    tiny_models.randomised(model).save_pretrained(tmp_path / "hf")
    ids = [i for i in tiny_models.prompt() if i < 150]
    want = tiny_models.reference_logits(model, ids)
    quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    ops = backends.create("reference")
    for path in (tmp_path / "hf", tmp_path / "out.gguf"):
        with open_checkpoint(path) as opened:
            loaded = load_model(opened, ops)
            assert loaded.config.tied_embeddings == outer
            got = full_logits(loaded, ops, ids)
        assert logits_error(got, want) < limit("reference", "logits")


def test_what_gguf_has_no_words_for_is_not_written(tmp_path):
    tiny_dense.build("smollm3-window").save_pretrained(tmp_path / "hf")
    with pytest.raises(UnsupportedModelError, match="smollm3"):
        quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")
    tiny_dense.build("gptneox", hidden_act="gelu_new").save_pretrained(tmp_path / "neox")
    with pytest.raises(UnsupportedModelError, match="gelu_tanh"):
        quantize(tmp_path / "neox", tmp_path / "out.gguf", "F32")


@pytest.mark.parametrize(
    ("case", "name"),
    [("gptneox", "layers.1.input_layernorm.bias"), ("olmo2", "layers.1.self_attn.k_norm.weight"),
     ("apertus", "layers.2.mlp.act_fn.alpha_n"),
     ("granite4", "layers.0.shared_mlp.input_linear.weight")],
)  # fmt: skip
def test_a_missing_tensor_is_named(case, name, tmp_path):
    from safetensors.numpy import load_file, save_file

    tiny_dense.build(case).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    kept = {n: t for n, t in tensors.items() if not n.endswith(name)}
    assert len(kept) == len(tensors) - 1
    save_file(kept, file)
    with (
        pytest.raises(MalformedFileError, match=r"blk\.[012]\..+ is missing"),
        open_checkpoint(tmp_path) as opened,
    ):
        load_model(opened, backends.create("reference"))
