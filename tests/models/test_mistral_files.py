# SPDX-License-Identifier: Apache-2.0
"""Mistral's own files (`params.json`, `consolidated.safetensors`): the numbers of transformers, the
GGUF that readers know, and plain words about what is not read."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tiny_dense
import tiny_models
from batching import full_logits
from budgets import limit, logits_error
from freehold import backends
from freehold.chat.pretokenizers import PRE_SPLITTERS
from freehold.chat.tokenizer import load_tokenizer
from freehold.cli.main import run
from freehold.errors import MalformedFileError, ModelNotFoundError, UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.mistral_files import config_from_params
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.quantize import quantize

REFERENCE = backends.create("reference")
IDS = tiny_models.prompt()
PARAMS = {
    "dim": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "head_dim": 32, "hidden_dim": 96,
    "norm_eps": 1e-5, "vocab_size": tiny_models.VOCAB, "rope_theta": 10000.0,
    "max_position_embeddings": 128,
}  # fmt: skip
YARN = {
    "yarn": {"original_max_position_embeddings": 16, "factor": 8, "beta": 4, "alpha": 1,
             "apply_scale": False},
    "llama_4_scaling": {"original_max_position_embeddings": 16, "beta": 0.3},
}  # fmt: skip
_PARTS = {
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
}  # fmt: skip
_GLOBAL = {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}


def ministral():
    return tiny_dense.build("mistral3")


def mistral():
    return tiny_models.build(
        tiny_models.Case("Mistral", {"sliding_window": None, "head_dim": 32, "rms_norm_eps": 1e-5})
    )


def own_tensors(model) -> dict[str, torch.Tensor]:
    """Names of Mistral's, rotated pairs side by side."""
    heads = {"q_proj": 4, "k_proj": 2}
    result = {}
    for name, value in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        if stem in _GLOBAL:
            result[f"{_GLOBAL[stem]}.{suffix}"] = value.clone()
            continue
        _, _, layer, part = stem.split(".", 3)
        if (count := heads.get(part.rpartition(".")[2])) is not None:
            split = value.reshape(count, 2, -1, value.shape[1])
            value = split.swapaxes(1, 2).reshape(value.shape)
        result[f"layers.{layer}.{_PARTS[part]}.{suffix}"] = value.clone().contiguous()
    return result


def write(directory: Path, model, params: dict, tensors=None, name="consolidated.safetensors"):
    directory.mkdir(exist_ok=True)
    (directory / "params.json").write_text(json.dumps(params))
    save_file(own_tensors(model) if tensors is None else tensors, directory / name)
    return directory


@pytest.mark.parametrize(
    ("make", "params", "architecture"), [(mistral, {}, "llama"), (ministral, YARN, "mistral3")]
)
def test_logits_equal_transformers(make, params, architecture, tmp_path):
    model = make()
    want = tiny_models.reference_logits(model, IDS)
    path = write(tmp_path / "own", model, PARAMS | params)
    quantize(path, tmp_path / "out.gguf", "F32")
    for source in (path, path / "consolidated.safetensors", tmp_path / "out.gguf"):
        with open_checkpoint(source) as opened:
            assert read_config(opened).architecture == architecture
            got = full_logits(load_model(opened, REFERENCE), REFERENCE, IDS)
        assert logits_error(got, want) < limit("reference", "logits")


def test_rows_are_those_of_the_gguf_package(tmp_path):
    """GGUF keeps rotated pairs side by side too, so no row moves."""
    import gguf

    model = ministral()
    path = write(tmp_path / "own", model, PARAMS | YARN)
    quantize(path, tmp_path / "out.gguf", "F32")
    written = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    for name, array in tiny_dense.gguf_tensors(model).items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


def test_vision_is_left_out_and_config_json_comes_first(tmp_path):
    model = mistral()
    tensors = own_tensors(model) | {"vision_encoder.patch_conv.weight": torch.zeros(2, 2)}
    path = write(tmp_path / "both", model, {**PARAMS, "vision_encoder": {}}, tensors)
    with open_checkpoint(path) as opened:
        load_model(opened, REFERENCE)
    model.save_pretrained(path)
    with open_checkpoint(path) as opened:
        assert "rotary_pairs" not in opened.metadata
        assert any(name.endswith("q_proj.weight") for name in opened.tensors)


