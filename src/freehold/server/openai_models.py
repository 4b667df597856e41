# SPDX-License-Identifier: Apache-2.0
"""OpenAI's list of models: ``GET /v1/models`` and ``/v1/models/{model}``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from freehold.server.openai_format import error_body
from freehold.server.registry import ServedModel
from freehold.server.services import Dialect, Services


def _card(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "freehold"}


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """All models this server answers for."""
        return {"object": "list", "data": [_card(m) for m in services.registry.models()]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        return _card(services.registry.find(name))

    return routes


DIALECT = Dialect("openai_models", ("/v1/models",), router, error_body)
