# SPDX-License-Identifier: Apache-2.0
"""The words in which a licence is described: questions, three-valued answers, where they stand.

Knows what can be asked of a licence and which answer asks less of whoever uses the model. Knows no
licence: those are the files under `terms/`. An answer nobody has read is *unknown*, and unknown is
never permission.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple, get_args

Value = Literal["yes", "no", "unknown"]
# How an answer came to be known: the licence's own text, another document of its publisher,
# somebody else's account of it, nobody at all.
Confidence = Literal["text", "document", "second-hand", "unread"]
Category = Literal[
    "permissive", "community", "rail", "noncommercial", "revenue-limited", "share-alike", "custom"
]
Metric = Literal["mau", "monthly_revenue_usd", "annual_revenue_usd"]
Effect = Literal["no_rights", "display_name", "licence_to_host"]


class Question(NamedTuple):
    """Something to ask of every licence."""

    text: str
    free: Value  # the answer that asks nothing of the user


QUESTIONS: Mapping[str, Question] = {
    "osi_approved": Question("Is it on the Open Source Initiative's list?", "yes"),
    "commercial_use": Question("May the model be used commercially?", "yes"),
    "user_limit": Question("Does it matter how many users one has?", "no"),
    "revenue_limit": Question("Does it matter how much one earns?", "no"),
    "use_restrictions": Question("Are purposes of use forbidden?", "no"),
    "policy_may_change": Question("Can the publisher change those rules later?", "no"),
    "territory_excluded": Question("Is somebody left out by where they are?", "no"),
    "name_rule": Question("Must a derived model's name say where it comes from?", "no"),
    "display_rule": Question("Must a product show a line about the model?", "no"),
    "train_on_outputs": Question("May answers be used to train other models?", "yes"),
    "redistribution": Question("May the weights be passed on?", "yes"),
    "licence_copy": Question("Must a copy of the licence go along?", "no"),
    "notice": Question("Must a notice go along?", "no"),
    "mark_changes": Question("Must changed files say that they were changed?", "no"),
    "pass_on_terms": Question("Must recipients be bound by the same terms?", "no"),
    "hosting_is_distribution": Question("Does serving others count as passing on?", "no"),
    "hosted_service": Question("May the model be offered as a service?", "yes"),
    "patent_grant": Question("Does it grant patents?", "yes"),
    "litigation_ends": Question("Does suing over the model end the licence?", "no"),
    "remote_restriction": Question("May the publisher restrict use from afar?", "no"),
    "indemnity": Question("Must the user answer for claims against the publisher?", "no"),
    "gated": Question("Must terms be accepted before the download?", "no"),
}

# What more there is to say where using answers for training is neither free nor forbidden.
OutputRule = Literal["name", "display", "terms_travel", "scope"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One question answered, with the place where the answer can be checked."""

    value: Value
    where: str = ""  # section of the text, or the document
    source: str = ""  # URL of what was read
    read: date | None = None
    confidence: Confidence = "unread"
    words: str = ""  # the exact sentence, name or line that must be used
    rule: OutputRule | None = None
    note: str = ""

    @property
    def verified(self) -> bool:
        """Whether it was read where it stands."""
        return self.value != "unknown" and self.confidence in ("text", "document")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Above a number something happens."""

    metric: Metric
    above: int
    effect: Effect
    scope: str  # whose users or revenue are counted
    measured: str  # when they are counted
    where: str
    words: str = ""
    commercial_only: bool = False  # whether only commercial use is counted
    end_users_exempt: bool = False  # whoever gets the model inside a finished product


@dataclass(frozen=True, slots=True)
class Territory:
    """Who gets no rights by where they are."""

    areas: tuple[str, ...]  # "EU", or ISO 3166 codes
    applies_to: Literal["all", "multimodal"]
    who: str
    end_users_exempt: bool
    where: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text that binds beside the licence."""

    name: str
    url: str
    mutable: bool  # the publisher may change it in place
    read: date | None


@dataclass(frozen=True, slots=True)
class Licence:
    """What one licence says. Every question has an answer; many are unknown."""

    id: str
    name: str
    publisher: str
    category: Category
    spdx: str | None
    version_date: date | None
    series: str | None  # licences of a series replace each other where a base model decides
    text_url: str | None
    text_mutable: bool
    text_sha256: tuple[str, ...]  # of `detection.normalise`d text; one per known layout
    checked: date
    law: str | None
    topics: tuple[str, ...]  # purposes that are forbidden or restricted
    aliases: tuple[str, ...]  # what metadata calls it
    links: tuple[str, ...]  # addresses that mean it
    documents: tuple[Document, ...]
    thresholds: tuple[Threshold, ...]
    territories: tuple[Territory, ...]
    answers: Mapping[str, Answer]

    def __getitem__(self, question: str) -> Answer:
        return self.answers[question]

    def stale(self, today: date, days: int = 90) -> tuple[str, ...]:
        """Names of pages that can change in place and were read longer ago than that."""
        pages = list(self.documents)
        if self.text_mutable:
            pages.insert(0, Document(self.name, self.text_url or "", True, self.checked))
        return tuple(
            page.name
            for page in pages
            if page.mutable and (page.read is None or (today - page.read).days > days)
        )


VALUES = frozenset(get_args(Value))
CONFIDENCES = frozenset(get_args(Confidence))


def restrictiveness(question: str, answer: Answer) -> int:
    """0 where the answer asks nothing, 1 where nobody knows, 2 where it asks something."""
    if answer.value == "unknown":
        return 1
    return 0 if answer.value == QUESTIONS[question].free and answer.rule is None else 2
