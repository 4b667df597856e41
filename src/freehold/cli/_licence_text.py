# SPDX-License-Identifier: Apache-2.0
"""Licences, verdicts and openness as a terminal and as JSON show them. Decides nothing."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from freehold.cli import console

if TYPE_CHECKING:
    from freehold.licences.openness import Openness
    from freehold.licences.reasoning import Verdict
    from freehold.licences.rules import Finding
    from freehold.licences.schema import Licence
    from freehold.licences.situation import Situation
    from freehold.licensing import ModelFacts

_WIDTH = 98  # at most; a narrow terminal gets less
_SOURCES = {
    "text": "from the text beside it",
    "catalogue": "known of its publisher",
    "metadata-claim": "going by what it says of itself",
    "unknown": "nobody says",
}
_HEADINGS = (
    ("blocker", "What blocks it"),
    ("unknown", "Open questions"),
    ("duty", "Duties"),
    ("remark", "Also in the text"),
)


def render(facts: ModelFacts, verdict: Verdict) -> str:
    """The whole answer for a person."""
    from freehold.licences.reasoning import WARNING

    named = ", ".join(f"{each.name} ({each.id})" for each in verdict.licences)
    rows = [["model", facts.name], ["licence", f"{named}, {_SOURCES[facts.licence_source]}"]]
    if facts.claims:
        rows.append(
            ["claimed", f"{', '.join(facts.claims)} (the uploader's word, not the verdict)"]
        )
    if facts.upstream:
        rows.append(["made from", ", ".join(facts.upstream)])
    if facts.documents:
        rows.append(["binds too", ", ".join(facts.documents)])
    rows += openness_rows(facts.openness)
    parts = [_rows(rows), *(_wrapped(note, "note: ") for note in facts.notes)]
    parts.append("\n" + _wrapped(verdict.sentence + ".", ""))
    stacked = len(verdict.licences) > 1
    for kind, heading in _HEADINGS:
        if found := verdict.of_kind(kind):
            parts += ["", heading, *(_item(each, stacked) for each in found)]
    if verdict.stale:
        parts += ["", f"Read more than 90 days ago, look again: {', '.join(verdict.stale)}"]
    links = [f"  {each.text_url}" for each in verdict.licences if each.text_url]
    return "\n".join([*parts, "", WARNING, *links])


def binding(licences: Mapping[str, Any]) -> str:
    """One line on which licences bind, for commands that are about something else."""
    source = _SOURCES[licences["source"]]
    return f"{', '.join(licences['binding'])}, {source}; see `freehold licence`"


def _item(found: Finding, stacked: bool) -> str:
    place = f"section {found.where}" if found.where[:1].isdigit() else found.where
    if stacked:
        place = f"{found.licence.id}: {place}"
    second_hand = ", second-hand" if found.confidence == "second-hand" else ""
    flag = f" Say {found.flag}." if found.flag else ""
    asterisk = f"{found.text}.{flag} [{place}{second_hand}]" if place else f"{found.text}.{flag}"
    lines = [_wrapped(asterisk, "  - ", "    ")]
    if found.words and found.kind == "duty":
        name = f" -> {found.file}" if found.file else ""
        lines.append(_wrapped(f"“{found.words}”{name}", "      ", "      "))
    return "\n".join(lines)


def _width() -> int:
    return min(_WIDTH, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WIDTH


def _rows(rows: Sequence[Sequence[str]]) -> str:
    """Names and values, the values wrapped beside their names."""
    margin = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        _wrapped(value, name.ljust(margin), " " * margin) for name, value in rows if value or name
    )


def _wrapped(text: str, first: str, rest: str = "") -> str:
    return textwrap.fill(
        text, _width(), initial_indent=first, subsequent_indent=rest, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def openness_rows(openness: Openness) -> list[list[str]]:
    """The levels, and the outside judgements beside them."""
    level = openness.level or "no level known"
    permissive = {"yes": "permissive", "no": "not permissive", "unknown": "terms not known"}
    rows = [["openness", f"{level} ({permissive[openness.answers['permissive']]})"]]
    missing = [
        openness.reasons[name]
        for name in ("data", "code")
        if openness.answers[name] != "yes"
    ]  # fmt: skip
    if missing:
        rows.append(["", "; ".join(missing)])
    beside = [
        f"OSAID 1.0: {openness.osaid}",
        f"MOF: {'class ' + openness.mof if openness.mof else 'not assessed'}",
        f"European index: {index_text(openness)}",
    ]
    return [*rows, ["judged by", "; ".join(beside)]]


def index_text(openness: Openness) -> str:
    """The index's twelve grades, counted."""
    if not openness.index:
        return openness.index_words or "not graded"
    counts: Counter[str] = Counter(openness.index.values())
    kinds = ("open", "partial", "closed")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds) + f" of {len(openness.index)}"


def answer_table(licence_ids: Sequence[str]) -> str:
    """Every question with the most restrictive answer of the stack and its place."""
    from freehold.licences.reasoning import effective
    from freehold.licences.schema import QUESTIONS

    rows = [["question", "answer", "licence", "where", "read"]]
    for key, (each, answer) in effective(licence_ids).items():
        value = f"{answer.value} ({answer.rule})" if answer.rule else answer.value
        read = f"{answer.confidence} {answer.read}" if answer.read else answer.confidence
        where = console.one_line(answer.where, 60)
        rows.append([QUESTIONS[key].text, value, each.id, where, read])
    return console.table(rows)


def show_list(as_json: bool) -> None:
    """All licences freehold knows."""
    from freehold.licences.reader import licences

    if as_json:
        console.data_json([licence_json(each) for each in licences().values()])
        return
    rows = [["id", "name", "category", "OSI", "commercial", "checked", "text known"]]
    for each in licences().values():
        rows.append(
            [each.id, each.name, each.category, each["osi_approved"].value,
             each["commercial_use"].value, str(each.checked), "yes" if each.text_sha256 else "no"]
        )  # fmt: skip
    console.data(console.table(rows))


def licence_json(each: Licence) -> dict[str, Any]:
    """A licence with all its answers, as plain values."""
    return {"id": each.id, **plain(asdict(each))}


def as_json(facts: ModelFacts, situation: Situation, verdict: Verdict) -> dict[str, Any]:
    """Everything `render` says, as plain values."""
    from freehold.licences.reasoning import WARNING, effective

    found: dict[str, list[dict[str, Any]]] = {}
    for kind, key in (("blocker", "blockers"), ("duty", "duties"), ("unknown", "unknowns"),
                      ("remark", "remarks")):  # fmt: skip
        found[key] = [_finding_json(each) for each in verdict.of_kind(kind)]
    return {
        "model": facts_json(facts),
        "situation": plain(asdict(situation)),
        "status": verdict.status,
        "verdict": verdict.sentence,
        **found,
        "stale": list(verdict.stale),
        "answers": {
            key: {"licence": each.id, **plain(asdict(answer))}
            for key, (each, answer) in effective(facts.licences).items()
        },
        "warning": WARNING,
        "links": [each.text_url for each in verdict.licences if each.text_url],
    }


def facts_json(facts: ModelFacts) -> dict[str, Any]:
    """What is known of a model, without its licence texts."""
    values: dict[str, Any] = plain(asdict(facts))
    del values["texts"]
    return {**values, "openness": {**values["openness"], "level": facts.openness.level}}


def _finding_json(found: Finding) -> dict[str, Any]:
    values = {key: value for key, value in plain(asdict(found)).items() if value != ""}
    return {**values, "licence": found.licence.id}


def plain(value: Any) -> Any:
    """Dates as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
