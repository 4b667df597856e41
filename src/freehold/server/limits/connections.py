# SPDX-License-Identifier: Apache-2.0
"""Limits of a connection that no application sees: how many, and how long a client may dawdle.

uvicorn waits for headers, and for a reader that has stopped reading, for as long as it takes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from freehold.server.settings import ServerSettings

_FULL_BODY = b'{"error":{"message":"too many connections","type":"server_error"}}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
) % (len(_FULL_BODY), _FULL_BODY)


def protocol_class(settings: ServerSettings) -> type[H11Protocol]:
    """uvicorn's protocol with the limits of `settings`."""

    class Guarded(GuardedProtocol):
        limits = settings

    return Guarded


class GuardedProtocol(H11Protocol):
    """One connection."""

    limits: ServerSettings

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slow: asyncio.TimerHandle | None = None  # ends a client that does not send
        self._stalled: asyncio.TimerHandle | None = None  # and one that does not read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or say that there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            transport.write(_FULL)
            transport.close()
            return
        self._expect(self.limits.header_timeout)

    def data_received(self, data: bytes) -> None:
        """A request's head must be whole in time; its body has the application's limits."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            if self._slow is None and not self.transport.is_closing():
                self._expect(self.limits.header_timeout)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._expect(None)

    def on_response_complete(self) -> None:
        """Nobody reads the rest of a body whose request is answered: it must end soon."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._expect(self.limits.header_timeout)

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, however it came."""
        self._expect(None)
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def _expect(self, seconds: float | None) -> None:
        """The client must go on within so many seconds; None: it is not its turn."""
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        if seconds is not None:
            self._slow = self.loop.call_later(seconds, self.transport.abort)
