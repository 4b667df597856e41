# SPDX-License-Identifier: Apache-2.0
"""The models a server answers for: which names there are, which are loaded, who uses them.

Knows when a model is loaded and let go; knows nothing of requests or of HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from freehold.async_llm import AsyncLLM
from freehold.errors import InvalidParameterError, ModelNotFoundError
from freehold.llm import LLM
from freehold.server.settings import ServerSettings

Opener = Callable[[str], LLM]


@dataclass(slots=True)
class ServedModel:
    """One name that requests may ask for."""

    name: str
    source: str  # what `LLM` opens
    created: int = field(default_factory=lambda: int(time.time()))
    llm: AsyncLLM | None = None  # while loaded
    users: int = 0  # requests that hold it
    last_used: float = 0.0  # time.monotonic()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def loaded(self) -> AsyncLLM:
        """The model, for whoever holds a lease."""
        assert self.llm is not None
        return self.llm


class ModelRegistry:
    """Names and the models behind them. All methods belong to one event loop."""

    def __init__(self, settings: ServerSettings, open_model: Opener | None = None) -> None:
        self.settings = settings
        self._open = open_model or (lambda source: LLM(source, **settings.engine))
        self._models: dict[str, ServedModel] = {}
        for given in settings.models:
            name, equals, source = given.partition("=")
            if equals and name and "/" not in name:
                self.add(source, name)
            else:
                self.add(given)

    def add(self, source: str, name: str | None = None) -> ServedModel:
        """Serve `source` under `name`; nothing is loaded yet."""
        name = name or short_name(source)
        if name in self._models:
            raise InvalidParameterError(
                f"two models would be served as {name!r}", hint="name one of them: NAME=PATH"
            )
        model = self._models[name] = ServedModel(name, source)
        return model

    def models(self) -> list[ServedModel]:
        """All of them, in the order in which they were named."""
        return list(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model of a name; Ollama's ``:latest`` may follow it.

        Raises ModelNotFoundError.
        """
        model = self._models.get(name) or self._models.get(name.removesuffix(":latest"))
        if model is None:
            raise ModelNotFoundError(
                f"no model is served as {name!r:.120}",
                hint=f"there are: {', '.join(self._models) or 'none'}",
            )
        return model

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[ServedModel]:
        """The model of a name, loaded, and kept so while the lease is held.

        Raises ModelNotFoundError, and what loading raises.
        """
        model = self.find(name)
        model.users += 1
        try:
            await self._load(model)
            yield model
        finally:
            model.users -= 1
            model.last_used = time.monotonic()

    async def _load(self, model: ServedModel) -> None:
        async with model.lock:
            if model.llm is None:
                llm = await asyncio.to_thread(self._open, model.source)
                model.llm = AsyncLLM(llm, max_waiting=self.settings.max_waiting)

    async def close(self) -> None:
        """Wait for what runs, then let all models go."""
        for model in self.models():
            if model.llm is not None:
                llm, model.llm = model.llm, None
                await llm.drain()
                await asyncio.to_thread(llm.close)


def short_name(source: str) -> str:
    """``models/llama-3.2-1b-Q4_K_M.gguf`` is served as ``llama-3.2-1b-Q4_K_M``."""
    path = Path(source)
    return path.stem if path.suffix in (".gguf", ".safetensors") else path.name or source
