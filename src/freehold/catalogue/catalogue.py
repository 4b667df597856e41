# SPDX-License-Identifier: Apache-2.0
"""All models of the catalogue, and one of them by its name.

Knows where the catalogue lies in the package. Does not know how it is written by hand
(`family_file`) or what anybody looks for in it (`search`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

from freehold.catalogue.family_file import COMPILED
from freehold.catalogue.member import Assessment, Evidence, Member
from freehold.errors import ModelNotFoundError

_T = TypeVar("_T", Evidence, Assessment)
_TUPLES = (
    "licence", "tasks", "sources", "gguf_repos", "aliases", "upstream", "documents", "notes",
)  # fmt: skip


@cache
def members() -> tuple[Member, ...]:
    """Every model, family by family, as the files have them."""
    content = json.loads(COMPILED.read_text("utf-8"))
    evidence = [
        {artefact: _dated(Evidence, said) for artefact, said in each.items()}
        for each in content["evidence"]
    ]
    return tuple(_member(entry, content["shape"], evidence) for entry in content["models"])


def find(name: str) -> Member | None:
    """The model of this name, alias or repository (its own, a variant's or one with its GGUF
    files), whatever its capitals; None where the catalogue has none.

    A name without a size stands for the one that has it as an alias, if any."""
    return _index().get(name.strip().lower())


def get(name: str) -> Member:
    """`find`, or ModelNotFoundError with what may have been meant."""
    member = find(name)
    if member is None:
        close = get_close_matches(name.lower(), _index(), n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `freehold models`"
        raise ModelNotFoundError(f"the catalogue has no model {name!r:.100}", hint=hint)
    return member


@cache
def _index() -> dict[str, Member]:
    """Names to models. What is a model's own goes before what holds a copy of it."""
    found: dict[str, Member] = {}
    for member in members():
        for name in (*member.names, member.repo, *member.variants.values()):
            found.setdefault(name.lower(), member)
    for member in members():
        for name in member.gguf_repos:
            found.setdefault(name.lower(), member)
    return found


def _member(
    entry: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]],
    evidence: Sequence[Mapping[str, Evidence]],
) -> Member:
    values = {**entry, **{key: tuple(entry.get(key, ())) for key in _TUPLES}}
    values["released"] = date.fromisoformat(entry["released"])
    values["checked"] = date.fromisoformat(entry["checked"])
    values["evidence"] = evidence[entry["evidence"]]
    values["assessments"] = tuple(_dated(Assessment, a) for a in entry.get("assessments", ()))
    if "shape" in entry:
        values["shape"] = shapes[entry["shape"]]
    return Member(**values)


def _dated(kind: type[_T], said: Mapping[str, Any]) -> _T:
    return kind(**{**said, "checked": date.fromisoformat(said["checked"])})
