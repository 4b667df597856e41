# SPDX-License-Identifier: Apache-2.0
"""The outermost layer: gives every request its id and its record, and tells of its end."""

from __future__ import annotations

import secrets
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freehold.server.observer import Observer
from freehold.server.request_context import RequestRecord, set_current

ID_HEADERS = (
    "request-id",
    "x-request-id",
)  # Anthropic's clients read the first


class RecordMiddleware:
    """Makes the record of each request, which `request_context.current` gives from then on."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self._app, self._observer = app, observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord("req_" + secrets.token_hex(12))
        # Always set: a connection's later requests may run in the context of its first.
        set_current(record)
        status = 500  # an exception that nobody turns into an answer

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name in ID_HEADERS:
                    headers[name] = record.id
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            record.over = True
            self._observer.answered(scope["method"], _route(scope), status)


def _route(scope: MutableMapping[str, Any]) -> str:
    """The path with the names of its parameters, which tells nothing of the request."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "(none)"
