# SPDX-License-Identifier: Apache-2.0
"""Which names a server answers to, and which model each stands for.

There are models that were named when the server was started, those under adapters of theirs, and,
where that was asked for, whatever the store holds now. A model that leaves the store, or becomes
another one under its name, is retired: nobody finds it any more, and who uses it may finish. Knows
nothing of loading.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress

from freehold.errors import InvalidParameterError, ModelNotFoundError, StoreError
from freehold.licences.policy_file import policy_in_force
from freehold.licensing import enforce_on
from freehold.model_names import resolve_model
from freehold.models.adapters import check_adapter_name
from freehold.server.models.served_model import AdaptedModel, ServedModel
from freehold.server.models.stored_names import (
    StoredNames,
    same_model,
    short_name,
    source_of,
    stored_as,
)
from freehold.server.monitoring.observer import Observer
from freehold.server.monitoring.record_watch import RecordWatch
from freehold.server.request_context import may_use
from freehold.server.settings import ServerSettings

_log = logging.getLogger("freehold.server")
_MOST_TOLD = 20  # names in a sentence


class ServedNames:
    """All methods belong to one event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises InvalidParameterError, ModelNotFoundError and PolicyError for what is named."""
        self.settings = settings
        self.observer = Observer()
        self._models: dict[str, ServedModel] = {}
        self._adapted: dict[str, AdaptedModel] = {}
        self._retired: list[ServedModel] = []  # that nobody finds, and that are in memory still
        self._stored = StoredNames() if settings.store else None
        self._given: dict[str, str] = {}  # models of the store that were named at the start
        for given in settings.models:
            name, equals, source = given.partition("=")
            if equals and name and "/" not in name:
                self.add(source, name)
            else:
                self.add(given)
        for given in settings.adapters:
            self._add_given_adapter(given)
        for name in (*settings.pinned, *settings.preload):
            self.find(name)  # a name that is not there is told at once
        for name in settings.pinned:
            self.find(name).base.pinned = True

    def add(self, source: str, name: str | None = None) -> ServedModel:
        """Serve `source` under `name`; nothing is loaded yet."""
        name = name or short_name(source)
        if name in self._models:
            raise InvalidParameterError(
                f"two models would be served as {name!r}", hint="name one of them: NAME=PATH"
            )
        self._enforce_policy(source)
        if self._stored is not None and (stored := stored_as(source)) is not None:
            self._given[stored] = name
        model = self._models[name] = ServedModel(name, source)
        return model

    def _enforce_policy(self, source: str) -> None:
        """PolicyError where the policy of this machine forbids to serve a model. What is not there
        is told when it is asked for."""
        if policy_in_force() is None:
            return
        with suppress(ModelNotFoundError):
            override = self.settings.engine.get("policy_override")
            enforce_on("serve", resolve_model(source), name=source, override=override)

    def add_adapter(self, model: str, name: str, path: str) -> ServedModel:
        """Serve `model` under an adapter as ``model:name``; it is loaded with the model, so that
        is not to be loaded yet."""
        base = self.find(model).base
        if base.stored is not None:
            raise InvalidParameterError(
                f"{base.name} is served as a model of the store, which has no adapters here",
                hint="name the model too: `freehold serve MODEL --adapter MODEL:NAME=PATH`",
            )
        whole = f"{base.name}:{name}"
        check_adapter_name(name)
        if whole in self._models or whole in self._adapted or name == "latest":
            raise InvalidParameterError(
                f"{whole!r} cannot be the name of an adapted model, it has another meaning",
                hint="choose another name for the adapter",
            )
        base.adapters[name] = path
        adapted = self._adapted[whole] = AdaptedModel(
            base, name, lambda: RecordWatch(whole, self.observer.answers(whole))
        )
        return adapted

    def _add_given_adapter(self, given: str) -> None:
        """``NAME=PATH`` or ``MODEL:NAME=PATH``."""
        label, equals, path = given.partition("=")
        model, _, name = label.rpartition(":")
        if not (equals and name and path):
            raise InvalidParameterError(
                f"--adapter {given!r:.120} names no adapter", hint="write NAME=PATH"
            )
        if not model and len(self._models) != 1:
            raise InvalidParameterError(
                f"--adapter {given!r:.120} does not say for which model it is",
                hint="write MODEL:NAME=PATH",
            )
        self.add_adapter(model or next(iter(self._models)), name, path)

    def models(self) -> list[ServedModel]:
        """All that whoever asks may use, in the order in which they were named, those under
        adapters last."""
        self._refresh()
        everything = (*self._models.values(), *self._adapted.values())
        return [model for model in everything if may_use(model.name)]

    def bases(self) -> list[ServedModel]:
        """Those that are loaded and take memory: without the names under adapters."""
        return list(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model of a name; Ollama's ``:latest`` may follow it or be left out, and a model of
        the store goes by any name that the store knows for it.

        Raises ModelNotFoundError, for a model that whoever asks may not use as for none.
        """
        self._refresh()
        for each in (name, name.removesuffix(":latest"), f"{name}:latest"):
            model = self._models.get(each) or self._adapted.get(each)
            if model is not None and may_use(model.name):
                return model
        if (model := self._found_in_store(name)) is not None:
            return model
        names = [model.name for model in self.models()]
        more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
        raise ModelNotFoundError(
            f"no model is served as {name!r:.120}",
            hint=f"there are: {', '.join(names[:_MOST_TOLD]) or 'none'}{more}",
        )

    # -- the store -------------------------------------------------------------------------------
    def _found_in_store(self, name: str) -> ServedModel | None:
        """By another spelling than the one it is listed under."""
        if self._stored is None:
            return None
        served: dict[str, str] = {}
        for offered, stored in self._stored.models.items():
            name_here = self._given.get(stored.name, offered)
            if may_use(name_here):
                served[offered] = name_here
        found = self._stored.spelled(name, served)
        return None if found is None else self._models.get(served[found])

    def _refresh(self) -> None:
        """See what the store holds now; costs one look at a folder where nothing has changed."""
        if self._stored is None or not self._stored.refresh():
            return
        offered = self._stored.models
        for model in [*self._models.values()]:
            if model.stored is None:
                continue
            now = offered.get(model.name)
            if now is not None and same_model(now, model.stored):
                model.stored = now
            else:
                self.retire(model)
        for name, stored in offered.items():
            if name in self._models or name in self._adapted or stored.name in self._given:
                continue
            try:
                source = source_of(stored)
            except StoreError as error:
                _log.warning("%s", error)
                continue
            self._models[name] = ServedModel(
                name, source, pinned=name in self.settings.pinned, stored=stored
            )

    def retire(self, model: ServedModel) -> None:
        """Answer for a model no longer. It is kept in mind as long as it takes memory."""
        if self._models.get(model.name) is model:
            del self._models[model.name]
        model.retired, model.pinned = True, False
        if model.state != "unloaded" and model not in self._retired:
            self._retired.append(model)

    def look_again(self) -> None:
        """Believe nothing that is remembered of the store."""
        if self._stored is not None:
            self._stored.forget()

    def _all(self) -> Iterable[ServedModel]:
        """Every model that may take memory."""
        return [*self._models.values(), *self._retired]

    def _forget(self, model: ServedModel) -> None:
        """A model has left the memory."""
        if model in self._retired:
            self._retired.remove(model)
