# SPDX-License-Identifier: Apache-2.0
"""From a model to its licences, and the house's policy enforced on it.

Joins what lies on disk (headers, model cards, the store's records) and the catalogue with what
`licences` knows. Decides nothing about licences itself; opens headers only, and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from freehold import builtin
from freehold.errors import InvalidParameterError, ModelNotFoundError, PolicyError
from freehold.licences.policy_file import policy_in_force, record_override

if TYPE_CHECKING:
    from freehold.catalogue.member import Member
    from freehold.hub.store import Store, StoredModel
    from freehold.licences.metadata import Claims
    from freehold.licences.openness import Evidence, Openness
    from freehold.licences.policy import Breach, Policy

Action = Literal["pull", "load", "serve"]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model's terms, and on whose word."""

    name: str
    family: str | None
    licences: tuple[str, ...]  # ids, all that bind; "unknown" where something is not known
    licence_source: Literal["text", "catalogue", "metadata-claim", "unknown"]
    claims: tuple[str, ...]  # what the uploader says, as written
    openness: Openness
    upstream: tuple[str, ...] = ()  # repositories it is made from
    notes: tuple[str, ...] = ()  # contradictions and guesses, as sentences
    documents: tuple[str, ...] = ()  # files of its repository that bind beside the licence
    multimodal: bool | None = None
    repository: str | None = None
    texts: tuple[tuple[str, str], ...] = ()  # names and licence texts that came with it


# -- facts --------------------------------------------------------------------------------------


def facts_of(
    model: Path | StoredModel | Member | str,
    *,
    metadata: Mapping[str, Any] | None = None,
    licence_texts: Sequence[str] | None = None,
) -> ModelFacts:
    """The licences and the openness of a model.

    A `str` is a path, the name of a built-in or stored model, a name of the catalogue, or
    ``hf:owner/name``. `metadata` is a GGUF header or the card data of the Hub, for a model that is
    not on this disk yet; `licence_texts` are the texts that come with it.
    """
    from freehold.licences.metadata import claims_of, repository_of

    texts = tuple((f"LICENSE.{n}", text) for n, text in enumerate(licence_texts or ()))
    claims = claims_of(metadata or {})
    if isinstance(model, str):
        found = _named(model)
        if found is None:
            repository = repository_of(_reference(model))
            return _join(model, claims, repository=repository, texts=texts)
        whole = facts_of(found, metadata=metadata, licence_texts=licence_texts)
        return replace(whole, name=model)  # as it was asked for
    if isinstance(model, Path):
        return _of_path(model, metadata, texts)
    from freehold.catalogue.member import Member

    if isinstance(model, Member):
        return _join(model.name, claims, repository=model.repo, member=model, texts=texts)
    return _of_stored(model, metadata, texts)


def facts_of_name(name: str) -> ModelFacts:
    """`facts_of` for what a person typed. Raises ModelNotFoundError where it means nothing: neither
    a file nor a model that is stored or published."""
    from freehold.catalogue import catalogue
    from freehold.licences.metadata import repository_of

    if _named(name) is None and repository_of(_reference(name)) is None:
        catalogue.get(name)
    return facts_of(name)


def _reference(name: str) -> str:
    """``owner/name`` out of ``hf:owner/name:quant@revision``; other names as they are."""
    if name.startswith("hf:"):
        name = name.removeprefix("hf:").partition("@")[0].partition(":")[0]
    return name


def _named(name: str) -> Path | StoredModel | Member | None:
    """What lies under a name: a built-in model, one of the store, a file, one of the catalogue."""
    from freehold.catalogue.catalogue import find

    if name in builtin.MODELS:
        return builtin.model_path(name)
    if (stored := stored_model(name)) is not None:
        return stored
    path = Path(name)
    if path.exists():
        return path
    if member := find(_reference(name.removeprefix("ollama:"))):
        return member
    if path.is_absolute() or path.suffix in (".gguf", ".safetensors"):
        raise ModelNotFoundError(f"{name!s:.200}: there is no such file")
    return None


