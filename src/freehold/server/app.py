# SPDX-License-Identifier: Apache-2.0
"""Puts the server together: dialects on one application, errors in each dialect's own words.

A dialect is a module of a folder here that has a `DIALECT`; `DIALECTS` names them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from freehold import __version__
from freehold.errors import FreeholdError
from freehold.server.batches.inner_call import InnerCalls
from freehold.server.batches.service import Batches
from freehold.server.failures import ClientGoneError, Failure, failure_of, invalid_field
from freehold.server.limits.middleware import LimitsMiddleware
from freehold.server.models.registry import ModelRegistry
from freehold.server.monitoring.metrics import ServerMetrics
from freehold.server.monitoring.request_log import RecordMiddleware
from freehold.server.openapi import document
from freehold.server.refusals import Refusals
from freehold.server.security.keys import KeyRing
from freehold.server.security.middleware import SecurityMiddleware
from freehold.server.services import Dialect, Services
from freehold.server.settings import ServerSettings

DIALECTS = (
    "monitoring.health",
    "openai.models",
    "openai.chat",
    "openai.responses",
    "openai.files",
    "openai.batches",
    "anthropic.batches",
    "anthropic.messages",
    "ollama.routes",
    "monitoring.metrics_route",
    "openai.completions",
    "openai.embeddings",
    "scoring.tokenization",
    "scoring.classification",
    "scoring.reranking",
)
_log = logging.getLogger("freehold.server")


def load_dialects() -> list[Dialect]:
    """All dialects, in the order of `DIALECTS`."""
    return [importlib.import_module(f"freehold.server.{name}").DIALECT for name in DIALECTS]


def create_app(settings: ServerSettings, registry: ModelRegistry | None = None) -> FastAPI:
    """The ASGI application. Models are loaded when they are first asked for."""
    registry = registry or ModelRegistry(settings)
    metrics = ServerMetrics(registry)
    registry.observer = metrics
    keys = None if settings.key_file is None else KeyRing(settings.key_file)
    batches = Batches(
        settings.data_dir,
        max_bytes=settings.data_bytes,
        max_lines=settings.batch_lines,
        others=lambda: sum(model.users - model.patient for model in registry.bases()),
    )
    services = Services(settings, registry, metrics, batches, keys=keys)
    services.at_start.append(batches.start)
    services.at_end.append(batches.close)
    dialects = load_dialects()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(services.registry.preload())
        for begin in services.at_start:
            await begin()
        yield
        loading.cancel()
        for end in services.at_end:
            await end()
        await services.registry.close()

    # Pages that show the document would fetch their scripts from elsewhere.
    app = FastAPI(
        title="freehold", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.services = services
    # The same routes for the lines of batches: whoever sent them was let in already.
    inner = FastAPI(openapi_url=None)
    for dialect in dialects:
        routes = dialect.router(services)
        app.include_router(routes)
        inner.include_router(routes)
        for route in routes.routes:
            if "POST" in (getattr(route, "methods", None) or ()):
                services.endpoints.add(route.path)  # type: ignore[attr-defined]
    refuse = Refusals(dialects)
    batches.answer = InnerCalls(inner, services, refuse)

    def answer(request: Request, failure: Failure) -> Response:
        return refuse.response(request.url.path, failure)

    async def on_error(request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.kind == "internal":
            _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(request, failure)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, invalid_field(error.errors()[0]))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "not_found", 413: "too_large"}.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path:.200}: {str(error.detail).lower()}"
        return answer(request, Failure(kind, message, status_code=error.status_code))  # type: ignore[arg-type]

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)  # nobody reads it

    # the last one added is the first to see a request
    app.add_middleware(LimitsMiddleware, services=services, refuse=refuse)
    app.add_middleware(SecurityMiddleware, services=services, refuse=refuse)
    app.add_middleware(
        RecordMiddleware, observer=metrics, refuse=refuse, log_prompts=settings.log_prompts
    )
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(document(app, dialects))
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    for each in (app, inner):
        each.add_exception_handler(FreeholdError, on_error)
        each.add_exception_handler(RequestValidationError, on_invalid)
        each.add_exception_handler(HTTPException, on_http)
        each.add_exception_handler(ClientGoneError, on_gone)
        each.add_exception_handler(Exception, on_error)
    return app
