# SPDX-License-Identifier: Apache-2.0
"""A real server on a real socket, run on a thread of the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from freehold.server.app import create_app
from freehold.server.run import bind
from freehold.server.settings import ServerSettings


@dataclass
class LiveServer:
    """Where it listens, and the application for a look inside."""

    url: str
    app: Any

    @property
    def services(self) -> Any:
        return self.app.state.services


@contextmanager
def live_server(settings: ServerSettings, registry: Any = None) -> Iterator[LiveServer]:
    """Serve until the block ends; an answer that is not over then would hang here."""
    listener = bind("127.0.0.1", 0)
    app = create_app(settings, registry)
    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False,
                            timeout_graceful_shutdown=5)  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield LiveServer(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server did not stop"
