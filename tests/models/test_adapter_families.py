# SPDX-License-Identifier: Apache-2.0
"""PEFT adapters over every family that takes them, from both formats, against merged models; and
families that do not, which say so."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tiny_adapters
import tiny_dense
import tiny_gemma
import tiny_giants
import tiny_latent
import tiny_models
import tiny_moe
from budgets import limit, logits_error
from devices import open_device
from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.errors import UnsupportedModelError
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.adapters import load_adapter
from freehold.models.loader import load_model

IDS = tiny_models.prompt()
FAMILIES = [
    *((tiny_dense, case) for case in ("mistral3", "smollm3", "olmo2", "granite", "apertus")),
    *((tiny_moe, case) for case in ("mixtral", "qwen2moe", "qwen3moe")),
    *((tiny_giants, case) for case in ("llama4-mobile", "llama4", "muse-glimmer", "gpt-oss")),
]


def written(module: ModuleType, model: Any, case: str, form: str, folder: Path) -> Path:
    if form == "hf":
        model.save_pretrained(folder / "model")
        return folder / "model"
    name = (case,) if module is tiny_giants else ()
    return module.write_gguf(model, *name, folder / "model.gguf")


@pytest.mark.parametrize("form", ["hf", "gguf"])
@pytest.mark.parametrize(("module", "case"), FAMILIES, ids=[case for _, case in FAMILIES])
def test_logits_equal_the_merged_model(module, case, form, tmp_path) -> None:
    model = module.build(case)
    adapter = tiny_adapters.make(model, rank=3)
    adapter.pairs = {name: p for name, p in adapter.pairs.items() if "vision" not in name}
    assert any(name.endswith("k_proj") for name in adapter.pairs)
    want = tiny_models.reference_logits(tiny_adapters.merged(model, adapter), IDS)
    ops = open_device(("reference", {}))
    path = written(module, model, case, form, tmp_path)
    with (
        open_checkpoint(path) as checkpoint,
        open_adapter(tiny_adapters.write_peft(adapter, tmp_path / "peft")) as file,
    ):
        loaded = load_model(checkpoint, ops)
        engine = Engine(loaded, ops, EngineConfig(96, num_blocks=12, kv_dtype="f32"))
        got = engine.logits(IDS, adapter=load_adapter(file, "a", checkpoint, loaded, ops))
    assert logits_error(got, want) < limit("reference", "logits")


@pytest.mark.parametrize(
    ("module", "case"),
    [(tiny_dense, "gptneox"), (tiny_gemma, next(iter(tiny_gemma.CASES))),
     (tiny_latent, next(iter(tiny_latent.CASES)))],
)  # fmt: skip
def test_families_that_take_none(module, case, tmp_path) -> None:
    model = module.build(case)
    model.save_pretrained(tmp_path / "model")
    targets = (*tiny_adapters.TARGETS, "query_key_value", "kv_b_proj")
    adapter = tiny_adapters.make(model, targets=targets)
    ops = open_device(("reference", {}))
    with (
        open_checkpoint(tmp_path / "model") as checkpoint,
        open_adapter(tiny_adapters.write_peft(adapter, tmp_path / "peft")) as file,
    ):
        loaded = load_model(checkpoint, ops)
        with pytest.raises(UnsupportedModelError, match="takes no adapters"):
            load_adapter(file, "a", checkpoint, loaded, ops)
