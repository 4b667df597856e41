# SPDX-License-Identifier: Apache-2.0
"""Mixes against counts and places known from published files."""

from __future__ import annotations

from collections import Counter

import gguf
import pytest

from freehold import quants
from freehold.errors import InvalidParameterError
from freehold.quants import mixes
from freehold.quants.mixes import ModelShape


def decoder(
    layers, hidden, ffn, heads, kv_heads, vocab, *, head_dim=None, tied=False, bias=False,
    experts=0, arch="llama",
):  # fmt: skip
    """Shape of a model and of all its tensors."""
    head_dim = head_dim or hidden // heads
    tensors = {"token_embd.weight": (vocab, hidden), "output_norm.weight": (hidden,)}
    if not tied:
        tensors["output.weight"] = (vocab, hidden)
    for i in range(layers):
        blk = f"blk.{i}."
        for part, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            tensors[f"{blk}attn_{part}.weight"] = (rows * head_dim, hidden)
            if bias:
                tensors[f"{blk}attn_{part}.bias"] = (rows * head_dim,)
        tensors[blk + "attn_output.weight"] = (hidden, heads * head_dim)
        tensors[blk + "attn_norm.weight"] = tensors[blk + "ffn_norm.weight"] = (hidden,)
        lead = (experts,) if experts else ()
        tail = "_exps" if experts else ""
        if experts:
            tensors[blk + "ffn_gate_inp.weight"] = (experts, hidden)
        tensors[f"{blk}ffn_gate{tail}.weight"] = (*lead, ffn, hidden)
        tensors[f"{blk}ffn_up{tail}.weight"] = (*lead, ffn, hidden)
        tensors[f"{blk}ffn_down{tail}.weight"] = (*lead, hidden, ffn)
    shape = ModelShape(arch, layers, heads, kv_heads, experts, tied)
    return shape, tensors


LLAMA_1B = decoder(16, 2048, 8192, 32, 8, 128256, tied=True)
LLAMA_8B = decoder(32, 4096, 14336, 32, 8, 128256)
LLAMA_70B = decoder(80, 8192, 28672, 64, 8, 128256)
MIXTRAL = decoder(32, 4096, 14336, 32, 8, 32000, experts=8)
QWEN_HALF_B = decoder(24, 896, 4864, 14, 2, 151936, tied=True, bias=True, arch="qwen2")


def plan(mix: str, model) -> dict[str, str]:
    shape, tensors = model
    chosen = mixes.get(mix)
    return {name: mixes.choose(chosen, name, dims, shape) for name, dims in tensors.items()}


def counts(mix: str, model) -> dict[str, int]:
    return dict(Counter(plan(mix, model).values()))


# Matrices by type, F32 aside, in the published 8B files.
PUBLISHED_8B = {
    "Q8_0": {"Q8_0": 226},
    "Q6_K": {"Q6_K": 226},
    "Q5_K_M": {"Q5_K": 193, "Q6_K": 33},
    "Q5_K_S": {"Q5_K": 225, "Q6_K": 1},
    "Q4_K_M": {"Q4_K": 193, "Q6_K": 33},
    "Q4_K_S": {"Q4_K": 217, "Q5_K": 8, "Q6_K": 1},
    "IQ4_XS": {"IQ4_XS": 189, "Q5_K": 36, "Q6_K": 1},
    "IQ4_NL": {"IQ4_NL": 189, "Q5_K": 36, "Q6_K": 1},
    "Q3_K_L": {"Q3_K": 129, "Q5_K": 96, "Q6_K": 1},
    "Q3_K_M": {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1},
    "Q3_K_S": {"Q3_K": 225, "Q6_K": 1},
    "Q2_K": {"Q2_K": 129, "Q3_K": 64, "Q4_K": 32, "Q6_K": 1},
    "Q2_K_S": {"Q2_K": 189, "Q4_K": 36, "Q6_K": 1},
    "Q4_0": {"Q4_0": 225, "Q6_K": 1},
    "MXFP4_MOE": {"Q8_0": 226},
    "Q4_1": {"Q4_1": 225, "Q6_K": 1},
    "Q5_0": {"Q5_0": 225, "Q6_K": 1},
    "Q5_1": {"Q5_1": 225, "Q6_K": 1},
    "F16": {"F16": 226},
    "BF16": {"BF16": 226},
    "F32": {"F32": 226},
}


