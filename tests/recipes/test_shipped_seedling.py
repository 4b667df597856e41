# SPDX-License-Identifier: Apache-2.0
"""The model that ships is the one its card describes, and scores what the card says."""

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the recipe's modules need torch")

from freehold import builtin
from recipes.seedling.__main__ import STORED_EVALUATION, main
from recipes.seedling.evaluate import table

FOLDER = Path(builtin.__file__).parent
STORED = json.loads(STORED_EVALUATION.read_text())


def test_the_card_tells_the_stored_scores_of_the_shipped_file():
    card = (FOLDER / "MODEL_CARD.md").read_text()
    digest = hashlib.sha256((FOLDER / "seedling.gguf").read_bytes()).hexdigest()
    assert STORED["model_sha256"] == digest
    assert digest in card
    assert table(STORED) in card


def test_the_scores_are_reproduced():
    # Kernel levels round differently: an answer on the edge may change with the processor.
    assert main(["evaluate", "--model", "seedling", "--check", "--tolerance", "0.02"]) == 0


def test_the_shipped_file_is_small():
    assert (FOLDER / "seedling.gguf").stat().st_size <= 12_000_000
