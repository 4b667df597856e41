# SPDX-License-Identifier: Apache-2.0
"""The outermost layer: gives every request its id and its record, and writes one line at its end.

The line tells who asked which model, how much and how long. What was asked and answered is in it
only where that was asked for, keys never.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from freehold.server.monitoring.logs import REQUESTS
from freehold.server.monitoring.observer import Observer
from freehold.server.refusals import Refusals
from freehold.server.request_context import RequestRecord, set_current

ID_HEADERS = ("request-id", "x-request-id")  # Anthropic's clients read the first
MAX_TEXT = 100_000  # characters of a request or an answer in a line
GONE = 499  # what is written where the client left before its answer began
_log = logging.getLogger(REQUESTS)


class RecordMiddleware:
    """Makes the record of each request, which `request_context.current` gives from then on."""

    def __init__(
        self, app: ASGIApp, observer: Observer, refuse: Refusals, log_prompts: bool = False
    ) -> None:
        self._app, self._observer, self._refuse = app, observer, refuse
        self._log_prompts = log_prompts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord("req_" + secrets.token_hex(12), keep_texts=self._log_prompts)
        # Always set: a connection's later requests may run in the context of its first.
        set_current(record)
        status, whole = GONE, False

        async def watched(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name in ID_HEADERS:
                    headers[name] = record.id
            elif not message.get("more_body", False):
                whole = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500  # nobody turned it into an answer
            raise
        finally:
            record.over = True
            self._observer.answered(scope["method"], _route(scope), status)
            if scope["path"] != "/health" or status != 200:  # asked every few seconds
                self._write(scope, record, status, whole)

    def _write(self, scope: Scope, record: RequestRecord, status: int, whole: bool) -> None:
        fields: dict[str, Any] = {
            "id": record.id,
            "method": scope["method"][:20],
            "path": scope["path"][:200],
            "dialect": self._refuse.dialect(scope["path"]).name,
            "status": status,
        }
        if record.key is not None:
            fields["key"] = record.key.name
        if record.model is not None:
            fields["model"] = record.model
            fields["prompt_tokens"] = record.prompt_tokens
            fields["cached_tokens"] = record.cached_tokens
            fields["completion_tokens"] = record.completion_tokens
        if record.first_token is not None:
            fields["queue_seconds"] = round(record.queued, 4)
            fields["first_token_seconds"] = round(record.first_token - record.started, 4)
        fields["seconds"] = round(time.monotonic() - record.started, 4)
        if not whole and status != GONE:
            fields["cut_off"] = True  # the client left before the end, or the server had to stop
        if record.keep_texts:
            if record.prompt is not None:
                fields["request"] = record.prompt[:MAX_TEXT]
            if record.answers:
                fields["answers"] = [text[:MAX_TEXT] for text in record.answers]
        _log.info("request", extra={"fields": fields})


def _route(scope: MutableMapping[str, Any]) -> str:
    """The path with the names of its parameters, which tells nothing of the request."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "(none)"
