# SPDX-License-Identifier: Apache-2.0
"""Asks the application's own routes without a connection, as a caller that was let in already."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp

from freehold.server.observer import CALLER, KEY_NAME, Caller


async def call(app: ASGIApp, path: str, body: bytes, key_name: str) -> tuple[int, int, bytes]:
    """POST `body` to `path`: (status, seconds to wait before another try or 0, body of the answer).

    Cancelling it ends the request as a client does that goes away. Call it from a task of its own.
    """
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "client": None, "server": None, "state": {KEY_NAME: key_name},
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }  # fmt: skip
    status, retry_after = 500, 0
    pieces: list[bytes] = []
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()  # this client does not hang up
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, retry_after
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message.get("headers", ()):
                if name.lower() == b"retry-after" and value.isdigit():
                    retry_after = int(value)
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    CALLER.set(Caller(scope))  # for this task and what it starts
    # What nobody foresaw has been told and logged by then; it is raised once more for servers.
    with suppress(Exception):
        await app(scope, receive, send)
    return status, retry_after, b"".join(pieces)
