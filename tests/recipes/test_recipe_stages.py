# SPDX-License-Identifier: Apache-2.0
"""All stages with a tiny budget: what is exported is the trained model, for freehold and others."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
from freehold import LLM  # noqa: E402
from freehold.formats.checkpoint import open_checkpoint  # noqa: E402
from freehold.formats.gguf_writer import write_gguf  # noqa: E402
from freehold.formats.tensor_view import LazyTensor  # noqa: E402
from recipes.seedling import corpus  # noqa: E402
from recipes.seedling.__main__ import main, training_examples  # noqa: E402
from recipes.seedling.evaluate import differences, table  # noqa: E402
from recipes.seedling.export import export_directory, export_gguf, training_hash  # noqa: E402
from recipes.seedling.model import Seedling  # noqa: E402
from recipes.seedling.settings import BUDGETS  # noqa: E402
from recipes.seedling.shipped import load_weights, read_tokenizer  # noqa: E402
from recipes.seedling.tokenizer import chat_prompt, load_tokenizer  # noqa: E402
from recipes.seedling.train import LAST, load_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """A whole run: tokenizer to card, by the one command."""
    folder = tmp_path_factory.mktemp("seedling")
    arguments = ["--out", str(folder), "--budget", "tiny", "--threads", "1", "--examples", "4"]
    before = torch.get_num_threads()
    try:
        assert main(["all", *arguments]) == 0
    finally:
        torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def f32(out) -> Path:
    path = out / "f32.gguf"
    export_gguf(out / "hf", BUDGETS["tiny"], {"F32": path})
    return path


def test_card_names_what_it_was_made_from(out):
    card = (out / "MODEL_CARD.md").read_text()
    scores = json.loads((out / "evaluation.json").read_text())
    assert table(scores) in card
    assert scores["model_sha256"] in card
    assert training_hash(BUDGETS["tiny"]) in card
    assert "license: apache-2.0" in card


def test_evaluation_is_reproduced_and_a_difference_is_told(out, capsys):
    check = ["evaluate", "--out", str(out), "--threads", "1", "--check"]
    stored = out / "evaluation.json"
    assert main([*check, str(stored)]) == 0
    changed = json.loads(stored.read_text())
    changed["tasks"]["extract"]["correct"] += 1
    other = out / "changed.json"
    other.write_text(json.dumps(changed))
    capsys.readouterr()
    assert main([*check, str(other)]) == 1
    assert "extract: correct" in capsys.readouterr().err


def test_differences_respect_the_tolerance():
    def scores(correct: int) -> dict:
        values = {"examples": 10, "total": 100, "correct": correct, "whole": 5, "stopped": 10}
        return {"tasks": {"extract": values}, "seed": 1}

    assert differences(scores(50), scores(51), 0.0)
    assert not differences(scores(50), scores(51), 0.01)
    assert differences(scores(50), scores(50) | {"seed": 2}, 1.0)


def test_transformers_computes_the_same_logits(out, f32):
    transformers = pytest.importorskip("transformers")
    example = next(corpus.examples("heldout", 3, 1))
    tokenizer = load_tokenizer(out / "tokenizer.json")
    ids = tokenizer.encode(chat_prompt(example.messages), add_special_tokens=False).ids
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out / "hf", dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    with LLM(f32, threads=1, kv_dtype="f32") as llm:
        found = llm.logits(ids)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_freehold_and_transformers_split_text_as_training_did(out, f32):
    transformers = pytest.importorskip("transformers")
    trained = load_tokenizer(out / "tokenizer.json")
    theirs = transformers.AutoTokenizer.from_pretrained(out / "hf")
    texts = [example.messages[0]["content"] for example in training_examples(11, 60)]
    texts += [example.answer for example in corpus.examples("heldout", 11, 60)]
    draw = random.Random(5)
    for _ in range(200):
        texts.append("".join(chr(_scalar(draw)) for _ in range(draw.randrange(40))))
    with LLM(f32, threads=1) as llm:
        for text in texts:
            expected = trained.encode(text, add_special_tokens=False).ids
            assert llm.tokenizer.encode(text) == expected, text
            assert theirs.encode(text, add_special_tokens=False) == expected, text


def _scalar(draw: random.Random) -> int:
    """A random code point that is no surrogate, often a plain one."""
    if draw.random() < 0.5:
        return draw.randrange(0x20, 0x250)
    value = draw.randrange(0x110000 - 0x800)
    return value if value < 0xD800 else value + 0x800


def test_a_run_goes_on_from_a_published_file(out, f32):
    trained = load_checkpoint(out / "run" / LAST)["model"]
    model = Seedling(BUDGETS["tiny"].shape)
    load_weights(model, f32)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, trained[name].float()), name
    tokenizer, read = load_tokenizer(out / "tokenizer.json"), read_tokenizer(f32)
    assert read.get_vocab() == tokenizer.get_vocab()
    for example in training_examples(12, 60):
        text = chat_prompt(example.messages) + example.answer
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert read.encode(text, add_special_tokens=False).ids == expected


def test_the_mean_of_a_run_and_a_published_file(out, f32, tmp_path):
    halved = tmp_path / "halved.gguf"
    checkpoint, tokenizer = out / "run" / LAST, load_tokenizer(out / "tokenizer.json")
    with open_checkpoint(f32) as checkpoint_file:
        tensors = [
            LazyTensor(
                name, view.shape, "F32",
                lambda view=view: (view.to_f32().astype("<f4") / 2).reshape(-1).view(np.uint8),
            )
            for name, view in checkpoint_file.tensors.items()
        ]  # fmt: skip
        write_gguf(halved, checkpoint_file.metadata, tensors)
    export_directory(checkpoint, tokenizer, tmp_path / "hf", halved)
    trained = load_checkpoint(checkpoint)["model"]
    written = load_file(tmp_path / "hf" / "model.safetensors")
    for name, weight in trained.items():
        np.testing.assert_allclose(written[name], 0.75 * weight.float().numpy(), rtol=1e-6)


def test_the_command_goes_on_from_a_published_file(out, tmp_path):
    file, before = out / "seedling.gguf", torch.get_num_threads()
    arguments = ["--start-from", str(file), "--budget", "tiny", "--steps", "2", "--threads", "1"]
    try:
        assert main(["tokenizer", *arguments, "--out", str(tmp_path)]) == 0
        assert main(["train", *arguments, "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(before)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[0]["budget"]["drill_share"] == 0.0  # it can copy already
    assert log[-1]["step"] == 2


def test_the_chat_template_writes_the_training_format(out, f32):
    transformers = pytest.importorskip("transformers")
    messages = [dict(message) for message in next(training_examples(12, 1)).messages]
    expected = load_tokenizer(out / "tokenizer.json").encode(
        chat_prompt(messages), add_special_tokens=False
    ).ids  # fmt: skip
    theirs = transformers.AutoTokenizer.from_pretrained(out / "hf")
    assert theirs.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=False
    ) == expected  # fmt: skip
    with LLM(f32, threads=1) as llm:
        assert llm.chat_ids(messages) == expected


def test_the_file_says_what_it_is(out):
    with open_checkpoint(out / "seedling.gguf") as checkpoint:
        metadata = dict(checkpoint.metadata)
    assert metadata["general.name"] == "seedling"
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["general.base_model.count"] == 0
    assert metadata["general.dataset.0.version"] == f"sha256:{training_hash(BUDGETS['tiny'])}"
    assert metadata["freehold.recipe.version"]
    assert metadata["tokenizer.ggml.pre"] == "qwen2"
    assert metadata["tokenizer.chat_template"]
    tokens = metadata["tokenizer.ggml.tokens"]
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"


def test_a_run_is_not_overwritten(out):
    with pytest.raises(SystemExit, match="--resume"):
        main(["train", "--out", str(out), "--budget", "tiny"])
