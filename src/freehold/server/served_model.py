# SPDX-License-Identifier: Apache-2.0
"""One model that requests may ask for, and in what state it is. Decides nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

from freehold.async_llm import AsyncLLM
from freehold.errors import EngineError

ModelState = Literal["unloaded", "loading", "loaded", "unloading"]


@dataclass(slots=True, eq=False)
class ServedModel:
    """Written by `ModelRegistry` alone; everybody may look."""

    name: str
    source: str  # what `LLM` opens
    pinned: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    state: ModelState = "unloaded"
    llm: AsyncLLM | None = None  # while loaded
    users: int = 0  # requests that hold it or wait for it
    holders: int = 0  # those of them that hold it
    nbytes: int = 0  # of the memory for models: estimated while it loads, then as measured
    progress: float = 0.0  # part of the weights that is loaded
    loads: int = 0  # how many times it was loaded
    last_used: float = 0.0  # time.monotonic()
    expires_at: float | None = None  # time.time() at which it is let go if nobody asks; None: never
    error: str | None = None  # why the last attempt to load it failed
    task: asyncio.Task[None] | None = None  # that loads or unloads it
    timer: asyncio.TimerHandle | None = None  # that will let it go

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
