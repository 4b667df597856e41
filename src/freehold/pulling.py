# SPDX-License-Identifier: Apache-2.0
"""From a name to a model in the store: finds its source, asks the policy, fetches.

The one door for `freehold pull` and for servers. Knows which source a name belongs to and which
token may go where; how bytes come is `hub/`'s. Nothing is fetched but what the name asks for, and
nothing of a model's files before the policy has agreed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from freehold import licensing
from freehold._pull_choice import chooser_for
from freehold.catalogue import catalogue
from freehold.catalogue.member import Member
from freehold.config import hf_endpoint
from freehold.errors import DownloadError, FreeholdError, ModelNotFoundError
from freehold.hub import reference
from freehold.hub.fetching import (
    Need,
    Progress,
    check_name,
    fetch_model,
    known_already,
    need,
)
from freehold.hub.ranged_download import TransferLimits
from freehold.hub.reference import Reference
from freehold.hub.remote import RemoteModel
from freehold.hub.sources import huggingface, ollama, path, url
from freehold.hub.store import Store, StoredModel
from freehold.hub.web import Web, WebLimits
from freehold.hub.web_errors import check_encoding
from freehold.hub.web_rules import Credential, origin
from freehold.licences.policy_file import policy_in_force
from freehold.planner.remote_headers import Fetch, RemotePart, open_remote

Note = Callable[[str], None]  # told what a person should know


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How a name is understood and fetched."""

    quant: str | None = None
    revision: str | None = None
    endpoint: str | None = None  # of Hugging Face's protocol, or of Ollama's registry
    token: str | None = None  # for the endpoint, or the host of the URL
    override: str | None = None  # why the policy is overridden, in the user's words
    web: WebLimits | None = None
    transfer: TransferLimits | None = None


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would bring."""

    model: RemoteModel
    need: Need


def plan_pull(
    name: str,
    options: PullOptions | None = None,
    *,
    store: Store | None = None,
    note: Note = lambda text: None,
) -> PullPlan:
    """What `pull` would fetch; asks the source and the policy, and fetches nothing."""
    options, store = options or PullOptions(), store or Store()
    with Web(limits=options.web, note=note) as web:
        return _plan(name, options, store, web, note)


@contextmanager
def remote_parts(
    name: str, options: PullOptions | None = None, *, note: Note = lambda text: None
) -> Iterator[tuple[RemoteModel, Fetch]]:
    """What a name stands for elsewhere, and what fetches a part of a file. For plans, which keep
    nothing, so no policy is asked.

    Raises as `plan_pull`; the function raises DownloadError."""
    options = options or PullOptions()
    with Web(limits=options.web, note=note) as web:
        ref = reference.with_choice(reference.parse(name), options.quant, options.revision)
        yield _resolve(ref, options, web, note), _part_of(web)


def _part_of(web: Web) -> Fetch:
    """Fetches a part of a file: location, first byte, how many."""

    def fetch(location: str, first: int, count: int) -> bytes:
        wanted = {"Range": f"bytes={first}-{first + count - 1}"}

        def once() -> bytes:
            with web.open(location, wanted) as response:
                check_encoding(response)
                given = response.headers.get("content-range", "")
                length = response.headers.get("content-length", "")
                if not given.startswith(f"bytes {first}-") or length != str(count):
                    raise DownloadError(
                        f"{origin(location)[1]} does not give out parts of files",
                        hint="pull the model, then plan it",
                    )
                return response.read()

        return web.patiently(once)

    return fetch


def pull(
    name: str,
    options: PullOptions | None = None,
    *,
    store: Store | None = None,
    progress: Progress = lambda done, total, file: None,
    note: Note = lambda text: None,
    planned: Callable[[PullPlan], None] = lambda plan: None,
) -> StoredModel:
    """Fetch the model of that name into the store, or go on where an earlier try ended.

    `planned` is told what will come, once the policy has agreed. Whatever a callback raises ends
    the fetch, and what has come is kept.

    Raises InvalidParameterError for names, ModelNotFoundError, PolicyError before anything was
    fetched, DownloadError, IntegrityError, CapacityError and StoreError.
    """
    options, store = options or PullOptions(), store or Store()
    with Web(limits=options.web, note=note) as web:
        plan = _plan(name, options, store, web, note)
        planned(plan)
        return fetch_model(plan.model, store, web, progress, options.transfer)


def _plan(name: str, options: PullOptions, store: Store, web: Web, note: Note) -> PullPlan:
    ref = reference.with_choice(reference.parse(name), options.quant, options.revision)
    if options.override is None:  # else the answer is written down, once: when all is known
        _ask_policy_offline(ref)
    model = _resolve(ref, options, web, note)
    # What was typed leads to it too, but for paths, which mean something else in another folder.
    if ref.name != model.reference.name and ref.kind != "path":
        model = replace(model, aliases=(*model.aliases, ref.name))
    check_name(model)
    _ask_policy(model, options.override, web)
    model = known_already(model, store)
    return PullPlan(model, need(model, store))


def _ask_policy_offline(ref: Reference) -> None:
    """PolicyError where the catalogue alone says enough: then no server learns of the wish. What a
    source adds can make a model's terms stricter only, so a refusal here is final."""
    if policy_in_force() is None or ref.kind not in ("catalogue", "huggingface", "ollama"):
        return
    if ref.host is not None:  # a registry that has its own models
        return
    name = ref.name.removeprefix("ollama:") if ref.kind == "ollama" else ref.repository
    member = catalogue.find(name)
    if member is not None and member.licence:
        licensing.enforce("pull", replace(licensing.facts_of(member), name=ref.name))


