# SPDX-License-Identifier: Apache-2.0
"""Hugging Face directories as GGUF: names, rows, keys and rotary settings of every family.

The tensors are judged by `tiny_models`, which lays out GGUF files independently; the sizes by
reading the written file back.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import batching
import tiny_models
from freehold import backends
from freehold.convert.huggingface import interleaved_rows
from freehold.convert.model_card import general_keys, size_label
from freehold.errors import UnsupportedModelError
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.config import read_config
from freehold.models.loader import load_model
from freehold.quantize import quantize


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Case name → (transformers model, its directory, the GGUF made of it), made once each."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = tiny_models.build(tiny_models.CASES[name])
            model.save_pretrained(folder / "hf")
            quantize(folder / "hf", folder / "out.gguf", "F32")
            made[name] = (model, folder / "hf", folder / "out.gguf")
        return made[name]

    return get


@pytest.mark.parametrize("name", tiny_models.CASES)
def test_tensors_equal_an_independent_layout(name, converted):
    model, _, path = converted(name)
    written = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    written.pop("rope_freqs.weight", None)
    expected = tiny_models.gguf_tensors(model)
    assert written.keys() == expected.keys()
    for key, array in expected.items():
        assert np.array_equal(written[key], array), key


@pytest.mark.parametrize("name", tiny_models.CASES)
def test_sizes_and_rotation_survive(name, converted):
    _, folder, path = converted(name)
    with open_checkpoint(folder) as source, open_checkpoint(path) as written:
        before, after = read_config(source), read_config(written)
    for field in (
        "architecture", "vocab_size", "context_length", "hidden_size", "ffn_size", "num_layers",
        "num_heads", "num_kv_heads", "head_dim", "tied_embeddings", "sliding_window",
        "full_attention_layers",
    ):  # fmt: skip
        assert getattr(after, field) == getattr(before, field), field
    assert after.norm_eps == pytest.approx(before.norm_eps, rel=1e-6)
    assert after.rope.magnitude == pytest.approx(before.rope.magnitude, rel=1e-6)
    np.testing.assert_allclose(after.rope.inv_freq, before.rope.inv_freq, rtol=2e-7)
    assert after.rope.interleaved == (after.architecture == "llama")
    assert not before.rope.interleaved


@pytest.mark.parametrize(
    "name", ["llama-3.1-rope", "llama-attention-bias", "llama-yarn", "mistral-window", "qwen3"]
)
def test_the_written_file_computes_what_the_original_does(name, converted):
    """The whole chain at once: names, rows of Q and K and their biases, rotation, window."""
    model, _, path = converted(name)
    ops = backends.create("reference")
    ids = tiny_models.prompt()
    with open_checkpoint(path) as written:
        logits = batching.full_logits(load_model(written, ops), ops, ids)
    expected = tiny_models.reference_logits(model, ids)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


def test_keys_are_those_of_the_format(converted):
    _, _, path = converted("llama-3.1-rope")
    reader = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.architecture"] == "llama"
    assert fields["general.type"] == "model"
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.rope.dimension_count"] == 16
    assert fields["llama.rope.freq_base"] == 10000.0
    assert "llama.rope.scaling.type" not in fields  # llama3 scaling is a tensor
    known = {
        value
        for group in vars(gguf.Keys).values()
        for value in getattr(group, "__dict__", {}).values()
        if isinstance(value, str) and "." in value
    }
    for key in fields:
        if not key.startswith("GGUF."):
            assert key.replace("llama.", "{arch}.") in known, key
    divisors = {t.name: t.data for t in reader.tensors}["rope_freqs.weight"]
    assert divisors.shape == (8,)
    assert divisors.dtype == np.float32
    assert divisors[0] == 1.0
    assert divisors[-1] == pytest.approx(8.0)


def test_yarn_keys(converted):
    _, _, path = converted("llama-yarn-attention-factor")
    fields = {key: f.contents() for key, f in gguf.GGUFReader(path).fields.items()}
    assert fields["llama.rope.scaling.type"] == "yarn"
    assert fields["llama.rope.scaling.factor"] == 4.0
    assert fields["llama.rope.scaling.original_context_length"] == 32
    assert fields["llama.rope.scaling.yarn_attn_factor"] == 1.25


def test_a_ramp_gguf_cannot_express_is_refused(tmp_path):
    options = {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "truncate": False,
            "original_max_position_embeddings": 32,
        }
    }  # fmt: skip
    model = tiny_models.build(tiny_models.Case("Llama", options))
    model.save_pretrained(tmp_path / "hf")
    with pytest.raises(UnsupportedModelError, match="truncate"):
        quantize(tmp_path / "hf", tmp_path / "out.gguf", "F32")


def test_without_a_tokenizer_the_file_says_so(converted, tmp_path):
    _, folder, path = converted("qwen3")
    fields = {key: f.contents() for key, f in gguf.GGUFReader(path).fields.items()}
    assert fields["tokenizer.ggml.model"] == "no_vocab"
    report = quantize(folder, tmp_path / "again.gguf", "Q8_0")
    assert any("no tokenizer" in note for note in report.notes)


def test_rows_past_the_rotated_part_stay():
    rows = interleaved_rows(heads=2, head_dim=6, rotary_dim=4)
    assert rows.tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]


# -- general keys ----------------------------------------------------------------------------------

CARD = """---
license: other
license_name: llama3.2
license_link: https://example.org/LICENSE # not part of it
language:
- en
- "de"
tags: [text-generation, 'small']
base_model:
  - meta-llama/Llama-3.2-1B
extra:
  nested: ignored
---
# A model
license: mit
"""


def test_model_card_fields(tmp_path):
    folder = tmp_path / "Tiny-Model"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    assert general_keys(folder, 1_235_814_400) == {
        "general.name": "Tiny-Model",
        "general.size_label": "1.2B",
        "general.license": "other",
        "general.license.name": "llama3.2",
        "general.license.link": "https://example.org/LICENSE",
        "general.tags": ["text-generation", "small"],
        "general.languages": ["en", "de"],
        "general.base_model.count": 1,
        "general.base_model.0.name": "Llama 3.2 1B",
        "general.base_model.0.organization": "meta-llama",
        "general.base_model.0.repo_url": "https://huggingface.co/meta-llama/Llama-3.2-1B",
    }


@pytest.mark.parametrize(
    "card", ["", "---\nlicense: mit\n", "no header\nlicense: mit\n", "---\n- x\n: :\n---\n", "\xff"]
)
def test_cards_without_a_sound_header_say_nothing(card, tmp_path):
    (tmp_path / "README.md").write_bytes(card.encode("latin-1"))
    assert not any("license" in key for key in general_keys(tmp_path, 10))


@pytest.mark.parametrize(
    ("count", "label"),
    [(260_032, "260K"), (134_515_008, "135M"), (1_235_814_400, "1.2B"), (70_553_706_496, "71B"),
     (1_543_714_304, "1.5B"), (671e9, "671B"), (1.05e12, "1.1T"), (999_999_999, "1000M")],
)  # fmt: skip
def test_size_labels(count, label):
    assert size_label(int(count)) == label
