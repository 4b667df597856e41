# SPDX-License-Identifier: Apache-2.0
"""Texts that share an instruction in one row of training see it and nothing of each other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from recipes.seedling.model import Seedling  # noqa: E402
from recipes.seedling.settings import BUDGETS  # noqa: E402

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("tune_labels", BENCHMARKS / "tune_labels.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


@pytest.fixture(scope="module")
def model():
    made = Seedling(BUDGETS["tiny"].shape)
    made.initialise(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):  # or layers would do nothing
                weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return made


def test_a_row_gives_what_each_text_gives_alone(tool, model, monkeypatch):
    monkeypatch.setattr(tool, "ROW_TOKENS", 40)
    prefix = [7, 8, 9, 10, 11]
    parts = [([20, 21, 22, 23], 2), ([30, 31], 1), ([40, 41, 42, 43, 44, 45, 46], 5)] * 2
    group = list(tool.rows(prefix, parts))
    assert [part for row in group for part in row] == parts
    assert len(group) == 1
    ids, places, hidden, answers = tool.batch(prefix, group)
    with torch.no_grad():
        packed = model.hidden(ids, places[:, None], hidden[:, None])[0]
        at = len(prefix)
        for part, asked in parts:
            alone = model.hidden(torch.tensor([[*prefix, *part]]))[0, len(prefix) :]
            torch.testing.assert_close(packed[at : at + len(part)], alone, atol=1e-5, rtol=1e-4)
            assert answers[0, at : at + len(part)].tolist() == [
                n >= asked for n in range(len(part))
            ]
            at += len(part)
    assert answers.sum() == sum(len(part) - asked for part, asked in parts)


def test_a_full_row_ends(tool, monkeypatch):
    monkeypatch.setattr(tool, "ROW_TOKENS", 12)
    group = list(tool.rows([1, 2], [([3] * 6, 1), ([4] * 4, 1), ([5] * 5, 1)]))
    assert [[len(part) for part, _ in row] for row in group] == [[6, 4], [5]]
