# SPDX-License-Identifier: Apache-2.0
"""One licence and one situation: clause by clause, what follows.

Each function looks at one kind of clause. Words that must be used are the licence's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from freehold.licences.reader import UNKNOWN
from freehold.licences.schema import QUESTIONS, Answer, Licence, Threshold
from freehold.licences.situation import FLAGS, Situation

Kind = Literal["blocker", "duty", "unknown", "remark"]
_METRICS = {
    "mau": "monthly active users",
    "monthly_revenue_usd": "US dollars of revenue in a month",
    "annual_revenue_usd": "US dollars of revenue in a year",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that follows from a clause."""

    kind: Kind
    code: str  # the question of `schema.QUESTIONS` it belongs to
    text: str
    licence: Licence
    where: str = ""  # section
    source: str = ""  # URL
    words: str = ""  # to be used exactly so
    file: str = ""  # the file to ship
    flag: str = ""  # what would settle an open question
    confidence: str = ""


def findings(each: Licence, situation: Situation, multimodal: bool | None) -> Iterator[Finding]:
    """Everything that follows from one licence."""
    if each.id == UNKNOWN:
        yield Finding("unknown", "licence", "a licence that binds this model is not known", each)
        return
    yield from _commercial(each, situation)
    for threshold in each.thresholds:
        yield from _threshold(each, threshold, situation)
    yield from _unread_limits(each, situation)
    yield from _territories(each, situation, multimodal)
    yield from _purposes(each, situation)
    passes_on = situation.distribute
    if situation.host:
        yield from _hosting(each, situation)
        passes_on = passes_on or each["hosting_is_distribution"].value == "yes"
    if situation.distribute:
        yield from _permission(each, "redistribution", "passing the weights on")
        yield from _notice(each)
    if passes_on:
        yield from _passing_on(each)
        yield from _display(each)
    if situation.train_on_outputs:
        yield from _training(each, situation)
    if situation.modify or situation.train_on_outputs:
        yield from _derived(each, situation, passes_on)
    yield from _remarks(each)


def _finding(
    kind: Kind, each: Licence, question: str, text: str, *, words: str = "", file: str = "",
    flag: str = "",
) -> Finding:  # fmt: skip
    answer = each[question]
    return Finding(
        kind, question, text, each, answer.where, answer.source, words or answer.words, file, flag,
        answer.confidence,
    )  # fmt: skip


def _unread(each: Licence, question: str) -> Finding:
    ask = QUESTIONS[question].text.removesuffix("?").lower()
    return _finding("unknown", each, question, f"nobody has read in {each.name}: {ask}")


def _permission(each: Licence, question: str, what: str) -> Iterator[Finding]:
    """A question whose answer must be yes, and be read where it stands."""
    answer = each[question]
    if answer.value == "no":
        yield _finding("blocker", each, question, f"{what} is not permitted")
    elif answer.value == "unknown":
        yield _unread(each, question)
    elif not answer.verified:
        yield _finding("unknown", each, question, f"that {what} is permitted is known second-hand")


def _commercial(each: Licence, situation: Situation) -> Iterator[Finding]:
    if each["commercial_use"].value == "no":
        if situation.commercial:
            yield _finding("blocker", each, "commercial_use", "commercial use is not permitted")
        elif situation.commercial is None:
            yield _finding(
                "unknown", each, "commercial_use",
                "only use that is not commercial is permitted; is yours?", flag="--commercial",
            )  # fmt: skip
        else:
            yield _finding("duty", each, "commercial_use", "keep the use from becoming commercial")
    elif situation.commercial is not False:
        yield from _permission(each, "commercial_use", "commercial use")


def _threshold(each: Licence, limit: Threshold, situation: Situation) -> Iterator[Finding]:
    if limit.commercial_only and situation.commercial is False:
        return
    if limit.end_users_exempt and situation.end_user:
        return
    question = "user_limit" if limit.metric == "mau" else "revenue_limit"
    what = f"more than {limit.above:,} {_METRICS[limit.metric]} ({limit.scope}; {limit.measured})"
    above = situation.above(limit.metric, limit.above)
    if above is None:
        yield _finding(
            "unknown", each, question, f"it matters whether you have {what}",
            flag=FLAGS[limit.metric],
        )  # fmt: skip
    elif above and limit.effect == "display_name":
        text = f"with {what} the product must show the line"
        yield _finding("duty", each, question, text, words=limit.words)
    elif above:
        rights = "no rights to host" if limit.effect == "licence_to_host" else "no rights"
        text = f"{what}: {rights} until {each.publisher} grants them separately"
        yield _finding("blocker", each, question, text)


def _unread_limits(each: Licence, situation: Situation) -> Iterator[Finding]:
    counted = {"user_limit" if t.metric == "mau" else "revenue_limit" for t in each.thresholds}
    if situation.commercial is False:
        return
    for question in ("user_limit", "revenue_limit"):
        answer = each[question]
        if answer.value == "unknown":
            yield _unread(each, question)
        elif answer.value == "yes" and question not in counted:
            yield _finding(
                "unknown", each, question, "there is a limit, and its number is not known"
            )


