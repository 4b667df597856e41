# SPDX-License-Identifier: Apache-2.0
"""One server process: binds, loads, tells where it listens, and ends without losing an answer."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from freehold.errors import InvalidParameterError
from freehold.server.app import create_app
from freehold.server.limits.connections import protocol_class
from freehold.server.monitoring import logs
from freehold.server.security.hosts import is_loopback
from freehold.server.services import Services
from freehold.server.settings import ServerSettings

CLOSING_SECONDS = 10.0  # for models to be let go, once the answers are over


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; raises OSError when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # from here on clients may connect; they wait for the loop
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
    return listener


def uvicorn_config(app: FastAPI, settings: ServerSettings) -> uvicorn.Config:
    """How uvicorn runs the application."""
    return uvicorn.Config(
        app,
        http=protocol_class(settings),
        ws="none",
        # Nothing of a request is believed about where it came from.
        proxy_headers=False,
        server_header=False,
        # The application logs its own errors; what strangers send to the port is not worth a line.
        log_config=None,
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,  # the grace time is over by then
    )


class Server(uvicorn.Server):
    """Asked to stop it finishes what it has begun and refuses what is new; asked twice it ends."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services
        self._until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks to stop."""
        if self._until is not None:
            os._exit(128 + sig)  # now: threads that load a model would be waited for
        grace = self._services.settings.grace
        self._until = time.monotonic() + grace
        self._services.draining = True
        last = threading.Timer(grace + CLOSING_SECONDS, os._exit, (128 + signal.SIGTERM,))
        last.daemon = True
        last.start()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        over = self._until is not None and time.monotonic() >= self._until
        if self._until is not None and (over or not self._services.active):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted. `on_ready` is told the URL once connections are taken.

    Raises InvalidParameterError where others could connect and no keys are kept.
    """
    if settings.key_file is None and not is_loopback(settings.host):
        raise InvalidParameterError(
            f"{settings.host} can be reached from outside", hint="keep API keys: `key_file`"
        )
    logs.set_up(settings.log_format)
    listener = bind(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    try:
        app = create_app(settings)
    except BaseException:  # a model that is not there, or that the policy forbids
        listener.close()
        raise
    server = Server(uvicorn_config(app, settings), app.state.services)
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[listener])
