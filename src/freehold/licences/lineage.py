# SPDX-License-Identifier: Apache-2.0
"""Which licences bind a model: its text, its origin, its parents and its uploader's word, weighed.

The text that lies beside the weights counts first, then what is known of the publisher's own
repository, then the parents a model is said to be made from, whose terms travel with it. What an
uploader says is a claim: it may add a licence and never takes one away. Where something is not
known, the licence `unknown` binds too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from freehold.licences import detection
from freehold.licences.metadata import Claims
from freehold.licences.origins import Origin, origin_by_name, origin_of
from freehold.licences.reader import UNKNOWN, licence

# On whose word the licences rest: the text beside the weights; what freehold knows of the place
# they were fetched from; what the file or its uploader says of itself and its parents; nobody's.
Source = Literal["text", "catalogue", "metadata-claim", "unknown"]


@dataclass(frozen=True, slots=True)
class Lineage:
    """The licences that bind a model, and how that came out."""

    licences: tuple[str, ...]  # `unknown` among them where something is not known
    source: Source
    claims: tuple[str, ...]  # as the uploader wrote them
    upstream: tuple[str, ...]  # repositories it is made from
    origin: Origin | None  # of the model itself, or of what it is a copy of
    notes: tuple[str, ...]  # contradictions and guesses, as sentences


# The licences of a repository, as far as a catalogue has it; () where not.
Published = Callable[[str], Sequence[str]]


def _nothing(repository: str) -> Sequence[str]:
    del repository
    return ()


def trace(
    claims: Claims, *, repository: str | None = None, texts: Sequence[str] = (),
    known: Sequence[str] = (), published: Published = _nothing,
) -> Lineage:  # fmt: skip
    """Weigh everything that is known of a model.

    `repository` is where it was fetched from, `texts` the licence files beside it, `known` the
    licences that a catalogue gives for exactly this model, `published` what it knows of others.
    """
    notes: list[str] = []
    own = origin_of(repository) if repository else None
    copied = None if own or known else _copied(claims, repository, notes)
    origin = own or copied
    parents = _parents(claims, own, repository)
    inherited = _inherited(parents, published, notes)
    if origin is not None and origin is copied:
        inherited += origin.licences or (UNKNOWN,)
    certain = tuple(known) or (own.licences if own else ())
    claimed = _claimed(claims, notes)
    from_text = _from_texts(texts, (*certain, *inherited), claimed, notes)
    bound, source = _weigh(from_text, certain, inherited, claimed, claims, copied is not None)
    _contradictions(claimed, (*from_text, *certain, *inherited), notes)
    upstream = (*claims.parents, *(origin.upstream if origin else ()))
    return Lineage(
        _unique(bound) or (UNKNOWN,), source, claims.words, _unique(upstream), origin, tuple(notes)
    )


def _copied(claims: Claims, repository: str | None, notes: list[str]) -> Origin | None:
    """What the model is a copy of, going by the addresses and the names it carries."""
    if claims.repository and (origin := origin_of(claims.repository)):
        return origin
    for name in ((repository or "").partition("/")[2], *claims.names):
        if name and (origin := origin_by_name(name)):
            notes.append(f"by its name it is, or is made from, {origin.title}")
            return origin
    return None


def _parents(claims: Claims, own: Origin | None, repository: str | None) -> tuple[str, ...]:
    if own is not None:
        return ()  # its origin names all licences that bind
    return tuple(each for each in claims.parents if each.lower() != (repository or "").lower())


def _inherited(parents: Sequence[str], published: Published, notes: list[str]) -> tuple[str, ...]:
    bound: list[str] = []
    for parent in parents:
        if known := published(parent):
            bound += known
            continue
        origin = origin_of(parent)
        if origin is None and (origin := origin_by_name(parent)) is not None:
            notes.append(f"its parent {parent} seems to be made from {origin.title}")
        if origin is None:
            notes.append(f"the licence of its parent {parent} is not known")
            bound.append(UNKNOWN)
        else:
            bound += origin.licences or (UNKNOWN,)
    return _unique(bound)


def _from_texts(
    texts: Sequence[str], known: Sequence[str], claimed: Sequence[str], notes: list[str]
) -> tuple[str, ...]:
    policies = [text for text in texts if detection.is_use_policy(text)]
    bound = _grants([text for text in texts if text not in policies], known, notes)
    spoken_of = (*bound, *known, *claimed)
    expected = any(licence(each)["use_restrictions"].value == "yes" for each in spoken_of)
    if policies and not expected:
        # A licence that restricts nothing, and beside it a policy that does.
        notes.append("a policy on use lies beside it; how far it binds is not known")
        bound = (*bound, UNKNOWN)
    return _unique(bound)


def _grants(texts: Sequence[str], known: Sequence[str], notes: list[str]) -> tuple[str, ...]:
    bound = []
    for text in texts:
        found = detection.by_text(text)
        if found is not None:
            bound.append(found)
            continue
        title = detection.by_title(text)
        if title is None:
            notes.append("a licence text beside it is none that freehold knows")
            bound.append(UNKNOWN)
        elif licence(title).category != "permissive" and title in known:
            notes.append(f"the text beside it is not word for word the {licence(title).name} known")
        elif licence(title).text_sha256:
            name = licence(title).name
            notes.append(f"the text beside it calls itself {name} and says something else")
            # What looks like MIT and is not may have nothing of it; what a vendor's own says holds.
            bound += [UNKNOWN] if licence(title).category == "permissive" else [title, UNKNOWN]
        else:
            notes.append(f"the text beside it calls itself {licence(title).name}; not compared")
            bound += [title] if title in known else [title, UNKNOWN]
    return _unique(bound)


def _claimed(claims: Claims, notes: list[str]) -> tuple[str, ...]:
    """The licences the uploader means; `unknown` for words that mean none."""
    bound = []
    for word in claims.licences:
        found = detection.by_name(word)
        if found is None:
            notes.append(f"the uploader's words {word[:80]!r} name no licence that freehold knows")
        bound.append(found or UNKNOWN)
    linked = [found for link in claims.links if (found := detection.by_link(link))]
    if linked and set(bound) <= {UNKNOWN}:
        return _unique(linked)
    for found in linked:
        if found not in bound:
            notes.append(f"the uploader's link leads to another licence: {licence(found).name}")
            bound.append(found)
    return _unique(bound)


def _weigh(
    from_text: tuple[str, ...], certain: tuple[str, ...], inherited: tuple[str, ...],
    claimed: tuple[str, ...], claims: Claims, is_copy: bool,
) -> tuple[tuple[str, ...], Source]:  # fmt: skip
    if from_text:
        return (*from_text, *certain, *inherited), "text"
    if certain:
        return (*certain, *inherited), "catalogue"
    if inherited and (is_copy or claims.relation == "quantized") and UNKNOWN not in inherited:
        return inherited, "metadata-claim"  # a copy is under the terms of what it copies
    # Of one series the parent's version counts: "llama3" is often written on what came later.
    series = {licence(each).series for each in inherited} - {None}
    rest = tuple(each for each in claimed if licence(each).series not in series)
    bound = (*rest, *inherited)
    return bound, "metadata-claim" if set(bound) - {UNKNOWN} else "unknown"


def _contradictions(claimed: Sequence[str], known: Sequence[str], notes: list[str]) -> None:
    for each in claimed:
        if known and UNKNOWN not in (each, *known) and each not in known:
            others = " and ".join(licence(other).name for other in _unique(known))
            notes.append(f"the uploader claims {licence(each).name}; known is {others}")


def _unique(ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ids))