def _territories(each: Licence, situation: Situation, multimodal: bool | None) -> Iterator[Finding]:
    if each["territory_excluded"].value == "unknown":
        yield _unread(each, "territory_excluded")
    for territory in each.territories:
        inside = situation.is_in(territory.areas)
        applies = True if territory.applies_to == "all" else multimodal
        if (
            inside is False
            or applies is False
            or (situation.end_user and territory.end_users_exempt)
        ):
            continue
        who = f"{territory.who} get no rights"
        if inside is None:
            flag = "--region"
            yield _finding("unknown", each, "territory_excluded", who, flag=flag)
        elif applies is None:
            text = f"{who} to multimodal models; whether this is one is not known"
            yield _finding("unknown", each, "territory_excluded", text)
        else:
            yield _finding("blocker", each, "territory_excluded", who)


def _purposes(each: Licence, situation: Situation) -> Iterator[Finding]:
    if each["use_restrictions"].value == "unknown":
        yield _unread(each, "use_restrictions")
    if each["use_restrictions"].value != "yes":
        return
    for purpose in situation.purposes:
        if purpose in each.topics:
            text = f"{purpose.replace('-', ' ')} is among the purposes it forbids or restricts"
            yield _finding("blocker", each, "use_restrictions", text)
    pages = ", ".join(f"{page.name} ({page.url})" for page in each.documents)
    yield _finding(
        "duty",
        each,
        "use_restrictions",
        f"keep to its limits of use{': ' + pages if pages else ''}",
    )


def _hosting(each: Licence, situation: Situation) -> Iterator[Finding]:
    if each["hosted_service"].value == "no" and each.category == "noncommercial":
        # Their ban on hosting is part of their ban on commercial activity.
        if situation.commercial:
            yield _finding(
                "blocker", each, "hosted_service", "offering it commercially is forbidden"
            )
        elif situation.commercial is None:
            text = (
                "serving others is forbidden in the course of a commercial activity; is yours one?"
            )
            yield _finding("unknown", each, "hosted_service", text, flag="--commercial")
    else:
        yield from _permission(each, "hosted_service", "serving others")
    if each["hosting_is_distribution"].value == "unknown":
        yield _unread(each, "hosting_is_distribution")


def _notice(each: Licence) -> Iterator[Finding]:
    answer = each["notice"]
    if answer.value == "unknown":
        yield _unread(each, "notice")
    elif answer.value == "yes" and answer.words:
        yield _finding("duty", each, "notice", "ship this notice", file="NOTICE")
    elif answer.value == "yes":
        yield _finding("duty", each, "notice", "ship the notices that came with it", file="NOTICE")


def _passing_on(each: Licence) -> Iterator[Finding]:
    copy = f"give a copy of the licence along: {each.text_url or each.name}"
    for question, text, file in (
        ("licence_copy", copy, f"LICENSE.{each.id}"),
        ("mark_changes", "files that you changed must say so", ""),
        ("pass_on_terms", "bind whoever gets or uses it by the same terms", ""),
    ):
        if each[question].value == "unknown":
            yield _unread(each, question)
        elif each[question].value == "yes":
            yield _finding("duty", each, question, text, file=file)


def _display(each: Licence) -> Iterator[Finding]:
    if each["display_rule"].value == "unknown":
        yield _unread(each, "display_rule")
    elif each["display_rule"].value == "yes":
        yield _finding("duty", each, "display_rule", "show this line prominently")


def _training(each: Licence, situation: Situation) -> Iterator[Finding]:
    question = "train_on_outputs"
    answer = each[question]
    if answer.rule is None:
        yield from _permission(each, question, "training other models on its answers")
    elif answer.rule == "terms_travel":
        yield _finding(
            "duty", each, question, "the model that is trained counts as a derivative: these terms "
            "go with it",
        )  # fmt: skip
    elif answer.rule == "scope":
        text = "training on its answers stays within the purposes that it permits"
        yield _finding("duty", each, question, text)
    if answer.rule is not None and not answer.verified:
        yield _finding("unknown", each, question, "the rule for its answers is known second-hand")


def _derived(each: Licence, situation: Situation, passes_on: bool) -> Iterator[Finding]:
    """Rules for the model that is made from this one, or from its answers."""
    when = "" if passes_on else ", once it is passed on or served to others"
    name = each["name_rule"]
    if name.value == "unknown":
        yield _unread(each, "name_rule")
    elif name.value == "yes":
        yield from _name(each, name, situation.derived_name, when)
    outputs = each["train_on_outputs"]
    if outputs.rule == "display":
        text = f"the documentation of the model that is made must show this line{when}"
        yield _finding("duty", each, "train_on_outputs", text)


def _name(each: Licence, rule: Answer, derived: str | None, when: str) -> Iterator[Finding]:
    if derived is not None and not derived.startswith(rule.words):
        text = f"the name {derived!r:.80} of the model that is made does not begin with these words"
        yield _finding("blocker", each, "name_rule", text)
    elif derived is None:
        text = f"the name of the model that is made must begin with these words{when}"
        yield _finding("duty", each, "name_rule", text)


def _remarks(each: Licence) -> Iterator[Finding]:
    for question, text in (
        ("policy_may_change", "its rules can be changed by the publisher; look at them again"),
        ("remote_restriction", "the publisher may restrict use, from afar too"),
        ("indemnity", "whoever uses it answers for claims of others against the publisher"),
        ("litigation_ends", "suing over the model ends rights to it"),
    ):
        if each[question].value == "yes":
            yield _finding("remark", each, question, text)
