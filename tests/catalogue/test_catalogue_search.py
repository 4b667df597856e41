# SPDX-License-Identifier: Apache-2.0
"""Choosing among models: each filter by models whose answer is known, and what is not known."""

from __future__ import annotations

import pytest

from freehold.catalogue.catalogue import get, members
from freehold.catalogue.openness import answer, openness
from freehold.catalogue.search import Query, search
from freehold.errors import InvalidParameterError
from freehold.licences.reader import licence, licences

ALL = {member.name for member in members()}


def names(**query) -> set[str]:
    return {member.name for member in search(Query(**query)).members}


def test_every_licence_is_one_that_is_known():
    for member in members():
        for licence_id in member.licence:
            assert licence_id in licences(), member.name
        for evidence in member.evidence.values():
            assert evidence.licence is None or evidence.licence in licences(), member.name


def test_no_query_is_everything():
    assert search(Query()).members == members()


def test_osi_means_a_list_and_not_a_feeling():
    found = names(licence=("osi",))
    assert {"gemma3:4b", "qwen2.5:3b", "codestral:22b", "devstral-2:123b", "deepseek-r1:70b"} <= ALL
    assert {"qwen3:8b", "mistral:7b", "phi4:14b", "deepseek-v3:671b", "gemma4:12b"} <= found
    assert not {"llama3.1:8b", "gemma3:4b", "qwen2.5:3b", "codestral:22b"} & found
    assert "devstral-2:123b" not in found  # calls itself MIT, with a paragraph more
    assert "deepseek-r1:70b" not in found  # MIT over Llama's own terms


def test_commercial_use_is_not_taken_from_what_is_for_research():
    found = names(licence=("commercial",))
    assert {"llama3.1:8b", "gemma3:4b", "devstral-2:123b", "qwen2.5:72b"} <= found
    research = {"codestral:22b", "mistral-large:123b", "qwen2.5:3b", "ministral:8b-2410"}
    assert research <= ALL
    assert not research & found


def test_terms_are_asked_together():
    both = names(licence=("commercial", "no-user-limit"))
    assert both == names(licence=("commercial",)) & names(licence=("no-user-limit",))
    assert "gemma3:4b" in both
    limited = {"llama3.3:70b", "qwen2.5:72b", "deepseek-r1:8b-llama"}
    assert limited <= names(licence=("commercial",))
    assert not limited & both


def test_a_licence_nobody_has_read_is_no_permission():
    found = search(Query(licence=("commercial",)))
    assert "falcon3:7b" in {member.name for member in found.unknown}
    assert not {m.name for m in found.unknown} & {m.name for m in found.members}


@pytest.mark.parametrize(
    ("level", "inside", "outside"),
    [
        ("weights", {"llama3.1:8b", "gpt-oss:20b", "olmo3:7b"}, set()),
        ("data", {"olmo3:7b", "smollm3:3b"}, {"apertus:8b", "pythia:1b", "granite3.3:8b"}),
        ("code", {"olmo3:7b", "apertus:8b", "pythia:1b"}, {"llama3.3:70b", "gpt-oss:20b"}),
        ("full", {"olmo2:7b", "smollm2:1.7b", "k2:65b"}, {"apertus:8b", "qwen3:8b", "gemma4:12b"}),
    ],
)
def test_openness_is_what_the_evidence_says(level, inside, outside):
    found = names(openness=level)
    assert {get(name).name for name in inside | outside} == inside | outside
    assert inside <= found
    assert not outside & found


def test_of_two_sets_of_data_the_one_without_terms_counts():
    assert openness(get("t5:3b")).answers["data"] == "unknown"


def test_all_licences_of_a_stack_must_answer():
    member = get("deepseek-r1:8b-llama")
    assert member.licence == ("mit", "llama3.1")
    assert licence("mit")["user_limit"].value == "no"
    assert answer(member, "user_limit", "no") == "no"


def test_words_find_names_titles_vendors_and_repositories():
    assert names(words=("llama3.2", "3b")) == {"llama3.2:3b"}
    assert "mistral:7b" in names(words=("MISTRALAI",))
    sizes = names(words=("qwen2.5", "3b"))
    assert "qwen2.5:3b" in sizes
    assert "qwen2.5:0.5b" not in sizes
    assert names(words=("no", "such", "words")) == set()


def test_tasks_by_the_names_people_have_for_them():
    assert names(task="summarise") == names(task="chat")
    assert names(task="fim") == names(task="infill") >= {"codestral:22b", "qwen2.5-coder:7b"}
    with pytest.raises(InvalidParameterError, match="cook"):
        names(task="cook")


def test_context_and_family():
    found = search(Query(family="Qwen", min_context=200_000)).members
    assert found
    assert all(member.family == "qwen" and member.context >= 200_000 for member in found)
    with pytest.raises(InvalidParameterError, match="lama") as error:
        search(Query(family="lama"))
    assert "llama" in (error.value.hint or "")
