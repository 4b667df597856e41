# SPDX-License-Identifier: Apache-2.0
"""What is noted of runs: what can be compared with a prediction, and nothing else."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from freehold.engine.metrics import EngineStats
from freehold.llm import LLM
from freehold.planner import probe
from freehold.planner.calibration import FILE_NAME
from freehold.planner.machine import Rates, this_machine
from freehold.planner.recorder import Recorder, remember_service
from freehold.types import SamplingParams


@pytest.fixture(scope="module")
def llm():
    with LLM("seedling", context_length=512, max_num_seqs=4) as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where runs are remembered, of a machine that was measured."""
    monkeypatch.setenv("FREEHOLD_CALIBRATION", str(tmp_path))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    here = this_machine(gpus=False)
    kept = {
        "format": 1, "fingerprint": probe.fingerprint(here), "read": 2e10, "int8": 3e11,
        "fill": 2e9, "measured": 0, "busy": False,
    }  # fmt: skip
    (tmp_path / probe.FILE_NAME).write_text(json.dumps(kept))
    assert probe.known_rates(here, tmp_path) == Rates(2e10, 3e11, 2e9, measured=True)
    return tmp_path


def noted(folder):
    path = folder / FILE_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def recorder(llm, **given):
    return Recorder(llm.checkpoint, llm.config, **given)


def test_an_answer_gives_both_phases_and_what_they_took(llm, folder):
    params = SamplingParams(max_tokens=20, temperature=0.0, ignore_eos=True)
    completion = llm.generate([5] * 40, params)
    taking = recorder(llm)
    taking.answer(completion)
    taking.save()
    taking.save()  # once is enough
    lines = noted(folder)
    assert [line["phase"] for line in lines] == ["prefill", "decode"]
    assert lines[0]["seconds"][1] == completion.prefill_seconds
    assert lines[1]["seconds"][1] == completion.decode_seconds
    assert all(line["seconds"][0] > 0 for line in lines)


def test_what_was_found_in_the_cache_or_is_too_short_says_nothing(llm, folder):
    params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    completion = llm.generate([6] * 40, params)
    taking = recorder(llm)
    taking.answer(replace(completion, cached_tokens=32))
    taking.save()
    assert noted(folder) == []


def test_nothing_is_noted_on_other_devices_or_machines_that_were_not_measured(llm, folder):
    other = recorder(llm, backend="reference")
    other.load(1.0)
    other.save()
    (folder / probe.FILE_NAME).unlink()
    blind = recorder(llm)
    blind.load(1.0)
    blind.save()
    assert noted(folder) == []


def test_nothing_is_noted_when_it_is_turned_off(llm, folder, monkeypatch):
    monkeypatch.setenv("FREEHOLD_CALIBRATION", "off")
    taking = recorder(llm)
    taking.load(1.0)
    taking.save()
    assert noted(folder) == []


def test_a_machine_that_others_use_says_nothing_of_itself(llm, folder, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.6 * this_machine(gpus=False).cores, 0, 0))
    taking = recorder(llm)
    taking.load(1.0)
    taking.save()
    assert noted(folder) == []


@pytest.mark.parametrize(
    ("stats", "kinds"),
    [
        (EngineStats(steps=600, prefill_tokens=30, decode_tokens=600, step_seconds=6.0), ["Q8_0"]),
        (
            EngineStats(steps=600, prefill_tokens=30, decode_tokens=2400, step_seconds=6.0),
            ["Q8_0, several"],
        ),
        # Mostly prompts; too little.
        (EngineStats(steps=600, prefill_tokens=10**6, decode_tokens=600, step_seconds=6.0), []),
        (EngineStats(steps=60, prefill_tokens=3, decode_tokens=60, step_seconds=0.6), []),
    ],
)
def test_a_served_model_teaches_what_it_mostly_did(stats, kinds, llm, folder):
    taking = recorder(llm)
    taking.service(stats)
    taking.save()
    lines = noted(folder)
    assert [line["kind"] for line in lines] == kinds
    assert all(0 < line["seconds"][1] <= stats.step_seconds for line in lines)


def test_a_service_that_ends_is_remembered(llm, folder):
    params = SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True)
    for token in (11, 12, 13):
        llm.generate([token], params)
    remember_service(llm)
    assert [line["phase"] for line in noted(folder)] == ["decode"]
