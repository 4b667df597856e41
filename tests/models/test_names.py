# SPDX-License-Identifier: Apache-2.0
"""Tensor names of Hugging Face files against the `gguf` package's own table."""

from __future__ import annotations

import gguf
import pytest

from freehold.models._family import dialect_of
from freehold.models.names import canonical_name


@pytest.mark.parametrize("arch", ["LLAMA", "QWEN2", "QWEN3", "GEMMA", "GEMMA2", "GEMMA3"])
def test_names_equal_the_gguf_package(arch):
    own = dialect_of(arch.lower()).layer_names
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch], 12)
    stems = [
        "model.embed_tokens", "model.norm", "lm_head", "model.layers.11.input_layernorm",
        "model.layers.11.post_attention_layernorm",
        *(f"model.layers.0.self_attn.{p}_proj" for p in "qkvo"),
        *(f"model.layers.7.mlp.{p}_proj" for p in ("gate", "up", "down")),
    ]  # fmt: skip
    if arch in ("GEMMA", "GEMMA2"):
        stems.remove("lm_head")  # the embedding, always
    if arch in ("GEMMA2", "GEMMA3"):
        stems += [f"model.layers.2.{p}_feedforward_layernorm" for p in ("pre", "post")]
    if arch in ("QWEN3", "GEMMA3"):
        stems += ["model.layers.3.self_attn.q_norm", "model.layers.3.self_attn.k_norm"]
    for stem in stems:
        for suffix in (".weight", ".bias"):
            name = stem + suffix
            assert canonical_name(name, own) == table.get_name(name, (".weight", ".bias")), name


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.self_attn.rotary_emb.inv_freq", "vision_tower.blocks.0.weight",
     "model.vision_tower.x.weight", "multi_modal_projector.linear_1.bias",
     "model.vision_adapter.fc1.weight", "model.vision_projection.weight"],
)  # fmt: skip
def test_useless_tensors_have_no_name(name):
    assert canonical_name(name) is None


@pytest.mark.parametrize(
    "name",
    ["model.layers.x.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.qweight", "", "weight",
     "model.layers.0.block_sparse_moe.experts.w1.weight", "model.layers.0.mlp.experts.0.gate_proj",
     "model.layers.0.mlp.experts.0.w9.weight", "model.layers.0.mlp.experts.up_proj",
     "model.layers." + "9" * 5000 + ".m.weight"],
)  # fmt: skip
def test_unknown_names_stay(name):
    assert canonical_name(name) == name


def test_parameters_without_a_module():
    own = {"self_attn.sinks": "attn_sinks"}
    assert canonical_name("model.layers.3.self_attn.sinks", own) == "blk.3.attn_sinks.weight"
    name = "model.layers.3.self_attn.sinks"
    assert canonical_name(name) == name
    for stem in ("gate_up", "down"):
        want = f"blk.3.ffn_{stem}_exps"
        name = f"model.layers.3.mlp.experts.{stem}_proj"
        assert canonical_name(name) == f"{want}.weight"
        assert canonical_name(f"{name}_bias") == f"{want}.bias"
