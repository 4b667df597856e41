# SPDX-License-Identifier: Apache-2.0
"""A real server on a real socket, run on a thread of the test process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import uvicorn

from freehold.server.app import create_app
from freehold.server.run import bind, uvicorn_config
from freehold.server.settings import ServerSettings

_Result = TypeVar("_Result")


@dataclass
class LiveServer:
    """Where it listens, and the application for a look inside."""

    url: str
    app: Any
    loops: list[asyncio.AbstractEventLoop]

    @property
    def services(self) -> Any:
        return self.app.state.services

    def on_loop(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a coroutine where the server's own run."""
        return asyncio.run_coroutine_threadsafe(work, self.loops[0]).result(30)


@contextmanager
def live_server(settings: ServerSettings, registry: Any = None) -> Iterator[LiveServer]:
    """Serve until the block ends; an answer that is not over then would hang here."""
    listener = bind("127.0.0.1", 0)
    app = create_app(settings, registry)
    loops: list[asyncio.AbstractEventLoop] = []

    async def remembering(scope: Any, receive: Any, send: Any) -> None:
        loops[:] = [asyncio.get_running_loop()]
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn_config(remembering, settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield LiveServer(f"http://127.0.0.1:{listener.getsockname()[1]}", app, loops)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server did not stop"
