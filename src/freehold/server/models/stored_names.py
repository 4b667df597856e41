# SPDX-License-Identifier: Apache-2.0
"""The models of the store as a server offers them: which there are now, and under which names.

A model of an Ollama registry is offered under Ollama's own name, one of the catalogue under the
catalogue's, any other under the one that the store has. Reads the store again when it was changed,
by whomever. Knows nothing of who may use a model, nor of loading.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from freehold.errors import FreeholdError, StoreError
from freehold.hub.store import Store, StoredModel
from freehold.model_names import find_among, find_stored, is_stored_name
from freehold.server.models.references import ollama_name

# A clock of a disk may stand still for so long: what was read within this time of a change may be
# older than the change.
_TICK_NS = 50_000_000
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_log = logging.getLogger("freehold.server")


class StoredNames:
    """What the store of this machine holds, as far as it was read."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store or Store()
        self._seen: int | None = None
        self._read = False
        self.models: Mapping[str, StoredModel] = {}  # by the name it is offered under

    def refresh(self) -> bool:
        """Read the store if it was changed; whether it was read."""
        version, now = self._store.version(), time.time_ns()
        if self._read and version == self._seen:
            return False
        try:
            models, damaged = self._store.scan()
        except StoreError as error:
            _log.error("the store of models cannot be read: %s", error)
            self._seen, self._read = version, True
            return False
        for record in damaged:
            _log.warning("%s", record.error)
        self.models = offered(models)
        self._seen = version
        self._read = version is None or abs(now - version) > _TICK_NS
        return True

    def forget(self) -> None:
        """Read again when next asked."""
        self._read = False

    def spelled(self, name: str, among: Collection[str]) -> str | None:
        """Which of the offered names `among` is meant by another spelling.

        Raises ModelNotFoundError where it could be several."""
        models = [self.models[each] for each in among]
        found = find_among(name, models)
        if found is None and (other := ollama_name(name)) is not None:
            found = find_among(other, models)
        return next((each for each in among if self.models[each] is found), None)


def offered(models: Collection[StoredModel]) -> dict[str, StoredModel]:
    """Names to serve models of a store under. A name of two is the one's whose own it is, else the
    first one's."""
    result: dict[str, StoredModel] = {}
    taken: set[str] = (
        set()
    )  # without ``:latest``, which to clients of Ollama's API is no difference
    for model in sorted(models, key=lambda each: _name_of(each) != each.name):
        name = _name_of(model)
        if name.removesuffix(":latest") in taken:
            name = model.name if is_stored_name(model.name) else f"{name}-{model.digest[:12]}"
        result.setdefault(name, model)
        taken.add(name.removesuffix(":latest"))
    return result


def _name_of(model: StoredModel) -> str:
    prefix, _, rest = model.name.partition(":")
    if prefix == "ollama":
        return rest
    plain = next((alias for alias in model.aliases if _PLAIN.fullmatch(alias)), None)
    if plain is not None or is_stored_name(model.name):
        return plain or model.name
    return short_name(model.name)  # a path of this machine is nobody else's business


def source_of(model: StoredModel) -> str:
    """What `LLM` opens. A name that would be taken for something else is passed by; raises
    StoreError where that is so and a file is gone."""
    return model.name if is_stored_name(model.name) else str(model.path())


def short_name(source: str) -> str:
    """``models/llama-3.2-1b-Q4_K_M.gguf`` is served as ``llama-3.2-1b-Q4_K_M``."""
    path = Path(source)
    return path.stem if path.suffix in (".gguf", ".safetensors") else path.name or source


def same_model(one: StoredModel, other: StoredModel) -> bool:
    """Whether what is opened under both is the same, to the byte."""
    return (one.name, one.entry, one.digest) == (other.name, other.entry, other.digest)


def stored_as(source: str) -> str | None:
    """The store's own name of a model that somebody serves as `source`."""
    try:
        found = find_stored(source) if is_stored_name(source) else None
    except FreeholdError:
        return None
    return None if found is None else found.name
