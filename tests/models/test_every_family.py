# SPDX-License-Identifier: Apache-2.0
"""What every family has to show, for those whose own tests do not show it yet: no company, cut,
known beginning or lack of blocks changes an answer, and the commands take a vendor's directory to
an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_chat
import tiny_deepseek_moe
import tiny_dense
import tiny_gemma
import tiny_latent
import tiny_models
import tiny_moe
from devices import open_device
from engine_invariants import (
    assert_chunks_and_company_change_nothing,
    assert_prefixes_and_preemption_change_nothing,
)
from freehold.cli.main import run
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.config import families
from freehold.models.loader import load_model


def dense(case: str) -> Callable[..., Any]:
    return lambda **more: tiny_models.build(tiny_models.CASES[case], **more)


def of(module: Any, case: str) -> Callable[..., Any]:
    return lambda **more: module.build(case, **more)


# Family → a tiny model of it.
MODELS: dict[str, Callable[..., Any]] = {
    "qwen2": dense("qwen2-window"),
    "qwen3": dense("qwen3"),
    "gemma": dense("gemma"),
    "gemma3": dense("gemma3-irregular"),
    "mixtral": of(tiny_moe, "mixtral"),
    "qwen2moe": of(tiny_moe, "qwen2moe"),
    "smollm3": of(tiny_dense, "smollm3"),
    "granite": of(tiny_dense, "granite"),
    "mistral4": of(tiny_latent, "mistral4"),
}
# By `tests/engine/test_real_model_bits.py` and the families' own tests.
SHOWN = {
    "llama", "gemma2", "gemma3n", "gemma4", "qwen3moe", "llama4", "gpt_oss", "muse_glimmer",
    "mistral3", "olmo2", "apertus", "gptneox", "deepseek2", "deepseek32", "deepseek4",
}  # fmt: skip


def test_no_family_is_left_out():
    assert {*MODELS, *SHOWN, "deepseek"} == set(families())


@pytest.mark.parametrize("family", [*MODELS, "deepseek"])
def test_company_and_known_beginnings_change_nothing(family, tmp_path):
    if family == "deepseek":
        tiny_deepseek_moe.deepseek_moe(tmp_path / "hf")
    else:
        MODELS[family]().save_pretrained(tmp_path / "hf")
    ops = open_device(("cpu", {"threads": 1}))
    with open_checkpoint(tmp_path / "hf") as checkpoint:
        model = load_model(checkpoint, ops)
    # Files of Mixtral say "llama", as GGUF does.
    assert model.config.architecture == {"mixtral": "llama"}.get(family, family)
    assert_chunks_and_company_change_nothing(model, ops)
    assert_prefixes_and_preemption_change_nothing(model, ops)


# Those that no other test takes through the commands.
BY_COMMANDS: dict[str, Callable[..., Any]] = {
    "llama": dense("llama-3.1-rope"),
    **{family: MODELS[family] for family in ("qwen2", "qwen3", "mixtral", "qwen2moe")},
    "qwen3moe": of(tiny_moe, "qwen3moe"),
    "gemma": MODELS["gemma"],
    "gemma2": dense("gemma2"),
    "gemma3": MODELS["gemma3"],
    "gemma4": of(tiny_gemma, "gemma4-small"),
}


@pytest.mark.parametrize("family", BY_COMMANDS)
def test_show_quantize_and_run(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    more: dict[str, int] = {"vocab_size": 260, "eos_token_id": 259, "bos_token_id": 257}
    if family == "gemma4":
        more["vocab_size_per_layer_input"] = 260
    BY_COMMANDS[family](**more).save_pretrained(tmp_path / "hf")
    assert tiny_chat.write_hf_tokenizer(tmp_path / "hf") == 260
    for qtype in ("Q8_0", "Q4_K_M"):
        target = str(tmp_path / f"{qtype}.gguf")
        assert run(["quantize", str(tmp_path / "hf"), target, "--type", qtype]) == 0
        capsys.readouterr()
        assert run(["show", target, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["runs"], told["sizes"]["hidden_size"]) == (True, 64)
        ask = ["run", target, "the cat", "-n", "4", "-t", "0", "--backend", "cpu", "--json"]
        answers = []
        for _ in range(2):
            assert run(ask) == 0
            answers.append(json.loads(capsys.readouterr().out)["token_ids"])
        assert answers[0] == answers[1] != []
