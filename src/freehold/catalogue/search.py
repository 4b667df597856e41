# SPDX-License-Identifier: Apache-2.0
"""Choosing among catalogued models by words, purpose, licence, openness and context.

What is not known is never taken for a yes: such models are left out, and counted. Does not know
what fits a machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from freehold.catalogue.catalogue import members
from freehold.catalogue.member import TASKS, Member
from freehold.catalogue.openness import answer, openness
from freehold.errors import InvalidParameterError
from freehold.licences.openness import Level
from freehold.licences.schema import Value

LicenceTerm: TypeAlias = Literal["osi", "commercial", "no-user-limit"]
LICENCE_TERMS: tuple[LicenceTerm, ...] = get_args(LicenceTerm)

# The question of a licence and the answer that a term asks for.
_QUESTIONS: dict[LicenceTerm, tuple[str, Value]] = {
    "osi": ("osi_approved", "yes"),
    "commercial": ("commercial_use", "yes"),
    "no-user-limit": ("user_limit", "no"),
}
# What people call the catalogue's tasks. Work on documents is asked of a model in a chat.
_TASKS = {
    **{task: task for task in TASKS},
    **dict.fromkeys(("summarise", "summarize", "classify", "extract"), "chat"),
    "coding": "code", "fim": "infill", "math": "maths", "thinking": "reasoning",
    "function-calling": "tools", "translate": "translation", "images": "vision",
    "medical": "medicine", "safety": "moderation",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Query:
    """What a model must be. Empty fields ask for nothing."""

    words: tuple[str, ...] = ()  # each in a name, title, vendor or repository
    family: str | None = None
    task: str | None = None
    min_context: int = 0
    licence: tuple[LicenceTerm, ...] = ()
    openness: Level | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The models that are known to answer a query, and those of which nobody knows."""

    members: tuple[Member, ...]
    unknown: tuple[Member, ...]


def search(query: Query, among: Iterable[Member] | None = None) -> Found:
    """Models that answer `query`, in the catalogue's order.

    Raises InvalidParameterError for a task or family there is not."""
    chosen = members() if among is None else among
    for test in _plain_tests(query):
        chosen = filter(test, chosen)
    found: list[Member] = []
    unknown: list[Member] = []
    for member in chosen:
        values = [answer(member, *_QUESTIONS[term]) for term in query.licence]
        if query.openness is not None and "no" not in values:
            answers = openness(member).answers
            values += [answers["weights"], answers[query.openness]]
        if "no" not in values:
            (unknown if "unknown" in values else found).append(member)
    return Found(tuple(found), tuple(unknown))


def _plain_tests(query: Query) -> list[Callable[[Member], bool]]:
    """The tests that a name or a number answers."""
    tests: list[Callable[[Member], bool]] = [
        lambda member: member.context >= query.min_context,
        *(_has_word(word) for word in query.words),
    ]
    if query.family is not None:
        known = {member.family for member in members()}
        family = query.family.lower()
        if family not in known:
            raise InvalidParameterError(
                f"the catalogue has no family {query.family!r:.40}",
                hint=f"one of {', '.join(sorted(known))}",
            )
        tests.append(lambda member: member.family == family)
    if query.task is not None:
        task = _TASKS.get(query.task.lower())
        if task is None:
            raise InvalidParameterError(
                f"the catalogue knows no task {query.task!r:.40}",
                hint=f"one of {', '.join(sorted(_TASKS))}",
            )
        tests.append(lambda member: task in member.tasks)
    return tests


def _has_word(word: str) -> Callable[[Member], bool]:
    # "3b" is not meant to find 13b or 0.3b.
    pattern = re.compile(r"(?<![\d.])" + re.escape(word), re.IGNORECASE)
    if not word[:1].isdigit():
        pattern = re.compile(re.escape(word), re.IGNORECASE)

    def has(member: Member) -> bool:
        texts = (*member.names, member.title, member.vendor, member.family, member.repo)
        return any(pattern.search(text) for text in texts)

    return has