def stored_model(name: str) -> StoredModel | None:
    """The model of the store that goes by this name."""
    store = _store()
    return store.find(name) if store is not None and len(name) <= 500 else None


def _store() -> Store | None:
    from freehold.hub.store import Store

    try:
        return Store()
    except InvalidParameterError:  # nobody's home, and no store in it
        return None


def _of_path(
    path: Path, metadata: Mapping[str, Any] | None, texts: tuple[tuple[str, str], ...]
) -> ModelFacts:
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.licences import model_card
    from freehold.licences.metadata import claims_of

    if (stored := _stored_at(path)) is not None:
        return _of_stored(stored, metadata, texts)
    if metadata is None:
        with open_checkpoint(path) as checkpoint:
            metadata = dict(checkpoint.metadata)
    # A card describes the directory it lies in, not whatever file lies there too.
    if path.is_dir():
        metadata = {**metadata, **model_card.card_of(path)}
        texts = (*texts, *model_card.licence_texts(path))
    if path.parent == Path(builtin.__file__).parent and path.stem in builtin.MODELS:
        return _built_in(path, claims_of(metadata))
    return _join(str(path), claims_of(metadata), texts=texts, file_name=path.name)


def _built_in(path: Path, claims: Claims) -> ModelFacts:
    """freehold's own: model, data and recipe lie in its repository under its licence."""
    from freehold.licences.openness import Evidence, Fact, openness_of

    own = Fact("open", builtin.LICENCE, "https://opensource.org/licenses", note="its own recipe")
    return ModelFacts(
        name=path.stem, family=path.stem, licences=(builtin.LICENCE,), licence_source="catalogue",
        claims=claims.words, multimodal=False,
        openness=openness_of(Evidence(weights=own, data=own, code=own), (builtin.LICENCE,)),
    )  # fmt: skip


def _stored_at(path: Path) -> StoredModel | None:
    """The stored model whose file this is."""
    store = _store()
    if store is None or not path.absolute().is_relative_to(store.root):
        return None
    sound = (model for model in store.models() if not model.problem())
    return next((model for model in sound if model.path() == path.absolute()), None)


def _of_stored(
    stored: StoredModel, metadata: Mapping[str, Any] | None, texts: tuple[tuple[str, str], ...]
) -> ModelFacts:
    from freehold.catalogue.catalogue import find
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.licences import model_card
    from freehold.licences.metadata import Claims, claims_of, repository_of

    path = stored.path()
    with open_checkpoint(path) as checkpoint:
        header = dict(checkpoint.metadata)
        directory = checkpoint.directory
    said = claims_of({**header, **model_card.card_of(directory), **(metadata or {})})
    recorded = Claims(
        licences=(stored.licence_claim,) if stored.licence_claim else (),
        parents=stored.base_models,
    )
    claims = said.joined(recorded)
    repository = repository_of(stored.repository)
    names = (repository or "", stored.name.removeprefix("ollama:"), *stored.aliases)
    member = next((found for name in names if name and (found := find(name))), None)
    if member is not None and repository not in member.repos:
        # A name such as Ollama's says what it is a copy of.
        claims = claims.joined(Claims(parents=(member.repo,)))
    return _join(
        stored.name, claims, repository=repository, member=member,
        texts=(*texts, *model_card.licence_texts(directory)),
    )  # fmt: skip


def _published(repository: str) -> tuple[str, ...]:
    from freehold.catalogue.catalogue import find

    member = find(repository)
    return member.licence if member is not None else ()