def test_eight_bit_floats(tmp_path):
    """Weights of E4M3 with one scale; scales of activations are not needed."""
    model = mistral()
    tensors = own_tensors(model)
    for name in [n for n in tensors if ".attention.w" in n or ".feed_forward." in n]:
        scale = tensors[name].abs().max() / 448.0
        codes = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[name] = codes
        stem = name.removesuffix("weight")
        tensors[stem + "qscale_weight"] = scale
        tensors[stem + "qscale_act"] = torch.tensor(1.0)
    quantization = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    path = write(tmp_path / "own", model, {**PARAMS, "quantization": quantization}, tensors)
    with open_checkpoint(path) as opened:
        got = full_logits(load_model(opened, REFERENCE), REFERENCE, IDS)
    error = logits_error(got, tiny_models.reference_logits(model, IDS))
    assert 1e-3 < error < 0.5  # three bits of mantissa
    with pytest.raises(UnsupportedModelError, match="nvfp4"):
        config_from_params({**PARAMS, "quantization": {"qformat_weight": "nvfp4"}}, "params.json")


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"dim": None}, MalformedFileError, "dim is missing"),
        ({"kv_lora_rank": 512}, UnsupportedModelError, "latent attention"),
        ({"moe": {"num_experts": 8, "expert_hidden_dim": 4}}, UnsupportedModelError, "Mixtral"),
        ({"moe": 7}, MalformedFileError, "moe must be"),
        ({"yarn": [1]}, MalformedFileError, "yarn must be"),
        (
            {**YARN, "llama_4_scaling": {"original_max_position_embeddings": 9, "beta": 0.1}},
            UnsupportedModelError,
            "lengths",
        ),
        ({"norm_eps": "x"}, MalformedFileError, "rms_norm_eps"),
        ({"rope_theta": -1.0}, MalformedFileError, "rope_theta"),
    ],
)
def test_refusals_name_the_reason(change, error, word, tmp_path):
    path = write(tmp_path / "own", mistral(), PARAMS | change)
    with pytest.raises(error, match=word), open_checkpoint(path) as opened:
        read_config(opened)


def test_files_without_params_or_index(tmp_path):
    path = write(tmp_path / "own", mistral(), PARAMS)
    (path / "params.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        open_checkpoint(path)
    path = write(tmp_path / "own", mistral(), PARAMS, name="consolidated-2.safetensors")
    with pytest.raises(ModelNotFoundError, match="index"):
        open_checkpoint(path)
    tensors = own_tensors(mistral()) | {"layers.0.mystery.weight": torch.zeros(2, 2)}
    path = write(tmp_path / "other", mistral(), PARAMS, tensors)
    with (
        pytest.raises(UnsupportedModelError, match=r"layers\.0\.mystery"),
        open_checkpoint(path) as opened,
    ):
        load_model(opened, REFERENCE)


def test_a_tekken_tokenizer_becomes_merges(tmp_path, capsys):
    """The file keeps ranks alone; GGUF wants the pair that makes up each token."""
    ranks = [bytes([b]) for b in range(256)]
    ranks += [
        b"th",
        b"he",
        b" t",
        b" th",
        b" the",
        b"ab",
        b"abc",
        b"zq!",
    ]  # nothing makes up the last
    pattern = PRE_SPLITTERS["tekken"].passes[0]
    tekken = {
        "config": {"pattern": pattern, "default_vocab_size": len(ranks) + 20,
                   "default_num_special_tokens": 20, "version": "v13"},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
                  for i, t in enumerate(ranks)],
        "special_tokens": [{"rank": i, "token_str": t, "is_control": True}
                           for i, t in enumerate(["<unk>", "<s>", "</s>", "[INST]"])],
    }  # fmt: skip
    vocabulary = len(ranks) + 20
    options = {"sliding_window": None, "head_dim": 32, "vocab_size": vocabulary}
    model = tiny_models.build(tiny_models.Case("Mistral", options))
    path = write(tmp_path / "own", model, {**PARAMS, "vocab_size": vocabulary})
    (path / "tekken.json").write_text(json.dumps(tekken))
    target = tmp_path / "out.gguf"
    assert run(["quantize", str(path), str(target), "--type", "Q8_0"]) == 0
    with open_checkpoint(path) as own, open_checkpoint(target) as written:
        merges = written.get_strings("tokenizer.ggml.merges")
        assert written.get_str("tokenizer.ggml.pre") == "tekken"
        ours, theirs = load_tokenizer(own), load_tokenizer(written)
    assert merges == ["t h", "h e", "Ġ t", "Ġ th", "Ġth e", "a b", "ab c"]
    for text in ("the thethe abc abab\n zq! é🦙 12", " the", "abcabc"):
        assert ours.encode(text) == theirs.encode(text)
        assert theirs.decode(theirs.encode(text, add_special=False)) == text
    capsys.readouterr()
    for source in (path, target):
        assert run(["run", str(source), "the abc", "--max-tokens", "3", "--temperature", "0"]) == 0
        assert capsys.readouterr().out
