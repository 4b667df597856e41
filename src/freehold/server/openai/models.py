# SPDX-License-Identifier: Apache-2.0
"""OpenAI's list of models: ``GET /v1/models`` and ``/v1/models/{model}``.

Anthropic's client asks at the same place and says so by a header; it is answered in its own words.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from freehold.documents.model_digest import loaded_digest
from freehold.server.anthropic import models as anthropic_models
from freehold.server.models.registry import ServedModel
from freehold.server.openai.format import error_body
from freehold.server.services import Dialect, Services


def _card(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "freehold"}


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.get("/v1/models")
    async def models(request: Request) -> Any:
        """All models this server answers for."""
        if anthropic_models.asked(request.headers):
            return anthropic_models.listed(services.registry, request.query_params)
        return {"object": "list", "data": [_card(m) for m in services.registry.models()]}

    @routes.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> Any:
        """One of them; while it is loaded also what tells its weights from all others, and how long
        a context may be."""
        if anthropic_models.asked(request.headers):
            return anthropic_models.one(services.registry, name)
        served = services.registry.find(name)
        card, loaded = _card(served), served.llm
        if loaded is not None:  # asking loads nothing
            adapter = loaded.adapter_name
            digest = await loaded.text(lambda llm: loaded_digest(llm, adapter))
            card |= {
                "digest": f"sha256:{digest}",
                "max_model_len": loaded.llm.context_length,
            }
        return card

    return routes


DIALECT = Dialect("openai_models", ("/v1/models",), router, error_body)
