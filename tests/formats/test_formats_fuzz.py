# SPDX-License-Identifier: Apache-2.0
"""A short run of the header fuzzer, and proof that it would notice a fault."""

from __future__ import annotations

import time

import fuzz_headers
import pytest

from freehold.formats import safetensors
from freehold.formats.gguf_values import Cursor
from freehold.formats.mapped_file import MappedFile


def test_mutated_headers_give_typed_errors_only():
    result = fuzz_headers.run(seed=2, start=0, stop=3000)
    assert result["cases"] == 3000
    # Mutations that never open or never fail would test nothing.
    for kind in ("gguf", "safetensors"):
        assert result["outcomes"][f"{kind} opened"] > 10
        assert result["outcomes"][f"{kind} MalformedFileError"] > 500


def test_cases_repeat(tmp_path):
    seeds = fuzz_headers.make_seeds(tmp_path)
    for index in range(50):
        assert fuzz_headers.make_case(seeds, 3, index) == fuzz_headers.make_case(seeds, 3, index)


@pytest.mark.parametrize("fault", ["bounds", "cover", "slow", "greedy"])
def test_the_fuzzer_notices(monkeypatch, fault):
    if fault == "bounds":
        monkeypatch.setattr(Cursor, "need", lambda *_: None)
    elif fault == "cover":
        monkeypatch.setattr(safetensors, "_is_count", lambda _: True)
    elif fault == "slow":
        monkeypatch.setattr(fuzz_headers, "CPU_LIMIT", 0.02)
        monkeypatch.setattr(MappedFile, "check_unchanged", lambda _: _burn(0.03))
    else:
        monkeypatch.setattr(MappedFile, "check_unchanged", lambda self: bytes(2 << 20))
    with pytest.raises(fuzz_headers.CaseError):
        fuzz_headers.run(seed=1, start=0, stop=3000)


def _burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
