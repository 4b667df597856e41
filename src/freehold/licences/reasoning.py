# SPDX-License-Identifier: Apache-2.0
"""What licences mean for one situation: blockers, duties, open questions, and what else to know.

Every licence of a stack is asked by itself, and everything any of them says holds: so the most
restrictive answer to each question wins. What nobody has read, or only somebody else has, is an
open question where it matters. Nothing here says that something is allowed; the most it says is
that no blocking clause was found in a text of a certain date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from freehold.licences.reader import UNKNOWN, licence
from freehold.licences.rules import Finding, findings
from freehold.licences.schema import QUESTIONS, Answer, Licence, restrictiveness
from freehold.licences.situation import Situation

WARNING = "Always read the licence before deploying in a commercial product."
Status = Literal["blocked", "open questions", "no blocking clause found"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome. `findings` are in the order in which they should be read."""

    licences: tuple[Licence, ...]
    findings: tuple[Finding, ...]
    stale: tuple[str, ...]  # pages that can change and were read too long ago

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind: "blocker", "duty", "unknown" or "remark"."""
        return tuple(each for each in self.findings if each.kind == kind)

    @property
    def status(self) -> Status:
        """The outcome in three words."""
        if self.of_kind("blocker"):
            return "blocked"
        return "open questions" if self.of_kind("unknown") else "no blocking clause found"

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        known = [each for each in self.licences if each.id != UNKNOWN]
        if self.status == "blocked":
            first = self.of_kind("blocker")[0]
            return f"blocked by {first.licence.name}, {first.where}"
        if not known:
            return "nothing can be said: the licence is not known"
        texts = " and ".join(f"the text of {_dated(each)}" for each in known)
        found = f"no blocking clause found in {texts}"
        count = len(self.of_kind("unknown"))
        if not count:
            return found
        return f"{found}; {count} question{'s are' if count > 1 else ' is'} open"


def _dated(each: Licence) -> str:
    if each.text_mutable or each.version_date is None:
        return f"{each.name} as read on {each.checked}"
    return f"{each.name} of {each.version_date}"


def judge(
    licence_ids: Sequence[str], situation: Situation, *, multimodal: bool | None = None,
    today: date | None = None,
) -> Verdict:  # fmt: skip
    """What the licences, all of which bind, mean for a situation.

    `multimodal` is whether the model takes images or sound, on which some clauses depend.
    """
    bound = tuple(licence(each) for each in dict.fromkeys(licence_ids or (UNKNOWN,)))
    found = [each for one in bound for each in findings(one, situation, multimodal)]
    order = ("blocker", "unknown", "duty", "remark")
    found.sort(key=lambda each: order.index(each.kind))
    day = today or date.today()
    stale = [page for each in bound for page in each.stale(day)]
    return Verdict(bound, tuple(found), tuple(dict.fromkeys(stale)))


def effective(licence_ids: Sequence[str]) -> Mapping[str, tuple[Licence, Answer]]:
    """For every question the most restrictive answer of a stack, and the licence that gives it."""
    bound = [licence(each) for each in licence_ids or (UNKNOWN,)]
    return {
        question: max(
            ((each, each[question]) for each in bound),
            key=lambda pair: restrictiveness(question, pair[1]),
        )
        for question in QUESTIONS
    }
