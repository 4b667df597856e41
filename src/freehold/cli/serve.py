# SPDX-License-Identifier: Apache-2.0
"""`freehold serve`: models behind the endpoints that clients already speak.

Turns flags into settings and runs the server; everything else is `freehold.server`.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from freehold.cli import console, options
from freehold.errors import InvalidParameterError


@options.with_options
def command(
    models: Annotated[
        list[str],
        typer.Argument(help="Files, directories or names; NAME=PATH serves PATH as NAME."),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: any.")] = 8484,
    recommended: options.Recommended = True,
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Serve models to OpenAI, Anthropic and Ollama clients."""
    from freehold.server.run import serve
    from freehold.server.settings import ServerSettings

    if not _is_loopback(host):
        raise InvalidParameterError(
            f"{host} can be reached from outside, and there is no API key",
            hint="listen on 127.0.0.1",
        )
    settings = ServerSettings(
        models=tuple(models),
        host=host,
        port=port,
        engine=engine.settings(),
        recommended_sampling=recommended,
    )
    serve(settings, lambda url: console.note(f"serving on {url} (Ctrl-C stops)"))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
