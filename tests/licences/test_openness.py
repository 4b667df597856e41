# SPDX-License-Identifier: Apache-2.0
"""Levels computed from evidence; judgements of others beside them and never mixed in."""

from __future__ import annotations

import pytest

from freehold.errors import EngineError
from freehold.licences.mof import COMPONENTS, mof_class
from freehold.licences.openness import (
    INDEX_DIMENSIONS,
    Evidence,
    Fact,
    evidence_from,
    is_permissive,
    openness_of,
)
from freehold.licensing import facts_of

OPEN = Fact("open", "apache-2.0")


@pytest.mark.parametrize(
    ("weights", "data", "code", "licences", "level", "full"),
    [
        (OPEN, OPEN, OPEN, ["apache-2.0"], "full", "yes"),
        (OPEN, OPEN, OPEN, ["apache-2.0", "mit"], "full", "yes"),
        (OPEN, OPEN, OPEN, ["llama3.1"], "weights+data+code", "no"),
        (OPEN, OPEN, OPEN, ["apache-2.0", "llama3.1"], "weights+data+code", "no"),
        (OPEN, OPEN, OPEN, ["apache-2.0", "unknown"], "weights+data+code", "unknown"),
        (OPEN, OPEN, OPEN, [], "weights+data+code", "unknown"),
        (OPEN, Fact("partial", "apache-2.0"), OPEN, ["apache-2.0"], "weights+code", "no"),
        (OPEN, Fact("closed"), Fact("closed"), ["mit"], "weights", "no"),
        (OPEN, Fact(), Fact(), ["mit"], "weights", "unknown"),
        (OPEN, Fact("open", "cc-by-nc-4.0"), OPEN, ["mit"], "weights+code", "no"),
        (OPEN, Fact("open"), OPEN, ["mit"], "weights+code", "unknown"),
        (Fact("closed"), OPEN, OPEN, ["mit"], "data+code", "no"),
        (Fact(), Fact(), Fact(), ["mit"], None, "unknown"),
    ],
)
def test_levels(weights, data, code, licences, level, full) -> None:
    found = openness_of(Evidence(weights, data, code), licences)
    assert found.level == level
    assert found.answers["full"] == full
    assert set(found.reasons) == set(found.answers)
    assert found.reaches("full") is (full == "yes")
    assert found.reaches("weights") is (weights.status == "open")


def test_the_judgements_of_others_change_no_level() -> None:
    plain = Evidence(OPEN, Fact("closed"), Fact("closed"))
    praised = Evidence(
        OPEN, Fact("closed"), Fact("closed"), osaid="yes", mof="I",
        index=dict.fromkeys(INDEX_DIMENSIONS, "open"),
    )  # fmt: skip
    one, other = openness_of(plain, ["mit"]), openness_of(praised, ["mit"])
    assert (one.answers, one.reasons, one.level) == (other.answers, other.reasons, other.level)
    assert (other.osaid, other.mof) == ("yes", "I")


@pytest.mark.parametrize(
    ("repository", "level", "osaid"),
    [
        ("allenai/OLMo-2-1124-7B-Instruct", "full", "yes"),
        ("HuggingFaceTB/SmolLM3-3B", "full", "not assessed"),
        ("EleutherAI/pythia-1.4b", "weights+code", "yes"),  # the Pile has left its host
        ("swiss-ai/Apertus-8B-Instruct-2509", "weights+code", "not assessed"),  # scripts, no data
        ("openai/gpt-oss-20b", "weights", "not assessed"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "weights", "no"),
        ("meta-llama/Llama-2-7b-hf", "weights", "no"),
        ("meta-llama/Llama-4-Scout-17B-16E", "weights", "not assessed"),
    ],
)
def test_models_people_ask_about(repository, level, osaid, monkeypatch) -> None:
    monkeypatch.setattr("freehold.catalogue.catalogue.find", lambda name: None)
    openness = facts_of(f"hf:{repository}").openness
    assert (openness.level, openness.osaid) == (level, osaid)


def test_permissive_is_more_than_free_of_charge() -> None:
    for licence, answer in {
        "apache-2.0": "yes", "mit": "yes", "openmdw-1.0": "yes", "odc-by": "yes", "gemma": "no",
        "llama3.3": "no", "mistral-modified-mit": "no", "mnpl-0.1": "no", "kimi-k3": "unknown",
        None: "unknown",
    }.items():  # fmt: skip
        assert is_permissive(licence) == answer, licence


def test_the_model_openness_framework() -> None:
    under = {"code": "apache-2.0", "data": "odc-by", "document": "cc-by-4.0"}
    whole = {name: under[kind] for name, (_, kind) in COMPONENTS.items()}
    assert mof_class(whole).reached == "I"
    third = {name: value for name, value in whole.items() if COMPONENTS[name][0] == "III"}
    found = mof_class(third)
    assert (found.reached, found.progress["III"]) == ("III", 1.0)
    assert 0 < found.progress["I"] < found.progress["II"] < 1
    assert "datasets" in found.missing["I"]
    second = {name: value for name, value in whole.items() if COMPONENTS[name][0] != "I"}
    assert mof_class(second).reached == "II"
    # Everything of the first class and a hole in the third is no class at all.
    assert mof_class({**whole, "model card": None}).reached == "none"
    # A licence for data does not open code, nor does one that restricts use.
    assert mof_class({**whole, "training code": "cc-by-4.0"}).reached == "III"
    assert mof_class({**whole, "final parameters": "llama3.1"}).reached == "none"
    assert mof_class({**whole, "technical report": None}).reached == "I"  # a paper stands in
    assert mof_class({}).reached == "none"


@pytest.mark.parametrize(
    "raw",
    [
        {"weights": {"status": "ajar"}},
        {"weights": {"status": "open", "licence": "nonsense"}},
        {"index": "OOO"},
        {"index": "X" * 12},
        {"mof": "IV"},
    ],
)
def test_mistakes_in_evidence_are_named(raw) -> None:
    with pytest.raises(EngineError, match="here"):
        evidence_from(raw, "here")
