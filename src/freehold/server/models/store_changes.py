# SPDX-License-Identifier: Apache-2.0
"""What clients may change in the store of the server's machine, where the operator lets them.

Deletes models, and gives copies of them other names. Whether somebody may is looked at first, so
that who may not learns nothing of what is there. Each change is a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from freehold import builtin
from freehold.catalogue import catalogue
from freehold.errors import InvalidParameterError, ModelNotFoundError
from freehold.hub.store import Store, StoredModel
from freehold.server.failures import RequestError
from freehold.server.models.references import ollama_name
from freehold.server.models.registry import ModelRegistry, ServedModel
from freehold.server.request_context import current, current_key, may_use
from freehold.server.settings import ServerSettings

_log = logging.getLogger("freehold.server")


def require_leave(settings: ServerSettings, what: str) -> None:
    """RequestError unless this server lets whoever asks change its models."""
    if (refusal := leave_refused(settings, what)) is not None:
        raise refusal


def leave_refused(settings: ServerSettings, what: str) -> RequestError | None:
    """Why whoever asks may not change the models; None where that is allowed."""
    if not settings.allow_pull:
        return RequestError(
            f"this server {what} no models for clients",
            kind="forbidden", hint="`freehold serve --allow-pull` makes it do so",
        )  # fmt: skip
    key = current_key()
    if key is not None and not key.manage_models:
        return RequestError(
            f"with the key {key.name} models are used, not fetched, copied or deleted",
            kind="forbidden", hint="`freehold keys create NAME --manage-models` makes one for that",
        )  # fmt: skip
    return None


class StoreChanges:
    """All methods belong to the event loop of the registry."""

    def __init__(self, registry: ModelRegistry, store: Store | None = None) -> None:
        self._registry = registry
        self._store = store

    async def delete(self, name: str) -> None:
        """Take the model of that name out of the store, and out of memory.

        Raises ModelNotFoundError, RequestError where it is none of the store's, pinned or in use,
        and StoreError.
        """
        model = self._registry.find(name)
        stored = _of_store(model, "deleted")
        if model.pinned:
            raise RequestError(f"{model.name} is pinned, and stays", param="model")
        if model.users:
            raise RequestError(
                f"{model.name} is answering {model.users} requests",
                param="model", status_code=409, hint="ask again when they are over",
            )  # fmt: skip
        self._registry.retire(model)  # at once: nobody begins to use it now
        # Who leaves meanwhile has asked all the same.
        await asyncio.shield(asyncio.ensure_future(self._removed(model, stored)))

    async def _removed(self, model: ServedModel, stored: StoredModel) -> None:
        try:
            await self._registry.withdraw(model)
            freed = await asyncio.to_thread((self._store or Store()).remove, stored.name)
        finally:
            self._registry.look_again()
        _tell("deleted", model=model.name, stored=stored.name, bytes=freed)

    async def copy(self, name: str, other: str) -> None:
        """Let the model of a name go by another one too; its files are not copied.

        Raises ModelNotFoundError, RequestError for names that cannot be given, and StoreError.
        """
        stored = _of_store(self._registry.find(name), "copied")
        other = other.removesuffix(":latest")
        _check_new_name(other)
        try:
            there = self._registry.find(other)
        except ModelNotFoundError:
            there = None
        if there is not None:
            if there.stored is not None and there.stored.digest == stored.digest:
                return
            raise _bad_name(other, "is the name of a model that is served", "delete it first")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        copied = replace(stored, name=other, aliases=(), added_at=when)
        await asyncio.shield(asyncio.ensure_future(self._added(copied, stored)))

    async def _added(self, copied: StoredModel, stored: StoredModel) -> None:
        store = self._store or Store()

        def add() -> None:
            if store.find(copied.name) is not None:  # one that whoever asks does not see
                raise _bad_name(copied.name, "is taken")
            store.add(copied)

        await asyncio.to_thread(add)
        _tell("copied", stored=stored.name, model=copied.name)


def _of_store(model: ServedModel, what: str) -> StoredModel:
    stored = model.base.stored
    if stored is None or model.base is not model:
        raise RequestError(
            f"{model.name} is served since the server was started with it, and cannot be {what}",
            param="model", hint="models that the store holds can",
        )  # fmt: skip
    return stored


def _check_new_name(name: str) -> None:
    """A copy is called as Ollama calls models, and pretends to be nobody else's model."""
    if ollama_name(name) is None or not may_use(name) or name.count("/") > 1:
        raise _bad_name(name, "cannot be the name of a copy", "names look like name or name:tag")
    known = name in builtin.MODELS
    with suppress(InvalidParameterError):
        known = known or catalogue.find(name) is not None
    if known:
        raise _bad_name(name, "is the name of a published model, and means that one")
    prefix = name.partition(":")[0].lower()
    if prefix in ("hf", "ollama", "lmstudio", "llama.cpp", "path", "http", "https"):
        raise _bad_name(name, "begins like a place where models come from")


def _bad_name(name: str, why: str, hint: str | None = None) -> RequestError:
    return RequestError(f"{name!r:.120} {why}", param="destination", hint=hint)


def _tell(event: str, **fields: object) -> None:
    known: dict[str, object] = {"id": current().id}
    if (key := current_key()) is not None:
        known["key"] = key.name
    _log.info(event, extra={"fields": known | fields})
