# SPDX-License-Identifier: Apache-2.0
"""What the catalogue says of licences and what is known of publishers must be the same."""

from __future__ import annotations

from collections.abc import Iterator

from freehold.catalogue.catalogue import members
from freehold.catalogue.member import Member
from freehold.catalogue.openness import openness
from freehold.licences.origins import Origin, origin_of, origins
from freehold.licences.reader import licences
from freehold.licensing import facts_of


def both() -> Iterator[tuple[Member, Origin]]:
    for member in members():
        if (origin := origin_of(member.repo)) is not None:
            yield member, origin


def test_the_catalogue_uses_known_licences() -> None:
    for member in members():
        assert set(member.licence) <= set(licences()), member.name


def test_both_name_the_same_licences() -> None:
    wrong = {
        member.name: (member.licence, origin.licences)
        for member, origin in both()
        if set(member.licence) != set(origin.licences)
    }
    assert not wrong


def test_both_name_the_same_family() -> None:
    assert not {
        member.name: (member.family, origin.family)
        for member, origin in both()
        if member.family != origin.family
    }


def test_both_commands_say_the_same_of_every_model() -> None:
    """`freehold models` asks the catalogue, `freehold licence` all there is."""
    for member in members():
        facts, shown = facts_of(member), openness(member)
        assert set(facts.licences) == set(member.licence or ("unknown",)), member.name
        assert facts.openness.answers == shown.answers, member.name
        assert facts.openness.reasons == shown.reasons, member.name
        for repository in (member.repo, *member.gguf_repos):
            assert facts_of(f"hf:{repository}").openness.level == shown.level, repository


def test_every_model_of_the_catalogue_has_facts() -> None:
    for member in members():
        facts = facts_of(member)
        assert facts.licences, member.name
        assert facts.licence_source == (
            "catalogue" if facts.licences != ("unknown",) else "unknown"
        )


def test_patterns_name_one_publisher_each() -> None:
    patterns = [pattern for each in origins() for pattern in each.repos]
    assert len(patterns) == len(set(patterns))
    assert all("/" in pattern for pattern in patterns)
