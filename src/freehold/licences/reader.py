# SPDX-License-Identifier: Apache-2.0
"""The licences freehold knows: one TOML file under `terms/` each, read when first asked for.

The files are data of the package and checked as strictly as strangers' are, so that a mistake in
one is found by the first test that opens it. Knows the format, decides nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, get_args

from freehold.errors import EngineError, InvalidParameterError
from freehold.licences.schema import (
    CONFIDENCES,
    QUESTIONS,
    VALUES,
    Answer,
    Category,
    Document,
    Effect,
    Licence,
    Metric,
    OutputRule,
    Territory,
    Threshold,
)

TERMS = Path(__file__).parent / "terms"
UNKNOWN = "unknown"  # the licence of which nothing is known
_FIELDS = frozenset(
    ("name", "publisher", "category", "spdx", "version_date", "series", "text_url",
     "text_mutable", "text_sha256", "checked", "confidence", "law", "topics", "aliases", "links",
     "documents", "thresholds", "territories", "answers")
)  # fmt: skip


@cache
def licences() -> Mapping[str, Licence]:
    """All of them by id, in the order of their names; the unknown one is not among them."""
    return {path.stem: _load(path) for path in sorted(TERMS.glob("*.toml"))}


@cache
def licence(licence_id: str) -> Licence:
    """The licence of an id, or the unknown one. Raises InvalidParameterError."""
    if licence_id == UNKNOWN:
        return unknown_licence()
    path = TERMS / f"{licence_id}.toml"
    if "/" in licence_id or licence_id.startswith(".") or not path.is_file():
        raise InvalidParameterError(
            f"there is no licence {licence_id!r:.80} among those freehold knows",
            hint="`freehold licence --list` shows them",
        )
    return _load(path)


@cache
def unknown_licence() -> Licence:
    """A licence nobody has read: every answer is unknown."""
    return Licence(
        id=UNKNOWN, name="unknown licence", publisher="", category="custom", spdx=None,
        version_date=None, series=None, text_url=None, text_mutable=False, text_sha256=(),
        checked=date.min, law=None, topics=(), aliases=(), links=(), documents=(),
        thresholds=(), territories=(), answers={key: Answer("unknown") for key in QUESTIONS},
    )  # fmt: skip


def _load(path: Path) -> Licence:
    raw = tomllib.loads(path.read_text("utf-8"))
    where = f"licences/terms/{path.name}"
    if extra := raw.keys() - _FIELDS:
        raise EngineError(f"{where}: unknown fields {', '.join(sorted(extra))}")
    _one_of(where, "category", raw["category"], get_args(Category))
    checked: date = raw["checked"]
    return Licence(
        id=path.stem,
        name=raw["name"],
        publisher=raw["publisher"],
        category=raw["category"],
        spdx=raw.get("spdx"),
        version_date=raw.get("version_date"),
        series=raw.get("series"),
        text_url=raw.get("text_url"),
        text_mutable=raw.get("text_mutable", False),
        text_sha256=tuple(raw.get("text_sha256", ())),
        checked=checked,
        law=raw.get("law"),
        topics=tuple(raw.get("topics", ())),
        aliases=tuple(raw.get("aliases", ())),
        links=tuple(raw.get("links", ())),
        documents=tuple(
            Document(d["name"], d["url"], d["mutable"], d.get("read"))
            for d in raw.get("documents", ())
        ),
        thresholds=tuple(_threshold(where, each) for each in raw.get("thresholds", ())),
        territories=tuple(
            Territory(
                tuple(t["areas"]), t["applies_to"], t["who"], t["end_users_exempt"], t["where"]
            )
            for t in raw.get("territories", ())
        ),
        answers=_answers(where, raw, checked),
    )


def _answers(where: str, raw: Mapping[str, Any], checked: date) -> dict[str, Answer]:
    given: Mapping[str, Mapping[str, Any]] = raw["answers"]
    if given.keys() != QUESTIONS.keys():
        wrong = ", ".join(sorted(given.keys() ^ QUESTIONS.keys()))
        raise EngineError(f"{where}: these questions are not answered once each: {wrong}")
    answers = {}
    for key in QUESTIONS:
        fields = dict(given[key])
        value = fields.pop("is")
        _one_of(where, key, value, VALUES)
        confidence = fields.pop("confidence", raw["confidence"])
        _one_of(where, key, confidence, CONFIDENCES)
        if (rule := fields.get("rule")) is not None:
            _one_of(where, key, rule, get_args(OutputRule))
        if value == "unknown":
            confidence = "unread"
        elif not fields.get("where"):
            raise EngineError(f"{where}: {key} does not say where that stands")
        source = fields.pop("source", raw.get("text_url", ""))
        read = fields.pop("read", checked)
        answers[key] = Answer(value, source=source, read=read, confidence=confidence, **fields)
    return answers


def _threshold(where: str, raw: Mapping[str, Any]) -> Threshold:
    _one_of(where, "thresholds.metric", raw["metric"], get_args(Metric))
    _one_of(where, "thresholds.effect", raw["effect"], get_args(Effect))
    return Threshold(**raw)


def _one_of(where: str, field: str, value: object, known: Any) -> None:
    if value not in known:
        raise EngineError(f"{where}: {field} cannot be {value!r:.60}")