def _join(
    name: str, claims: Claims, *, repository: str | None = None, member: Member | None = None,
    texts: tuple[tuple[str, str], ...] = (), file_name: str = "",
) -> ModelFacts:  # fmt: skip
    from freehold.licences import lineage, openness
    from freehold.licences.origins import origin_by_name

    own = member is not None and repository in member.repos
    known = member.licence if member is not None and own else ()
    traced = lineage.trace(
        claims,
        repository=repository,
        texts=[text for _, text in texts],
        known=known,
        published=_published,
    )
    notes = list(traced.notes)
    if traced.source == "unknown" and (guess := origin_by_name(file_name)) is not None:
        notes.append(f"by the name of its file it may be {guess.title}; nothing in it says so")
    origin = traced.origin
    evidence = origin.evidence if origin else openness.Evidence()
    if member is not None and member.evidence:
        evidence = _evidence(member, evidence if origin else None)
    multimodal = origin.multimodal if origin else None
    if multimodal is None and member is not None:
        multimodal = "vision" in member.tasks or "audio" in member.tasks
    documents = (*(origin.documents if origin else ()), *(member.documents if member else ()))
    family = member.family if member else origin.family if origin else None
    return ModelFacts(
        name=name, family=family, licences=traced.licences, licence_source=traced.source,
        claims=traced.claims, openness=openness.openness_of(evidence, traced.licences),
        upstream=tuple(dict.fromkeys((*traced.upstream, *(member.upstream if member else ())))),
        notes=tuple(notes), documents=tuple(dict.fromkeys(documents)), multimodal=multimodal,
        repository=repository, texts=texts,
    )  # fmt: skip


def _evidence(member: Member, origin: Evidence | None) -> Evidence:
    """The catalogue's evidence; grades of the European index, which it has in words only, are the
    publisher's."""
    from freehold.catalogue.openness import evidence_of

    found = evidence_of(member)
    if origin is None:
        return found
    osaid = origin.osaid if found.osaid == "not assessed" else found.osaid
    return replace(found, osaid=osaid, index=origin.index, index_date=origin.index_date)


# -- policy -------------------------------------------------------------------------------------


def enforce(action: Action, facts: ModelFacts, *, override: str | None = None) -> None:
    """Raise PolicyError, with `reason`, where this house's policy does not allow it.

    `override` is why somebody goes past the policy all the same; who, when, what and why are
    written down first. Without a policy file this returns at once.
    """
    in_force = policy_in_force()
    if in_force is None:
        return
    policy, path = in_force
    found = breaches_of(action, facts, policy)
    if not found:
        return
    reason = _reason(action, facts, found, path)
    if override is not None and policy.overrides == "allow":
        record_override(reason, override)
        return
    hint = (
        f"{path} says so and allows no exceptions"
        if policy.overrides == "forbid"
        else f"{path} says so; --policy-override WHY goes past it and writes that down"
    )
    sentences = "; ".join(dict.fromkeys(breach.sentence for breach in found))
    raise PolicyError(
        f"policy forbids to {action} {facts.name}: {sentences}", hint=hint, reason=reason
    )


def enforce_on(
    action: Action, path: Path, *, name: str | None = None, override: str | None = None
) -> None:
    """`enforce` on the model that lies at `path`, which somebody calls `name`; its facts are looked
    up only where there is a policy."""
    if policy_in_force() is not None:
        facts = facts_of(path)
        enforce(action, replace(facts, name=name or facts.name), override=override)


def breaches_of(action: Action, facts: ModelFacts, policy: Policy) -> list[Breach]:
    """The rules of `policy` that an action on a model breaks."""
    from freehold.licences.policy import breaches

    if action not in policy.actions:
        return []
    return breaches(
        policy,
        licence_ids=facts.licences,
        claim_only=facts.licence_source == "metadata-claim",
        family=facts.family,
        openness=facts.openness,
    )


def _reason(
    action: Action, facts: ModelFacts, found: Sequence[Breach], path: Path
) -> dict[str, object]:
    return {
        "code": found[0].code,
        "action": action,
        "model": facts.name,
        "family": facts.family,
        "licences": list(facts.licences),
        "licence_source": facts.licence_source,
        "claims": list(facts.claims),
        "breaches": [
            {"code": each.code, "rule": each.rule, "licence": each.licence, "why": each.sentence}
            for each in found
        ],
        "policy": str(path),
    }
