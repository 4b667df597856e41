# SPDX-License-Identifier: Apache-2.0
"""One server process: binds, loads, tells where it listens, and ends without losing an answer."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from freehold.server.app import create_app
from freehold.server.settings import ServerSettings

GRACE_SECONDS = 30  # that running answers get when the server is asked to stop


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


def serve(settings: ServerSettings, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted. `on_ready` is told the URL once connections are taken."""
    listener = bind(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    app = create_app(settings)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    on_ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server.run(sockets=[listener])
