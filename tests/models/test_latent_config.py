# SPDX-License-Identifier: Apache-2.0
"""Keys of the DeepSeek line: what files leave out, both ages of GGUF, refusals, junk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_config import _junk

from freehold.errors import MalformedFileError, UnsupportedModelError, UserError
from freehold.formats.checkpoint import Checkpoint
from freehold.models.config import read_config

COMMON = {
    "block_count": 60, "context_length": 4096, "embedding_length": 5120,
    "feed_forward_length": 12288, "attention.head_count": 128, "vocab_size": 100,
    "attention.layer_norm_rms_epsilon": 1e-6, "attention.kv_lora_rank": 512,
    "attention.q_lora_rank": 1536, "rope.dimension_count": 64,
}  # fmt: skip
OLD = {"attention.head_count_kv": 128, "attention.key_length": 192, "attention.value_length": 128}
NEW = {"attention.head_count_kv": 1, "attention.key_length": 576, "attention.value_length": 512,
       "attention.key_length_mla": 192, "attention.value_length_mla": 128}  # fmt: skip
EXPERTS = {"expert_count": 160, "expert_used_count": 6, "expert_shared_count": 2,
           "expert_feed_forward_length": 1536, "leading_dense_block_count": 1,
           "expert_weights_scale": 16.0}  # fmt: skip
V2_YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
           "rope.scaling.original_context_length": 4096,
           "rope.scaling.yarn_log_multiplier": 0.0707}  # fmt: skip
HF = {
    "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "n_shared_experts": 1, "n_routed_experts": 256, "routed_scaling_factor": 2.5,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "qk_nope_head_dim": 128, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "norm_topk_prob": True, "max_position_embeddings": 163840,
    "rms_norm_eps": 1e-6, "vocab_size": 129280, "rope_theta": 10000, "scoring_func": "sigmoid",
    "topk_method": "noaux_tc", "num_nextn_predict_layers": 1, "ep_size": 1, "moe_layer_freq": 1,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                     "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                     "type": "yarn"},
}  # fmt: skip


def read(metadata: dict):
    """Config of a file of metadata alone."""
    gguf = "general.architecture" in metadata
    return read_config(
        Checkpoint(
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
    )


def gguf(architecture: str = "deepseek2", *parts: dict, **more):
    """Config of a GGUF file; "__" in a key stands for "."."""
    keys = dict(COMMON)
    for part in parts:
        keys |= part
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    metadata = {f"{architecture}.{key}": value for key, value in keys.items()}
    return read({"general.architecture": architecture, **metadata})


def hf(model_type: str = "deepseek_v3", **more):
    return read({"model_type": model_type, **HF, **more})


def stretch(factor: float, mscale: float) -> float:
    return (0.1 * mscale * math.log(factor) + 1.0) ** 2


@pytest.mark.parametrize("age", [OLD, NEW])
def test_v2_of_either_age(age):
    config = gguf("deepseek2", age, EXPERTS, V2_YARN)
    latent, moe = config.latent, config.moe
    assert (config.head_dim, config.num_kv_heads, config.num_layers) == (192, 1, 60)
    assert (latent.rank, latent.query_rank, latent.nope_dim) == (512, 1536, 128)
    assert (latent.rotated_dim, latent.value_dim, latent.indexer) == (64, 128, None)
    # mscale equals mscale_all_dim in these models: the rotation is not scaled, the scores are.
    assert config.rope.magnitude == pytest.approx(1.0)
    assert config.attention_scale == pytest.approx(192**-0.5 * stretch(40, 0.707))
    assert config.rope.interleaved
    assert (moe.num_experts, moe.expert_ffn_size, moe.shared_ffn_size) == (160, 1536, 3072)
    assert moe.dense_layers == {0}
    assert not moe.selection_bias
    assert not moe.shared_is_gated
    routing = moe.routing
    assert (routing.scoring, routing.normalise, routing.scale) == ("softmax", False, 16.0)
    assert (routing.num_groups, routing.group_score) == (1, "max")
    assert [(s.num_kv_heads, s.key_dim, s.value_dim) for s in config.kv_layers()] == [
        (1, 576, 0)
    ] * 60


def test_v3_judges_groups_by_their_best_two():
    config = gguf("deepseek2", NEW, EXPERTS, expert_gating_func=2, expert_group_count=8,
                  expert_group_used_count=4, expert_weights_norm=True,
                  expert_weights_scale=2.5)  # fmt: skip
    routing = config.moe.routing
    assert (routing.scoring, routing.group_score) == ("sigmoid", "sum2")
    assert (routing.num_groups, routing.top_groups, routing.normalise) == (8, 4, True)
    assert config.attention_scale == pytest.approx(192**-0.5)  # without yarn
    grouped = gguf("deepseek2", NEW, EXPERTS, expert_group_count=8, expert_group_used_count=3)
    assert grouped.moe.routing.group_score == "max"


def test_the_multiplier_means_another_magnitude_elsewhere():
    """Readers of the other architectures take mscale for 1."""
    config = gguf("deepseek32", NEW, EXPERTS, V2_YARN, attention__indexer__head_count=64,
                  attention__indexer__key_length=128, attention__indexer__top_k=2048)  # fmt: skip
    want = math.sqrt(stretch(40, 1.0) / stretch(40, 0.707))
    assert config.rope.magnitude == pytest.approx(want)
    without = dict(V2_YARN)
    del without["rope.scaling.yarn_log_multiplier"]
    config = gguf("deepseek2", NEW, without)
    assert config.rope.magnitude == pytest.approx(math.sqrt(stretch(40, 1.0)))
    assert config.attention_scale == pytest.approx(192**-0.5)


def test_mistral_large_3_is_this_architecture_with_a_temperature():
    config = gguf("deepseek2", NEW, EXPERTS, expert_gating_func=1, expert_weights_norm=True,
                  attention__temperature_scale=0.1, attention__temperature_length=8192)  # fmt: skip
    assert config.moe.routing.scoring == "softmax"
    assert config.moe.routing.normalise
    temperature = config.query_temperature
    assert (temperature.scale, temperature.length, temperature.offset) == (
        pytest.approx(0.1), 8192, 0,
    )  # fmt: skip
    assert config.tempered(5)


def test_small_4_takes_its_length_from_the_trained_context():
    config = gguf("mistral4", NEW, V2_YARN, attention__temperature_scale=0.1,
                  rope__scaling__original_context_length=8192)  # fmt: skip
    assert config.query_temperature.length == 8192


def test_published_config_of_v3():
    config = hf()
    latent, routing = config.latent, config.moe.routing
    assert (config.head_dim, config.num_kv_heads, config.num_layers) == (192, 1, 61)
    assert (latent.rank, latent.query_rank, latent.nope_dim) == (512, 1536, 128)
    assert config.context_length == 163840
    assert config.rope.magnitude == pytest.approx(1.0)
    assert len(config.rope.inv_freq) == 32
    assert config.attention_scale == pytest.approx(192**-0.5 * stretch(40, 1.0))
    assert (routing.scoring, routing.group_score, routing.scale) == ("sigmoid", "sum2", 2.5)
    assert (routing.num_groups, routing.top_groups, routing.top_k) == (8, 4, 8)
    assert config.moe.selection_bias
    assert config.moe.dense_layers == {0, 1, 2}


def test_published_config_of_v2():
    """The rank of queries is null in the Lite model, groups of a greedy choice mean nothing."""
    config = hf("deepseek_v2", q_lora_rank=None, topk_method="greedy", n_group=8, topk_group=1,
                scoring_func="softmax", norm_topk_prob=False)  # fmt: skip
    assert config.latent.query_rank == 0
    routing = config.moe.routing
    assert (routing.num_groups, routing.scoring, routing.normalise) == (1, "softmax", False)
    grouped = hf("deepseek_v2", topk_method="group_limited_greedy", scoring_func="softmax",
                 topk_group=3, norm_topk_prob=False, num_experts_per_tok=6)  # fmt: skip
    routing = grouped.moe.routing
    assert (routing.num_groups, routing.top_groups, routing.group_score) == (8, 3, "max")
    assert not grouped.moe.selection_bias


@pytest.mark.parametrize(
    ("name", "model_type"),
    [("DeepseekV2", "deepseek_v2"), ("DeepseekV3", "deepseek_v3"),
     ("DeepseekV32", "deepseek_v32"), ("Mistral4", "mistral4")],
)  # fmt: skip
def test_absent_keys_mean_what_transformers_takes_them_for(name, model_type):
    import transformers

    theirs = getattr(transformers, f"{name}Config")()
    given_keys = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                  "num_attention_heads", "max_position_embeddings", "rope_parameters",
                  "moe_intermediate_size", "n_routed_experts", "n_shared_experts"}  # fmt: skip
    values = {k: v for k, v in theirs.to_dict().items() if k in given_keys}
    if model_type == "deepseek_v2":
        values["num_experts_per_tok"] = 6  # theirs has none
    else:
        values |= {"num_experts_per_tok": theirs.num_experts_per_tok,
                   "n_group": theirs.n_group, "topk_group": theirs.topk_group,
                   "routed_scaling_factor": theirs.routed_scaling_factor}  # fmt: skip
    config = read({"model_type": model_type, **values})
    latent, routing = config.latent, config.moe.routing
    assert (latent.rank, latent.query_rank) == (theirs.kv_lora_rank, theirs.q_lora_rank)
    assert (latent.nope_dim, latent.rotated_dim) == (
        theirs.qk_nope_head_dim, theirs.qk_rope_head_dim,
    )  # fmt: skip
    assert latent.value_dim == theirs.v_head_dim
    assert config.norm_eps == theirs.rms_norm_eps
    assert routing.normalise == theirs.norm_topk_prob
    dense = getattr(theirs, "first_k_dense_replace", 0)
    assert config.moe.dense_layers == set(range(dense))


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"scoring_func": "tanh"}, "tanh"),
        ({"topk_method": "hash"}, "hash"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_refusals_name_the_reason(change, word):
    with pytest.raises(UnsupportedModelError, match=word):
        hf(**change)


@pytest.mark.parametrize(
    "change",
    [{"kv_lora_rank": 0}, {"kv_lora_rank": 10**9}, {"q_lora_rank": -1}, {"qk_nope_head_dim": None},
     {"qk_rope_head_dim": 7}, {"v_head_dim": "x"}, {"n_group": 3}, {"topk_group": 9},
     {"num_experts_per_tok": 129}, {"n_routed_experts": 10**6}, {"moe_intermediate_size": 0},
     {"n_shared_experts": 2**31}, {"routed_scaling_factor": float("nan")},
     {"mlp_layer_types": ["dense"]}, {"mlp_layer_types": ["moe"] * 61}, {"rope_scaling": [1]},
     {"first_k_dense_replace": -1}, {"moe_layer_freq": 0}],
)  # fmt: skip
def test_a_bad_number_of_config_json_is_named(change):
    words = {"qk_rope_head_dim": "heads of 7|qk_rope", "rope_scaling": "rope"}
    key = next(iter(change))
    with pytest.raises(MalformedFileError, match=words.get(key, key)):
        hf(**change)


@pytest.mark.parametrize(
    "change",
    [{"attention__kv_lora_rank": 0}, {"rope__dimension_count": 192}, {"rope__dimension_count": 0},
     {"attention__key_length_mla": -1}, {"attention__value_length_mla": "x"},
     {"expert_used_count": 161}, {"expert_group_count": 7}, {"expert_group_used_count": 3},
     {"expert_shared_count": 2**30}, {"leading_dense_block_count": 61},
     {"expert_weights_scale": float("inf")}, {"rope__scaling__yarn_log_multiplier": "x"},
     {"attention__temperature_scale": -1.0}, {"nextn_predict_layers": 60}],
)  # fmt: skip
def test_a_bad_number_of_gguf_is_named(change):
    with pytest.raises(MalformedFileError, match=next(iter(change)).replace("__", r"\.")):
        gguf("deepseek2", NEW, EXPERTS, V2_YARN, **change)


def test_an_unknown_gate_is_refused():
    with pytest.raises(UnsupportedModelError, match="expert_gating_func"):
        gguf("deepseek2", NEW, EXPERTS, expert_gating_func=9)


@pytest.mark.parametrize("key", ["attention.kv_lora_rank", "attention.key_length", "block_count"])
def test_a_missing_key_is_named(key):
    with pytest.raises(MalformedFileError, match=key.replace(".", r"\.")):
        gguf("deepseek2", OLD, **{key.replace(".", "__"): None})


_GGUF_KEYS = [*COMMON, *NEW, *EXPERTS, *V2_YARN, "expert_gating_func", "expert_group_count",
              "expert_group_used_count", "attention.temperature_scale", "nextn_predict_layers",
              "attention.temperature_length", "attention.indexer.top_k"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.booleans().flatmap(
        lambda is_hf: st.tuples(
            st.just(is_hf),
            st.sampled_from(["deepseek2", "deepseek32", "mistral4", "deepseek"]),
            st.dictionaries(st.sampled_from([*HF] if is_hf else _GGUF_KEYS), _junk, min_size=1,
                            max_size=4),
        )
    )
)  # fmt: skip
def test_junk_values_never_escape_as_other_errors(drawn):
    is_hf, architecture, junk = drawn
    names = {"deepseek2": "deepseek_v3", "deepseek32": "deepseek_v32"}
    try:
        if is_hf:
            config = hf(names.get(architecture, architecture), **junk)
        else:
            extra = {"attention.indexer.head_count": 4, "attention.indexer.key_length": 128}
            config = gguf(architecture, NEW if architecture != "deepseek" else {}, EXPERTS, extra,
                          junk)  # fmt: skip
    except UserError as error:
        if len(str(error)) > 600:
            pytest.fail("a file's junk must not flood the message")
        return
    assert np.isfinite(config.rope.inv_freq).all()
    assert math.isfinite(config.attention_scale)
    assert config.moe is None or config.moe.routing.top_k <= config.moe.num_experts