def test_every_mix_has_an_expectation():
    assert sorted(PUBLISHED_8B) == sorted(mixes.names())


@pytest.mark.parametrize("mix", PUBLISHED_8B)
def test_8b_counts_are_those_of_published_files(mix):
    expected = dict(PUBLISHED_8B[mix])
    expected["F32"] = expected.get("F32", 0) + 65  # norms
    assert counts(mix, LLAMA_8B) == expected


def test_a_mix_for_experts_leaves_the_rest_alone():
    types = plan("MXFP4_MOE", MIXTRAL)
    for part in ("gate", "up", "down"):
        assert types[f"blk.3.ffn_{part}_exps.weight"] == "MXFP4"
    assert types["blk.3.ffn_gate_inp.weight"] == "F32"
    assert counts("MXFP4_MOE", MIXTRAL) == {"MXFP4": 96, "Q8_0": 130, "F32": 97}


def test_half_a_billion_qwen_falls_back_as_published():
    """Rows of 896 hold no super-block, those of 4864 do."""
    assert counts("Q4_K_M", QWEN_HALF_B) == {
        "Q5_0": 132, "Q8_0": 13, "Q4_K": 12, "Q6_K": 12, "F32": 121,
    }  # fmt: skip


def test_1b_places_of_the_wide_layers():
    types = plan("Q4_K_M", LLAMA_1B)
    wide = {0, 1, 4, 7, 10, 13, 14, 15}
    for i in range(16):
        expected = "Q6_K" if i in wide else "Q4_K"
        assert types[f"blk.{i}.attn_v.weight"] == types[f"blk.{i}.ffn_down.weight"] == expected
        for part in ("attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"):
            assert types[f"blk.{i}.{part}.weight"] == "Q4_K"
    assert types["token_embd.weight"] == "Q6_K"  # it is the output matrix too


def test_8b_places_of_the_wide_layers():
    types = plan("Q5_K_M", LLAMA_8B)
    wide = {i for i in range(32) if types[f"blk.{i}.attn_v.weight"] == "Q6_K"}
    assert wide == {0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31}
    assert types["token_embd.weight"] == "Q5_K"
    assert types["output.weight"] == "Q6_K"


def test_early_layers_of_the_small_mixes():
    small = plan("Q4_K_S", LLAMA_8B)
    assert [small[f"blk.{i}.attn_v.weight"] for i in (0, 3, 4, 31)] == ["Q5_K"] * 2 + ["Q4_K"] * 2
    assert [small[f"blk.{i}.ffn_down.weight"] for i in (3, 4)] == ["Q5_K", "Q4_K"]
    medium = plan("Q3_K_M", LLAMA_8B)
    assert [medium[f"blk.{i}.ffn_down.weight"] for i in (1, 2)] == ["Q5_K", "Q4_K"]
    assert [medium[f"blk.{i}.attn_v.weight"] for i in (1, 2)] == ["Q5_K", "Q4_K"]


def test_shared_value_heads_decide_the_smallest_mixes():
    ungrouped = decoder(32, 4096, 11008, 32, 32, 32000)
    assert plan("Q2_K", ungrouped)["blk.9.attn_v.weight"] == "Q3_K"
    assert plan("Q2_K", LLAMA_8B)["blk.9.attn_v.weight"] == "Q4_K"
    assert plan("IQ4_XS", ungrouped)["blk.9.attn_v.weight"] == "IQ4_XS"
    assert plan("IQ4_XS", LLAMA_8B)["blk.9.attn_v.weight"] == "Q5_K"


