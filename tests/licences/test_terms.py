# SPDX-License-Identifier: Apache-2.0
"""The files under `licences/terms`: every question answered, every answer with its place."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from freehold.errors import EngineError, InvalidParameterError
from freehold.licences import reader
from freehold.licences.reader import licence, licences
from freehold.licences.schema import QUESTIONS, restrictiveness

# What the design asks for at least.
WANTED = (
    "apache-2.0", "mit", "openmdw-1.0", "llama2", "llama3",
    "llama3.1", "llama3.2", "llama3.3", "llama4", "gemma",
    "deepseek", "mnpl-0.1", "mrl-0.1", "mistral-modified-mit", "qwen-research",
    "qwen", "tongyi-qianwen", "qwen-community-1.0", "bigscience-openrail-m", "openrail",
    "kimi-k2", "kimi-k3", "minimax-h3", "lfm1.0",
)  # fmt: skip


def test_the_licences_people_meet_are_there() -> None:
    assert set(WANTED) <= set(licences())


@pytest.mark.parametrize("licence_id", sorted(licences()))
def test_every_answer_says_where_it_stands(licence_id: str) -> None:
    each = licence(licence_id)
    assert each.answers.keys() == QUESTIONS.keys()
    for question, answer in each.answers.items():
        if answer.value == "unknown":
            assert answer.confidence == "unread", question
            continue
        assert answer.where, question
        assert answer.source.startswith("https://") or licence_id == "openrail", question
        assert answer.read is not None, question
        assert answer.confidence != "unread", question


@pytest.mark.parametrize("licence_id", sorted(licences()))
def test_limits_and_answers_agree(licence_id: str) -> None:
    each = licence(licence_id)
    metrics = {threshold.metric for threshold in each.thresholds}
    assert ("mau" in metrics) <= (each["user_limit"].value == "yes")
    assert bool(metrics - {"mau"}) <= (each["revenue_limit"].value == "yes")
    assert bool(each.territories) == (each["territory_excluded"].value == "yes")
    if each["osi_approved"].value == "yes":
        # What the OSI approves restricts neither who uses a work nor for what.
        for question in ("commercial_use", "redistribution", "hosted_service", "train_on_outputs"):
            assert each[question].value == "yes"
        for question in ("user_limit", "revenue_limit", "use_restrictions", "territory_excluded"):
            assert each[question].value == "no"


def test_names_links_and_hashes_mean_one_licence_each() -> None:
    for field in ("aliases", "links", "text_sha256"):
        seen = [value for each in licences().values() for value in getattr(each, field)]
        assert len(seen) == len(set(seen)), field
    assert not {a for each in licences().values() for a in each.aliases} & set(licences())


def test_pages_that_change_grow_stale() -> None:
    gemma, mit = licence("gemma"), licence("mit")
    assert gemma.stale(gemma.checked + timedelta(days=90)) == ()
    stale = gemma.stale(gemma.checked + timedelta(days=91))
    assert "Gemma Terms of Use" in stale
    assert "Gemma Prohibited Use Policy" in stale
    assert mit.stale(date(2050, 1, 1)) == ()


def test_the_unknown_licence_answers_nothing() -> None:
    unknown = licence("unknown")
    assert {answer.value for answer in unknown.answers.values()} == {"unknown"}
    assert {restrictiveness(key, answer) for key, answer in unknown.answers.items()} == {1}


@pytest.mark.parametrize("name", ["nonsense", "../terms/mit", "", "MIT"])
def test_a_licence_that_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises(InvalidParameterError):
        licence(name)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('category = "permissive"', 'category = "nice"', "category"),
        ('commercial_use = { is = "yes"', 'commercial_use = { is = "maybe"', "commercial_use"),
        ("commercial_use =", "commercial_user =", "not answered once"),
        ('gated = { is = "no", where = "nothing in the text asks for it" }',
         'gated = { is = "no" }', "where"),
        ("name =", 'colour = "red"\nname =', "colour"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_named(old, new, complaint, tmp_path) -> None:
    text = (reader.TERMS / "mit.toml").read_text("utf-8")
    assert old in text
    path = tmp_path / "mit.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(EngineError, match=complaint):
        reader._load(path)
