# SPDX-License-Identifier: Apache-2.0
"""One model that requests may ask for, and in what state it is. Decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from freehold.async_llm import AnswerWatch, AsyncLLM
from freehold.errors import EngineError
from freehold.hub.store import StoredModel

ModelState = Literal["unloaded", "loading", "loaded", "unloading"]


@dataclass(slots=True, eq=False)
class ServedModel:
    """Written by `ModelRegistry` alone; everybody may look."""

    name: str
    source: str  # what `LLM` opens
    pinned: bool = False
    adapters: dict[str, str] = field(default_factory=dict)  # paths by name, loaded with the model
    created: int = field(default_factory=lambda: int(time.time()))
    state: ModelState = "unloaded"
    llm: AsyncLLM | None = None  # while loaded
    users: int = 0  # requests that hold it or wait for it
    patient: int = 0  # those of them that nobody waits for
    holders: int = 0  # those of them that hold it
    nbytes: int = 0  # of the memory for models: estimated while it loads, then as measured
    progress: float = 0.0  # part of the weights that is loaded
    loads: int = 0  # how many times it was loaded
    last_used: float = 0.0  # time.monotonic()
    expires_at: float | None = None  # time.time() at which it is let go if nobody asks; None: never
    error: str | None = None  # why the last attempt to load it failed
    task: asyncio.Task[None] | None = None  # that loads or unloads it
    timer: asyncio.TimerHandle | None = None  # that will let it go
    stored: StoredModel | None = None  # what it is in the store, where it is served for being there
    retired: bool = False  # nobody finds it any more

    @property
    def base(self) -> ServedModel:
        """The model whose state and memory this is."""
        return self

    @property
    def loaded(self) -> AsyncLLM:
        """The model, for whoever holds a lease. Raises EngineError where it broke and is gone."""
        if self.llm is None:
            raise EngineError(f"{self.name} has stopped")
        return self.llm

    @property
    def evictable(self) -> bool:
        """Whether it could make room for another now."""
        return self.state == "loaded" and not self.users and not self.pinned


class AdaptedModel(ServedModel):
    """A model under one of its adapters, as a request sees it: the name and what `llm` and `loaded`
    give are its own, all else is the model's."""

    def __init__(
        self, base: ServedModel, adapter: str, watch: Callable[[], AnswerWatch | None]
    ) -> None:
        # No other field is set, so that `__getattr__` is asked for them.
        self.name = f"{base.name}:{adapter}"
        self._base, self._adapter, self._watch = base, adapter, watch

    def __getattr__(self, name: str) -> Any:
        if name in ("_base", "_adapter", "_watch"):  # while it is being made
            raise AttributeError(name)
        value = getattr(self._base, name)
        if name == "llm" and value is not None:
            return value.under(self._adapter, watch=self._watch())
        return value

    @property
    def base(self) -> ServedModel:
        return self._base
