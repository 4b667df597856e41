# SPDX-License-Identifier: Apache-2.0
"""Which publisher put which model under which licence: the files under `origins/`, one a publisher.

A licence belongs to a repository, not to a family: within one it changes by size, version and
date. Knows publishers' own repositories by pattern, and copies of them by their name, which is a
guess that is told as one. Knows no file and no uploader.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from freehold.errors import EngineError
from freehold.licences.openness import Evidence, evidence_from
from freehold.licences.reader import licences
from freehold.licences.schema import CONFIDENCES, Confidence

ORIGINS = Path(__file__).parent / "origins"
_FIELDS = frozenset(
    ("repos", "licences", "title", "family", "multimodal", "documents", "upstream", "evidence",
     "read", "confidence", "note", "source")
)  # fmt: skip
# What whoever converts or quantises a model adds to its name.
_COPY_TAIL = re.compile(
    r"[-_.](gguf|ggml|awq|gptq|exl[23]|mlx|bnb|bf16|fp16|f16|fp8|fp4|nvfp4|mxfp4|int[48]|"
    r"[348]-?bits?|(i1|ud|imat|imatrix)|i?q\d\w*|quantized|w\d+a\d+|onnx|unsloth|hf|\d{5}-of-\d{5})$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Models of one publisher under the same terms."""

    repos: tuple[str, ...]  # patterns, lower case: "meta-llama/llama-3.1-*"
    licences: tuple[str, ...]  # all of them bind
    title: str
    family: str
    multimodal: bool | None
    documents: tuple[str, ...]  # files of the repository that restrict, beside its licence
    upstream: tuple[str, ...]
    evidence: Evidence
    source: str
    read: date
    confidence: Confidence
    note: str


@cache
def origins() -> tuple[Origin, ...]:
    """All of them; of two whose patterns match, the first one counts."""
    found: list[Origin] = []
    for path in sorted(ORIGINS.glob("*.toml")):
        found += _load(path)
    return tuple(found)


def _load(path: Path) -> list[Origin]:
    where = f"licences/origins/{path.name}"
    raw = tomllib.loads(path.read_text("utf-8"))
    evidence = {
        key: evidence_from(table, f"{where}: evidence.{key}")
        for key, table in raw.get("evidence", {}).items()
    }
    return [_origin(each, evidence, raw, where) for each in raw["origin"]]


def _origin(
    each: Mapping[str, Any], evidence: Mapping[str, Evidence], file: Mapping[str, Any], where: str
) -> Origin:
    title = each["title"]
    if extra := each.keys() - _FIELDS:
        raise EngineError(f"{where}: {title}: unknown fields {', '.join(sorted(extra))}")
    if unknown := set(each["licences"]) - licences().keys():
        raise EngineError(f"{where}: {title}: unknown licences {', '.join(sorted(unknown))}")
    confidence = each.get("confidence", "document")
    if confidence not in CONFIDENCES:
        raise EngineError(f"{where}: {title}: confidence cannot be {confidence!r:.40}")
    return Origin(
        repos=tuple(repo.lower() for repo in each["repos"]),
        licences=tuple(each["licences"]),
        title=title,
        family=each.get("family", file["family"]),
        multimodal=each.get("multimodal"),
        documents=tuple(each.get("documents", ())),
        upstream=tuple(each.get("upstream", ())),
        evidence=evidence[each.get("evidence", "default")],
        source=each.get("source", f"https://huggingface.co/{each['repos'][0].rstrip('*')}"),
        read=each.get("read", file["read"]),
        confidence=confidence,
        note=each.get("note", ""),
    )


def origin_of(repository: str) -> Origin | None:
    """The origin that is this repository."""
    low = repository.lower()
    for each in origins():
        if any(fnmatchcase(low, pattern) for pattern in each.repos):
            return each
    return None


def origin_by_name(name: str) -> Origin | None:
    """The origin that a model of another's repository is a copy of, going by its name."""
    low = _bare(name)
    candidates = [low]
    owner, underscore, rest = low.partition("_")
    if underscore and rest and "-" in rest:
        candidates.append(rest)  # "mistralai_codestral-22b-v0.1", as some write it
        del owner
    for each in origins():
        for pattern in each.repos:
            own = pattern.partition("/")[2]
            if any(fnmatchcase(candidate, own) for candidate in candidates):
                return each
    return None


def _bare(name: str) -> str:
    low = re.sub(r"\s+", "-", name.strip().lower()).rpartition("/")[2][:200]
    low = low.removesuffix(".gguf").removesuffix(".safetensors")
    while (shorter := _COPY_TAIL.sub("", low)) != low:
        low = shorter
    return low