def _ask_policy(model: RemoteModel, override: str | None, web: Web) -> None:
    """PolicyError where this house does not allow the model, by what is known before it is here.

    What the store holds under the same name is another revision, so it is not asked.
    """
    if policy_in_force() is None:
        return
    metadata = model.metadata if model.source != "url" else _header(model, web)
    facts = licensing.facts_of(
        _subject(model), metadata=metadata or None, licence_texts=model.licence_texts
    )
    named = replace(facts, name=model.reference.name)
    licensing.enforce("pull", named, override=override)


def _subject(model: RemoteModel) -> Member | Path | str:
    """What `licensing` is asked about: a model of the catalogue if it is one."""
    if model.source == "path":
        return Path(model.repository)
    known = None
    if model.source == "huggingface":
        known = catalogue.find(model.repository)
    elif model.source == "ollama" and model.reference.host is None:
        known = catalogue.find(model.reference.name.removeprefix("ollama:"))
    # With the revision behind it, it is neither a path nor what a store calls a model.
    return known or f"{model.reference.name.partition('@')[0]}@{model.revision}"


def _header(model: RemoteModel, web: Web) -> Mapping[str, object]:
    """What the header of a GGUF file at a URL says, which nobody else says anything about."""
    parts = [
        RemotePart(file.name, file.size, file.location)
        for file in model.files
        if isinstance(file.location, str) and file.name.endswith(".gguf")
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            checkpoint, _ = open_remote(parts, model.entry, Path(folder), _part_of(web))
        except FreeholdError:
            return {}  # nothing is known then, and the policy says what that means
        with checkpoint:
            return dict(checkpoint.metadata)


def _resolve(ref: Reference, options: PullOptions, web: Web, note: Note) -> RemoteModel:
    if ref.kind == "path":
        return path.resolve(ref)
    if ref.kind == "url":
        if options.token is not None:
            web.use(Credential.for_url(ref.repository, options.token))
        return url.resolve(ref, web)
    if ref.kind == "ollama":
        if options.token is not None:
            web.use(Credential.for_url(options.endpoint or ollama.endpoint_of(ref), options.token))
        return ollama.resolve(ref, web, endpoint=options.endpoint)
    endpoint = options.endpoint or hf_endpoint()
    web.use(_huggingface_login(endpoint, options, note))
    if ref.kind == "huggingface":
        return huggingface.resolve(ref, web, endpoint=endpoint, chooser=chooser_for(ref, note))
    return _catalogue(ref, web, endpoint, note)


def _huggingface_login(endpoint: str, options: PullOptions, note: Note) -> Credential | None:
    """The token that goes to `endpoint`: the one given for it; that of the login only to Hugging
    Face itself, for a mirror is somebody else."""
    if options.token is not None:
        return Credential.for_url(endpoint, options.token)
    saved = huggingface.saved_token()
    if saved is None:
        return None
    if origin(endpoint) == origin(huggingface.ENDPOINT):
        return Credential.for_url(endpoint, saved)
    note(
        f"note: {origin(endpoint)[1]} is not told your Hugging Face token (--token-file gives it "
        "one)"
    )
    return None


def _catalogue(ref: Reference, web: Web, endpoint: str, note: Note) -> RemoteModel:
    """The model of a shorthand: as GGUF where somebody publishes it so, else from its vendor."""
    member = catalogue.get(ref.repository)
    missed: ModelNotFoundError | None = None
    for repository in member.gguf_repos:
        try:
            return _member_at(member, repository, ref, web, endpoint, note)
        except ModelNotFoundError as error:
            missed = missed or error
    if missed is not None and ref.quant is not None:
        raise missed  # the vendor's own files have no quants to choose from
    return _member_at(member, member.repo, ref, web, endpoint, note)


def _member_at(
    member: Member, repository: str, ref: Reference, web: Web, endpoint: str, note: Note
) -> RemoteModel:
    wanted = reference.huggingface(repository, ref.quant, ref.revision)
    found = huggingface.resolve(wanted, web, endpoint=endpoint, chooser=chooser_for(wanted, note))
    return replace(found, aliases=(member.name,))
