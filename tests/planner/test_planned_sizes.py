# SPDX-License-Identifier: Apache-2.0
"""Sizes told from headers and from config.json, against what loading really takes."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import tiny_families
from freehold import quants
from freehold.backends.cpu import NATIVE_TYPES, CpuOps
from freehold.llm import LLM
from freehold.models.config import family_of, read_config
from freehold.planner.layout import packed_bytes
from freehold.planner.sizes import as_checkpoint, sizes_of, sizes_of_config

# One of each kind of layer: plain, experts, windows, shared keys and several streams, latent
# attention with an indexer, sinks with biases of experts, compressed attention.
FAMILIES = {
    "llama-gqa", "mixtral", "gemma4-small", "gemma3n", "v3.2", "gpt-oss", "v4", "apertus", "llama4",
}  # fmt: skip
CASES = [model for model in tiny_families.tiny_families() if model.name in FAMILIES]


def test_the_cases_are_there():
    assert {case.name for case in CASES} == FAMILIES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_weights_are_told_as_they_will_lie_in_memory(case, tmp_path):
    case.save(tmp_path / "model")
    with LLM(tmp_path / "model", skip_tokenizer_init=True, context_length=16) as llm:
        told, real = sizes_of(llm.checkpoint), llm.model
        assert told.resident_bytes == pytest.approx(real.weight_bytes(), rel=0.005)
        assert Counter(told.kv_layers) == Counter(real.kv_layers())
        shape = json.loads((tmp_path / "model" / "config.json").read_text())
        bare = as_checkpoint(shape, case.name)
        config = read_config(bare)
        assert Counter(config.kv_layers()) == Counter(told.kv_layers)
        guessed = sizes_of_config(config, family_of(bare), "F32")
    assert guessed.parameters == pytest.approx(told.parameters, rel=0.01)
    if case.name != "v4":  # tables of whole numbers are half of so small a model
        assert guessed.resident_bytes == pytest.approx(told.resident_bytes, rel=0.01)


class Zeros:
    """A stored matrix of zeros, as a backend takes it."""

    name = "zeros"

    def __init__(self, qtype: str, rows: int, columns: int) -> None:
        self.qtype, self.shape = qtype, (rows, columns)
        self.nbytes = quants.get(qtype).nbytes(rows * columns)

    def bytes(self) -> np.ndarray:
        return np.zeros(self.nbytes, np.uint8)

    def file_span(self) -> None:
        return None


@pytest.mark.parametrize("qtype", sorted(NATIVE_TYPES))
def test_a_packed_matrix_is_as_large_as_the_backend_makes_it(qtype):
    ops = CpuOps(threads=1)
    for rows, columns in ((16, 512), (37, 768), (5, 256)):
        weight = ops.load_weight(Zeros(qtype, rows, columns))
        assert weight.nbytes == packed_bytes((rows, columns), qtype)
