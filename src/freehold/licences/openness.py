# SPDX-License-Identifier: Apache-2.0
"""How open a model is: four levels computed from evidence, three outside judgements beside them.

A level is what can be downloaded under which terms: weights, training data, training code, all of
it ("full"). The Open Source AI Definition, the Model Openness Framework and the European Open
Source AI Index answer other questions; they are shown as they are and never mixed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, get_args

from freehold.errors import EngineError
from freehold.licences.mof import MofClass
from freehold.licences.reader import licence, licences
from freehold.licences.schema import Value

Status = Literal["open", "partial", "closed", "unknown"]
Level = Literal["weights", "data", "code", "full"]
MOF_CLASSES: tuple[MofClass, ...] = get_args(MofClass)
LEVELS: tuple[Level, ...] = get_args(Level)
ARTEFACTS = ("weights", "data", "code")
_WHAT = {"weights": "the weights", "data": "the training data", "code": "the training code"}
# The dimensions of the European index, in its order.
INDEX_DIMENSIONS = (
    "base data", "end-user data", "base weights", "end-user weights", "training code",
    "code documentation", "architecture", "preprint", "paper", "model card", "data sheet",
    "licence",
)  # fmt: skip
_GRADES: Mapping[str, Status] = {"O": "open", "P": "partial", "C": "closed"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One artefact: whether it can be had, under which licence, and where that was seen."""

    status: Status = "unknown"
    licence: str | None = None  # id of a licence; None where none is known
    source: str = ""
    read: date | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a model's openness."""

    weights: Fact = Fact()
    data: Fact = Fact()
    code: Fact = Fact()
    osaid: Literal["yes", "no", "not assessed"] = "not assessed"
    mof: MofClass | None = None
    index: Mapping[str, Status] = field(default_factory=dict)
    index_date: date | None = None
    index_words: str = ""  # the index in words, where its grades are not at hand


@dataclass(frozen=True, slots=True)
class Openness:
    """The levels, each with the sentence that says why; and the outside judgements."""

    answers: Mapping[str, Value]  # of "weights", "permissive", "data", "code", "full"
    reasons: Mapping[str, str]
    osaid: str
    mof: MofClass | None
    index: Mapping[str, Status]
    index_words: str = ""

    @property
    def level(self) -> str | None:
        """The badge: "full", else what is open joined by "+", else None."""
        if self.answers["full"] == "yes":
            return "full"
        return "+".join(each for each in ARTEFACTS if self.answers[each] == "yes") or None

    def reaches(self, level: Level) -> bool:
        """Whether the model is known to be open to that level, weights included."""
        return self.answers["weights"] == "yes" and self.answers[level] == "yes"


def evidence_from(raw: Mapping[str, Any], where: str) -> Evidence:
    """Evidence as a table of a TOML file: `weights`, `data`, `code` as tables with `status`,
    `licence`, `source`, `read`, `note`; `osaid`, `mof`, `index` (twelve letters O, P, C) and
    `index_date`. Raises EngineError."""
    facts = {}
    for name in ARTEFACTS:
        fact = Fact(**raw.get(name, {}))
        if fact.status not in get_args(Status):
            raise EngineError(f"{where}: {name}.status cannot be {fact.status!r:.40}")
        if fact.licence is not None and fact.licence not in licences():
            raise EngineError(f"{where}: {name}.licence is not known: {fact.licence!r:.40}")
        facts[name] = fact
    letters = "".join(str(raw.get("index", "")).split())
    if letters and not _is_index(letters):
        raise EngineError(f"{where}: index must be twelve letters O, P or C")
    grades = _grades(letters)
    if raw.get("mof") not in (None, *MOF_CLASSES):
        raise EngineError(f"{where}: mof cannot be {raw['mof']!r:.40}")
    return Evidence(
        weights=facts["weights"], data=facts["data"], code=facts["code"],
        osaid=raw.get("osaid", "not assessed"), mof=raw.get("mof"), index=grades,
        index_date=raw.get("index_date"),
    )  # fmt: skip


def _is_index(letters: str) -> bool:
    return len(letters) == len(INDEX_DIMENSIONS) and not set(letters) - set(_GRADES)


def _grades(letters: str) -> dict[str, Status]:
    return dict(zip(INDEX_DIMENSIONS, (_GRADES[each] for each in letters), strict=False))


def is_permissive(licence_id: str | None) -> Value:
    """Whether a licence is approved by the OSI or asks no more than those do."""
    if licence_id is None:
        return "unknown"
    each = licence(licence_id)
    if each["osi_approved"].value == "yes" or each.category == "permissive":
        return "yes"
    return "unknown" if each["commercial_use"].value == "unknown" else "no"


def openness_of(evidence: Evidence, licence_ids: Sequence[str]) -> Openness:
    """The four levels of a model whose weights are under `licence_ids`, all of which bind."""
    answers: dict[str, Value] = {}
    reasons: dict[str, str] = {}
    for name in ARTEFACTS:
        fact: Fact = getattr(evidence, name)
        answers[name], reasons[name] = _artefact(name, fact)
    each = [is_permissive(licence_id) for licence_id in licence_ids] or ["unknown"]
    answers["permissive"] = _all(each)
    reasons["permissive"] = {
        "yes": "every licence that binds the weights is permissive",
        "no": "a licence that binds the weights is not permissive",
        "unknown": "a licence that binds the weights is not known",
    }[answers["permissive"]]
    answers["full"] = _all([answers[name] for name in ("weights", "permissive", "data", "code")])
    missing = [name for name in ("weights", "permissive", "data", "code") if answers[name] != "yes"]
    reasons["full"] = (
        "weights, training data and training code, all under permissive terms"
        if not missing
        else "; ".join(reasons[name] for name in missing)
    )
    return Openness(
        answers, reasons, evidence.osaid, evidence.mof, evidence.index, evidence.index_words
    )


def _artefact(name: str, fact: Fact) -> tuple[Value, str]:
    what = _WHAT[name]
    if fact.status == "unknown":
        return "unknown", f"nobody has looked whether {what} can be downloaded"
    if fact.status != "open":
        return "no", f"{what}: {fact.note or fact.status}"
    if name == "weights":
        return "yes", "the weights can be downloaded"
    permissive = is_permissive(fact.licence)
    if permissive == "yes":
        return "yes", f"{what} can be downloaded under {fact.licence}" + (
            f" ({fact.note})" if fact.note else ""
        )
    if permissive == "no":
        return "no", f"{what} can be downloaded, but {fact.licence} is not an open licence"
    return "unknown", f"{what} can be downloaded; under which licence is not known"


def _all(values: Sequence[Value]) -> Value:
    if "no" in values:
        return "no"
    return "unknown" if "unknown" in values else "yes"
