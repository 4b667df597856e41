# SPDX-License-Identifier: Apache-2.0
"""Every kind of cache comes back from disk as it was: windows, latent attention, entries."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_deepseek4
import tiny_gemma
import tiny_latent
import tiny_models
from freehold.engine import prefix_snapshots
from freehold.llm import LLM
from freehold.types import Completion, SamplingParams

CASES = [(module, next(iter(module.CASES))) for module in (tiny_gemma, tiny_latent, tiny_deepseek4)]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("module", "case"), CASES, ids=[case for _, case in CASES])
def test_a_prefix_of_this_family_survives(
    module: object, case: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_snapshots, "MIN_TOKENS", 16)
    module.build(case).save_pretrained(tmp_path / "model")  # type: ignore[attr-defined]
    prompt = tiny_models.prompt(seed=1, length=58)
    params = SamplingParams(max_tokens=4, temperature=0.0, logprobs=2)

    def answer() -> Completion:
        with LLM(
            tmp_path / "model", backend=backend, snapshot_dir=tmp_path / "kept",
            skip_tokenizer_init=True,
        ) as llm:  # fmt: skip
            return llm.generate(prompt, params)

    first, again = answer(), answer()
    assert first.cached_tokens == 0
    assert again.cached_tokens == 48
    assert (again.token_ids, again.logprobs) == (first.token_ids, first.logprobs)
