# SPDX-License-Identifier: Apache-2.0
"""Asks the application's own routes without a connection, as a caller that was let in already."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.types import ASGIApp

from freehold.server.failures import Failure, RequestError, failure_of
from freehold.server.refusals import Refusals
from freehold.server.request_context import KEY_NAME, RequestRecord, set_current
from freehold.server.services import Services


class InnerCalls:
    """Asks `app` on behalf of keys, which must still be valid and have something left."""

    def __init__(self, app: ASGIApp, services: Services, refuse: Refusals) -> None:
        self._app, self._services, self._refuse = app, services, refuse

    async def __call__(self, path: str, body: bytes, key_name: str) -> tuple[int, int, bytes]:
        """What `call` does, for the key of that name; "" stands for none."""
        set_current(
            record := RequestRecord(over=True, patient=True)
        )  # for this task and what it starts
        if not key_name:
            return await call(self._app, path, body, "")
        keys, quotas = self._services.keys, self._services.quotas
        key = None if keys is None else keys.named(key_name)
        try:
            if key is None or key.expired():
                message = f"the API key {key_name} is not valid any more"
                raise RequestError(message, kind="unauthenticated")
            quotas.enter(key)
        except RequestError as error:
            return self._refused(path, failure_of(error))
        record.key, record.on_tokens = key, partial(quotas.charge, key)
        try:
            return await call(self._app, path, body, key_name)
        finally:
            quotas.leave(key)

    def _refused(self, path: str, failure: Failure) -> tuple[int, int, bytes]:
        answer = self._refuse.response(path, failure)
        return answer.status_code, failure.retry_after or 0, bytes(answer.body)


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

    # What nobody foresaw has been told and logged by then; it is raised once more for servers.
    with suppress(Exception):
        await app(scope, receive, send)
    return status, retry_after, b"".join(pieces)
