# SPDX-License-Identifier: Apache-2.0
"""Who asks: what is stored for one caller is not found by another."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from freehold.server.request_context import KEY_NAME


def caller(request: HTTPConnection) -> str:
    """The name of the API key a request came with; "" where the server asks for none."""
    name = (request.scope.get("state") or {}).get(KEY_NAME)
    return name if isinstance(name, str) else ""
