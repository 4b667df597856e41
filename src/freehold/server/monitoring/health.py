# SPDX-License-Identifier: Apache-2.0
"""``GET /health``, for whoever watches the process, and ``GET /ready``, for whoever has a key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold.server.openai.format import error_body
from freehold.server.services import Dialect, Services


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health")
    async def health() -> dict[str, str]:
        """The process lives. Nothing else is told: anybody may ask."""
        return {"status": "ok"}

    @routes.get("/ready")
    async def ready() -> Response:
        """Whether requests are taken, and in what state the models are."""
        models: list[dict[str, Any]] = [
            {
                "name": model.name,
                "state": model.state,
                "progress": round(model.progress, 3),
                "requests": model.users,
                "error": model.error,
            }
            for model in services.registry.models()
        ]
        taking = not services.draining
        body = {"ready": taking, "requests": services.active, "models": models}
        return JSONResponse(body, 200 if taking else 503)

    return routes


DIALECT = Dialect("health", ("/health", "/ready"), router, error_body)
