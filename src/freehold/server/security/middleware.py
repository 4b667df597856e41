# SPDX-License-Identifier: Apache-2.0
"""Who may ask: keys, and what browsers must not do to a server on this machine.

Looks at headers alone, before anything is read or loaded, and at every path alike. A website that
a user looks at can send requests to this machine, and can have its own name resolve to it; so
where no key is needed only this machine's own names are answered to, and pages of other websites
are refused. Bodies must call themselves JSON, which a page cannot do without being asked first.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from freehold.server.failures import Failure
from freehold.server.refusals import Refusals, has_body
from freehold.server.request_context import KEY_NAME, current
from freehold.server.security.hosts import host_name, is_loopback, origin_host
from freehold.server.security.keys import ApiKey
from freehold.server.services import Services

OPEN_PATHS = frozenset({"/health"})  # whoever watches a process has no key
UPLOADS = ("/v1/files",)  # what is uploaded is no JSON
_FROM_BROWSERS = ("origin", "referer", "cookie", "sec-fetch-site", "sec-fetch-mode")
_NO_PAGE = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_METHODS = "GET, HEAD, POST, DELETE"


class SecurityMiddleware:
    """Refuses whoever may not ask, and answers browsers that want to know whether they may."""

    def __init__(self, app: ASGIApp, services: Services, refuse: Refusals) -> None:
        self._app, self._services, self._refuse = app, services, refuse
        settings = services.settings
        self._loopback = is_loopback(settings.host)
        self._hosts = frozenset(settings.allow_hosts)
        self._origins = frozenset(settings.allow_origins)
        self._closed = not self._loopback  # whether a key is demanded; never opens again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        send = _no_page(send)
        failure = self._host_failure(headers) or self._origin_failure(headers)
        if failure is None and origin is not None:
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight(headers, origin)(scope, receive, send)
                return
            send = _readable_by(origin, send)
        failure = failure or self._key_failure(scope, headers) or self._type_failure(scope, headers)
        if failure is not None:
            await self._refuse.send(scope, receive, send, failure)
            return
        await self._app(scope, receive, send)

    def _host_failure(self, headers: Headers) -> Failure | None:
        """A name that is not this machine's own may be an attacker's that resolves to it."""
        if not self._loopback and not self._hosts:
            return None  # there is a key, which no stranger's page has
        name = host_name(headers.get("host", ""))
        if name is not None and (is_loopback(name) or name in self._hosts):
            return None
        return Failure(
            "forbidden",
            f"this server is not called {headers.get('host', '')!r:.120}; "
            "`freehold serve --allow-host NAME` lets clients call it so",
        )

    def _origin_failure(self, headers: Headers) -> Failure | None:
        """Pages of strangers may not ask; pages of this machine and of this server may."""
        origin = headers.get("origin")
        if origin is None:
            # A picture or a link of a page has no origin, and could still have a model loaded.
            if headers.get("sec-fetch-site", "").lower() == "cross-site":
                return Failure("forbidden", "pages of other websites may not ask this server")
            return None
        if origin.lower() in self._origins:
            return None
        host = origin_host(origin)
        if host is not None and (
            is_loopback(host_name(host) or "") or host == headers.get("host", "").lower()
        ):
            return None
        return Failure(
            "forbidden",
            f"pages of {origin!r:.120} may not ask this server; "
            "`freehold serve --allow-origin ORIGIN` lets them",
        )

    def _key_failure(self, scope: Scope, headers: Headers) -> Failure | None:
        keys = self._services.keys
        if not self._closed:
            # Keys made while the server runs count from then on. Taking the last one away does
            # not open the server to everybody.
            self._closed = keys is not None and bool(keys.keys())
        if not self._closed or scope["path"] in OPEN_PATHS:
            return None
        shown = _shown(headers)
        if not shown:
            return Failure(
                "unauthenticated", "an API key is needed: Authorization: Bearer fh-…, or x-api-key"
            )
        found = [key for text in shown if keys is not None and (key := keys.find(text))]
        if not found:
            return Failure("unauthenticated", "the API key is not valid")
        if found[0].expired():
            return Failure("unauthenticated", f"the API key {found[0].name} has expired")
        _remember(scope, found[0])
        return None

    def _type_failure(self, scope: Scope, headers: Headers) -> Failure | None:
        """A page can send other types without asking; so bodies are JSON and say so."""
        if not has_body(scope):
            return None
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            return Failure("invalid_request", "bodies must not be compressed", status_code=415)
        if is_upload(scope["path"]) or _is_json(headers.get("content-type", "")):
            return None
        browser = any(name in headers for name in _FROM_BROWSERS)
        if self._refuse.dialect(scope["path"]).untyped_bodies and not browser:
            return None
        return Failure(
            "invalid_request", "the body must be sent with Content-Type: application/json",
            status_code=415,
        )  # fmt: skip


def _remember(scope: MutableMapping[str, Any], key: ApiKey) -> None:
    current().key = key
    scope.setdefault("state", {})[KEY_NAME] = key.name


def _shown(headers: Headers) -> list[str]:
    """Keys a request shows: some clients send one of their own beside ours."""
    shown = []
    for value in headers.getlist("authorization"):
        scheme, _, secret = value.partition(" ")
        if scheme.lower() == "bearer":
            shown.append(secret.strip())
    shown += [value.strip() for value in headers.getlist("x-api-key")]
    return [secret for secret in shown if secret][:4]


def is_upload(path: str) -> bool:
    """Whether what is sent to this path is a file and not JSON."""
    return any(path == each or path.startswith(each + "/") for each in UPLOADS)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )


def _preflight(headers: Headers, origin: str) -> Response:
    allowed = {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": "600",
        "Vary": "Origin",
    }
    if wanted := headers.get("access-control-request-headers"):
        allowed["Access-Control-Allow-Headers"] = wanted
    if headers.get("access-control-request-private-network") == "true":
        allowed["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=allowed)


def _no_page(send: Send) -> Send:
    """Nothing a browser is sent is a page, whatever it looks like."""

    async def marked(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_NO_PAGE]
        await send(message)

    return marked


def _readable_by(origin: str, send: Send) -> Send:
    """Let a page read the answer. Never with credentials: nothing here is kept in cookies."""
    extra = [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", b"x-request-id, retry-after"),
        (b"vary", b"Origin"),
    ]

    async def readable(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *extra]
        await send(message)

    return readable
