# SPDX-License-Identifier: Apache-2.0
"""A name for every request, told to the client, so that both sides speak of the same one."""

from __future__ import annotations

import secrets

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = ("request-id", "x-request-id")  # Anthropic's clients read the first, OpenAI's the second


class RequestIds:
    """ASGI middleware: puts the id into ``request.state.request_id`` and both headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name in HEADERS:
                    headers[name] = request_id
            await send(message)

        await self._app(scope, receive, named)
