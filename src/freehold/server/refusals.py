# SPDX-License-Identifier: Apache-2.0
"""Saying no, in the words of the dialect whose path it is, before or after a dialect was asked."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from freehold.server.failures import Failure
from freehold.server.services import Dialect, dialect_of


class Refusals:
    """Answers for `Failure`s."""

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = dialects

    def dialect(self, path: str) -> Dialect:
        """Whose path it is."""
        return dialect_of(self._dialects, path)

    def response(self, path: str, failure: Failure) -> Response:
        """The answer on this path."""
        headers = {}
        if failure.retry_after:
            headers["Retry-After"] = str(failure.retry_after)
        if failure.kind == "unauthenticated":
            headers["WWW-Authenticate"] = "Bearer"
        dialect = self.dialect(path)
        return JSONResponse(dialect.error_body(failure), dialect.status(failure), headers)

    async def send(self, scope: Scope, receive: Receive, send: Send, failure: Failure) -> None:
        """Refuse a request; what is left of its body is dropped by the connection."""
        await self.response(scope["path"], failure)(scope, receive, send)


def has_body(scope: Scope) -> bool:
    """Whether a request says that it brings a body."""
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
