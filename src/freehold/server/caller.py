# SPDX-License-Identifier: Apache-2.0
"""Who asks: what is stored for one caller is not found by another."""

from __future__ import annotations

from starlette.requests import HTTPConnection

STATE_KEY = "key_name"  # in the ASGI scope's state; whoever checks API keys writes it


def caller(request: HTTPConnection) -> str:
    """The name of the API key a request came with; "" where the server asks for none."""
    name = (request.scope.get("state") or {}).get(STATE_KEY)
    return name if isinstance(name, str) else ""
