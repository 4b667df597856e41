# SPDX-License-Identifier: Apache-2.0
"""Limits of one request: size and shape of its body, time, and how much its key may ask for.

Bodies are read here, whole and within limits of bytes, depth, values and time, before a dialect
sees them; uploads pass through and are counted. A request nobody waits for any more, or that takes
too long, is cancelled wherever it is; once an answer streams, `sse` keeps the time.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freehold.formats.json_limits import JsonLimits
from freehold.server.failures import Failure, RequestError, failure_of
from freehold.server.refusals import Refusals
from freehold.server.request_context import current
from freehold.server.security.middleware import is_upload
from freehold.server.services import Services

HELD_BODIES = 16  # times `max_body_bytes`: memory that all bodies together may take
FORM_BYTES = 64 << 10  # around an uploaded file
SLOWEST_BODY = 32 << 10  # bytes a second a client has to send on average, after `body_timeout`
_ALWAYS = ("/health", "/ready")  # answered while the server shuts down, to say so


class _RefusedError(Exception):
    """A body that is not taken."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _GoneError(Exception):
    """The client left before its request was whole."""


class LimitsMiddleware:
    """Holds every request to the limits of the settings and of its key."""

    def __init__(self, app: ASGIApp, services: Services, refuse: Refusals) -> None:
        self._app, self._services, self._refuse = app, services, refuse
        self._settings = services.settings
        self._held = 0  # bytes of bodies that are being read or worked on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        services, record = self._services, current()
        if services.draining and scope["path"] not in _ALWAYS:
            failure = Failure("overloaded", "the server is shutting down", retry_after=5)
            await self._refuse.send(scope, receive, send, failure)
            return
        key = record.key
        if key is not None:
            try:
                services.quotas.enter(key)
            except RequestError as error:
                await self._refuse.send(scope, receive, send, failure_of(error))
                return
            record.on_tokens = lambda count: services.quotas.charge(key, count)
        services.active += 1
        try:
            await self._handle(scope, receive, send)
        except _RefusedError as error:
            await self._refuse.send(scope, receive, send, error.failure)
        except _GoneError:
            pass
        finally:
            services.active -= 1
            if key is not None:
                services.quotas.leave(key)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_upload(scope["path"]):
            await self._within_time(scope, self._counted(scope, receive), send, None)
            return
        limit = self._settings.max_body_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        if int(declared) > limit:
            raise _RefusedError(_too_large(limit))
        body = bytearray()
        try:
            await self._read(receive, body, limit)
            await self._answer(scope, receive, send, bytes(body))
        finally:
            self._held -= len(body)

    async def _read(self, receive: Receive, body: bytearray, limit: int) -> None:
        shape, began, more = JsonLimits(), asyncio.get_running_loop().time(), True
        while more:
            message = await self._piece(receive, began, len(body))
            piece = message.get("body", b"")
            more = message.get("more_body", False)
            body += piece
            self._held += len(piece)
            if len(body) > limit:
                raise _RefusedError(_too_large(limit))
            if self._held > HELD_BODIES * limit:
                full = "the server holds too many large requests"
                raise _RefusedError(Failure("overloaded", full, retry_after=5))
            if (wrong := shape.feed(piece)) is not None:
                raise _RefusedError(Failure("invalid_request", wrong))

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        """Handle a request whose body is here; end it when the client leaves."""
        if (record := current()).keep_texts and body:
            record.prompt = body.decode("utf-8", "replace")
        gone, unread = asyncio.Event(), [body]

        async def replayed() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watching = asyncio.create_task(watch())
        try:
            await self._within_time(scope, replayed, send, gone)
        finally:
            watching.cancel()

    async def _piece(self, receive: Receive, began: float, count: int) -> Message:
        """The next part of a body of which `count` bytes have come since `began`."""
        until = began + self._settings.body_timeout + count / SLOWEST_BODY
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            raise _RefusedError(
                Failure("timeout", "the body did not arrive in time", status_code=408)
            ) from None
        if message["type"] == "http.disconnect":
            raise _GoneError
        return message

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        """An upload as it comes. What is too much is an error in the dialect that reads it."""
        limit, loop = self._settings.max_upload_bytes + FORM_BYTES, asyncio.get_running_loop()
        if int(Headers(scope=scope).get("content-length", "0")) > limit:
            raise _RefusedError(_too_large(limit))
        began, count, whole = loop.time(), 0, False

        async def counted() -> Message:
            nonlocal count, whole
            if whole:
                return await receive()
            try:
                message = await self._piece(receive, began, count)
            except _GoneError:
                return {"type": "http.disconnect"}
            except _RefusedError as error:
                raise HTTPException(error.failure.status, error.failure.message) from None
            count += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if count > limit:
                raise HTTPException(413, _too_large(limit).message)
            return message

        return counted

    async def _within_time(
        self, scope: Scope, receive: Receive, send: Send, gone: asyncio.Event | None
    ) -> None:
        """Handle the request. Until its answer begins it ends when time is over or nobody waits."""
        loop, limit = asyncio.get_running_loop(), self._settings.request_timeout
        deadline = None if limit is None else loop.time() + limit
        current().deadline = deadline
        try:
            async with asyncio.timeout_at(deadline) as clock:

                async def begun(message: Message) -> None:
                    if message["type"] == "http.response.start" and not clock.expired():
                        clock.reschedule(None)
                        leaving.cancel()
                    await send(message)

                async def leave() -> None:
                    if gone is not None:
                        await gone.wait()
                        clock.reschedule(loop.time())

                leaving = asyncio.create_task(leave())
                try:
                    await self._app(scope, receive, begun)
                finally:
                    leaving.cancel()
        except TimeoutError:
            if not clock.expired():
                raise
            if gone is not None and gone.is_set():
                raise _GoneError from None
            message = f"the request took longer than {limit:g} s"
            raise _RefusedError(Failure("timeout", message)) from None


def _too_large(limit: int) -> Failure:
    return Failure("too_large", f"the body is larger than {limit:,} bytes")