def test_70b_gives_its_value_matrix_more():
    types = plan("Q4_K_M", LLAMA_70B)
    assert types["blk.0.attn_v.weight"] == "Q6_K"
    assert types["blk.10.attn_v.weight"] == "Q5_K"
    assert plan("Q3_K_S", LLAMA_70B)["blk.0.attn_v.weight"] == "Q5_K"


def test_eight_experts():
    types = plan("Q4_K_M", MIXTRAL)
    assert types["blk.5.attn_k.weight"] == types["blk.5.attn_v.weight"] == "Q8_0"
    assert types["blk.5.attn_output.weight"] == "Q5_K"
    assert types["blk.5.attn_q.weight"] == "Q4_K"
    assert types["blk.5.ffn_gate_inp.weight"] == "F32"
    assert types["blk.0.ffn_down_exps.weight"] == "Q6_K"
    assert types["blk.5.ffn_down_exps.weight"] == "Q4_K"
    assert types["blk.5.ffn_up_exps.weight"] == "Q4_K"
    assert plan("Q5_K_M", MIXTRAL)["blk.5.attn_output.weight"] == "Q5_K"
    one_each = mixes.choose(
        mixes.get("Q4_K_M"), "blk.0.ffn_down.3.weight", (4096, 14336), MIXTRAL[0]
    )
    assert one_each == "Q6_K"  # files of one tensor per expert


@pytest.mark.parametrize(
    ("mix", "row", "expected"),
    [
        ("Q4_K_S", 160, "Q5_0"), ("Q5_K_S", 160, "Q5_1"), ("Q6_K", 160, "Q8_0"),
        ("Q2_K_S", 160, "Q4_0"), ("Q3_K_S", 160, "Q4_0"), ("IQ4_XS", 160, "IQ4_NL"),
        ("IQ4_NL", 160, "IQ4_NL"), ("Q8_0", 160, "Q8_0"), ("Q4_0", 160, "Q4_0"),
        ("Q4_K_S", 172, "F16"), ("Q8_0", 172, "F16"), ("F32", 172, "F32"), ("BF16", 3, "BF16"),
    ],
)  # fmt: skip
def test_rows_that_hold_no_whole_block(mix, row, expected):
    shape = ModelShape("llama", 16, 8, 8)
    assert mixes.choose(mixes.get(mix), "blk.9.ffn_up.weight", (64, row), shape) == expected


@pytest.mark.parametrize("mix", ["Q4_K_M", "Q8_0", "F16", "F32"])
def test_what_is_read_by_value_stays_single_precision(mix):
    shape = ModelShape("qwen3moe", 4, 4, 4, 128)
    for name, dims in {
        "blk.0.attn_norm.weight": (256,), "blk.0.attn_q.bias": (256,), "output_norm.weight": (256,),
        "blk.0.attn_q_norm.weight": (64,), "blk.0.ffn_gate_inp.weight": (128, 256),
        "blk.0.exp_probs_b.bias": (128,), "rope_freqs.weight": (64,),
        "blk.1.ffn_down.bias": (4, 256), "blk.0.post_ffw_norm_1.weight": (2, 256),
    }.items():  # fmt: skip
        assert mixes.choose(mixes.get(mix), name, dims, shape) == "F32", name


def test_unknown_mixes_list_the_known_ones():
    with pytest.raises(InvalidParameterError, match="Q4_K_X") as caught:
        mixes.get("Q4_K_X")
    assert all(name in str(caught.value.hint) for name in mixes.names())
    assert mixes.get("q4_k_m") is mixes.get("Q4_K_M")


@pytest.mark.parametrize("name", mixes.names())
def test_file_types_are_the_registered_numbers(name):
    label = {"F32": "ALL_F32"}.get(name, f"MOSTLY_{name}")
    assert gguf.LlamaFileType[label].value == mixes.get(name).file_type
    assert mixes.get(name).base in quants.names()
