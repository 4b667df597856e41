# SPDX-License-Identifier: Apache-2.0
"""What a server tells about its work, to whoever counts it. Knows no exporter.

The registry tells of models, and each model of its answers (`AnswerWatch`), so no dialect has to.
On whose behalf an answer is made is a context variable that `CallerMiddleware` sets for every HTTP
request; tasks inherit it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freehold.async_llm import AnswerWatch

if TYPE_CHECKING:
    from freehold.server.served_model import ServedModel

# Why a model was let go: nobody asked for it, others needed the memory, somebody asked for it to
# go, its engine had stopped, the server ends.
UnloadReason = Literal["idle", "memory", "asked", "broken", "shutdown"]
UNLOAD_REASONS: tuple[UnloadReason, ...] = ("idle", "memory", "asked", "broken", "shutdown")
KEY_NAME = "freehold.key"  # where a scope's state names the API key that was shown


@dataclass(slots=True, eq=False)
class Caller:
    """The HTTP request that asks."""

    scope: Mapping[str, Any]
    arrived: float = field(default_factory=time.monotonic)
    over: bool = False  # work may outlast it: a batch, a stored response

    @property
    def key(self) -> str:
        """Name of the API key, "" without one. Looked up late: who is asked first may change."""
        state = self.scope.get("state")
        name = state.get(KEY_NAME) if isinstance(state, Mapping) else None
        return name if isinstance(name, str) else ""


CALLER: ContextVar[Caller | None] = ContextVar("freehold_caller", default=None)


class Observer:
    """Told what happens, and does nothing with it. All methods are called on the event loop."""

    def answers(self, model: str) -> AnswerWatch | None:
        """Who watches the answers of a model."""
        return None

    def loaded(self, model: ServedModel, seconds: float) -> None:
        """A model can be asked from now on."""

    def load_failed(self, model: ServedModel) -> None:
        """A model could not be loaded."""

    def unloading(self, model: ServedModel, reason: UnloadReason) -> None:
        """A model is about to be let go."""

    def unloaded(self, model: ServedModel) -> None:
        """Its work is over; it can still be looked at."""

    def answered(self, method: str, route: str, status: int) -> None:
        """An HTTP request is over. `route` is a path with the names of its parameters."""


class CallerMiddleware:
    """Sets `CALLER`, and tells the observer of each request's end."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app, self._observer = app, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = Caller(scope)
        status = 500  # an exception that nobody turns into an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = CALLER.set(caller)
        try:
            await self._app(scope, receive, watched)
        finally:
            CALLER.reset(token)
            caller.over = True
            self._observer.answered(scope["method"], _route(scope), status)


def _route(scope: MutableMapping[str, Any]) -> str:
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "(none)"
