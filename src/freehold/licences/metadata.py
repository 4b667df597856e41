# SPDX-License-Identifier: Apache-2.0
"""What whoever uploaded a model says of its licence and its parents: claims, gathered and kept.

Reads the keys of GGUF headers, of model cards and of the Hub's answers alike. Metadata come from
strangers: anything of another type or size than expected is passed over. Judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

Relation = Literal["quantized", "finetune", "merge", "adapter", "distill", "unknown"]
MAX_PARENTS = 64
MAX_LICENCES = 16
_REPO = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)?"
    r"([\w.-]{1,96}/[\w.-]{1,128}?)(?:/(?:tree|blob|resolve)/.*|\.git)?/?"
)
_NO_LICENCE = frozenset({"", "other", "unknown", "none", "unlicensed"})


@dataclass(frozen=True, slots=True)
class Claims:
    """Somebody's word on a model."""

    licences: tuple[str, ...] = ()  # as written: "apache-2.0", or a name beside "other"
    links: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()  # repositories the model is said to be made from
    relation: Relation = "unknown"
    repository: str | None = None  # the repository the file says it is, or was made of
    names: tuple[str, ...] = ()  # what the model calls itself
    datasets: tuple[str, ...] = ()

    def joined(self, other: Claims) -> Claims:
        """These claims and some more."""
        return replace(
            self,
            licences=_unique((*self.licences, *_licences(other.licences))),
            links=_unique((*self.links, *other.links)),
            parents=_unique((*self.parents, *other.parents)),
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The claims as a person may read them."""
        return (*self.licences, *self.links)


def claims_of(metadata: Mapping[str, Any]) -> Claims:
    """The claims in a GGUF header, or in the front matter of a model card."""
    card = _of_card(metadata)
    gguf = any(isinstance(key, str) and key.startswith("general.") for key in metadata)
    return replace(_of_gguf(metadata).joined(card), relation=card.relation) if gguf else card


def _of_gguf(metadata: Mapping[str, Any]) -> Claims:
    get = metadata.get
    parents = []
    count = get("general.base_model.count")
    for number in range(min(count, MAX_PARENTS) if isinstance(count, int) and count > 0 else 0):
        prefix = f"general.base_model.{number}."
        parent = repository_of(get(prefix + "repo_url"))
        if parent is None:
            owner, name = _text(get(prefix + "organization")), _text(get(prefix + "name"))
            parent = repository_of("/".join(_slug(part) for part in (owner, name)))
        if parent is not None:
            parents.append(parent)
    names = [_text(get(f"general.{key}")) for key in ("name", "basename")]
    if _text(get("general.basename")) and _text(get("general.size_label")):
        names.append(f"{get('general.basename')}-{get('general.size_label')}")
    repositories = [
        repository_of(get(f"general.{key}"))
        for key in ("repo_url", "source.repo_url", "source.url")
    ]
    return Claims(
        licences=_licences([get("general.license"), get("general.license.name")]),
        links=_texts([get("general.license.link")]),
        parents=_unique(parents),
        repository=next((each for each in repositories if each), None),
        names=_unique(name for name in names if name),
    )


def _of_card(metadata: Mapping[str, Any]) -> Claims:
    get = metadata.get
    relation = get("base_model_relation")
    return Claims(
        licences=_licences([*_each(get("license")), *_each(get("license_name"))])[:MAX_LICENCES],
        links=_texts(_each(get("license_link")))[:MAX_LICENCES],
        parents=_unique(
            parent for parent in map(repository_of, _each(get("base_model"))) if parent
        )[:MAX_PARENTS],
        relation=cast(Relation, relation) if relation in get_args(Relation) else "unknown",
        names=_texts([get("model_name"), get("_name_or_path")]),
        datasets=_texts(_each(get("datasets")))[:MAX_PARENTS],
    )


def repository_of(value: object) -> str | None:
    """``owner/name`` from an address on the Hub or from itself."""
    if not isinstance(value, str) or len(value) > 500:
        return None
    found = _REPO.fullmatch(value.strip())
    return found[1] if found else None


def _licences(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(text for text in _texts(values) if text.lower() not in _NO_LICENCE)


def _each(value: object) -> Iterator[object]:
    yield from value if isinstance(value, (list, tuple)) else (value,)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) and len(value) <= 500 else ""


def _texts(values: Iterable[object]) -> tuple[str, ...]:
    return _unique(text for text in map(_text, values) if text)


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _slug(text: str) -> str:
    return re.sub(r"\s+", "-", text.strip())
