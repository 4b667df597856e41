# SPDX-License-Identifier: Apache-2.0
"""The Model Openness Framework's classes, from which of its components are openly licensed.

Seventeen components in three cumulative classes (White et al., "The Model Openness Framework",
arXiv:2403.13784). A component counts only under an open licence of the right kind: an approved
software licence for code, an open data or permissive one for data, weights and documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from freehold.licences.reader import licence, licences

MofClass = Literal["I", "II", "III", "none"]
Kind = Literal["code", "data", "document"]

COMPONENTS: Mapping[str, tuple[MofClass, Kind]] = {
    "model architecture": ("III", "code"),
    "final parameters": ("III", "data"),
    "technical report": ("III", "document"),
    "evaluation results": ("III", "document"),
    "model card": ("III", "document"),
    "data card": ("III", "document"),
    "training code": ("II", "code"),
    "inference code": ("II", "code"),
    "evaluation code": ("II", "code"),
    "evaluation data": ("II", "data"),
    "research paper": ("I", "document"),
    "datasets": ("I", "data"),
    "data preprocessing code": ("I", "code"),
    "intermediate parameters": ("I", "data"),
}
OPTIONAL = ("sample outputs", "supporting libraries and tools", "model metadata")
_CUMULATIVE: tuple[tuple[MofClass, frozenset[str]], ...] = (
    ("III", frozenset({"III"})),
    ("II", frozenset({"III", "II"})),
    ("I", frozenset({"III", "II", "I"})),
)


@dataclass(frozen=True, slots=True)
class MofResult:
    """The class reached, and per class what is still missing."""

    reached: MofClass
    progress: Mapping[str, float]  # of each class, 0 to 1
    missing: Mapping[str, tuple[str, ...]]


def mof_class(components: Mapping[str, str | None]) -> MofResult:
    """The class of a model whose released components are `components`, name to licence id."""
    # A research paper stands in for the technical report.
    counted = {name for name, under in components.items() if _counts(name, under)}
    if "research paper" in counted:
        counted.add("technical report")
    reached: MofClass = "none"
    progress: dict[str, float] = {}
    missing: dict[str, tuple[str, ...]] = {}
    complete = True
    for name, classes in _CUMULATIVE:
        wanted = [each for each, (home, _) in COMPONENTS.items() if home in classes]
        lacking = tuple(each for each in wanted if each not in counted)
        progress[name], missing[name] = 1 - len(lacking) / len(wanted), lacking
        complete = complete and not lacking
        if complete:
            reached = name
    return MofResult(reached, progress, missing)


def _counts(name: str, under: str | None) -> bool:
    if name not in COMPONENTS or under is None or under not in licences():
        return False
    each = licence(under)
    if COMPONENTS[name][1] == "code":
        return each["osi_approved"].value == "yes" or each.id == "openmdw-1.0"
    return each.category in ("permissive", "share-alike")
