# SPDX-License-Identifier: Apache-2.0
"""Anthropic's list of models, in pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse

from freehold.errors import FreeholdError
from freehold.server.anthropic.format import error_body
from freehold.server.failures import RequestError, failure_of
from freehold.server.models.registry import ModelRegistry, ServedModel
from freehold.server.paging import page_between

HEADER = "anthropic-version"  # every client of Anthropic's sends it, and no other does
_MOST = 1000  # models on one page


def asked(headers: Mapping[str, str]) -> bool:
    """Whether these are the headers of a client of Anthropic's."""
    return HEADER in headers


def one(registry: ModelRegistry, name: str) -> JSONResponse:
    """One model. The path is OpenAI's, and so errors are put into words here."""
    try:
        return JSONResponse(_card(registry.find(name)))
    except FreeholdError as error:
        return _refusal(error)


def listed(registry: ModelRegistry, query: Mapping[str, str]) -> JSONResponse:
    """One page of all models."""
    try:
        return JSONResponse(_page(registry.models(), query))
    except FreeholdError as error:
        return _refusal(error)


def _refusal(error: FreeholdError) -> JSONResponse:
    failure = failure_of(error)
    return JSONResponse(error_body(failure), failure.status)


def _card(model: ServedModel) -> dict[str, Any]:
    # How long its prompts may be is known once it is loaded.
    loaded = model.llm
    return {
        "type": "model",
        "id": model.name,
        "display_name": model.name,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": None if loaded is None else loaded.llm.context_length,
        "max_tokens": None if loaded is None else loaded.llm.context_length,
    }


def _page(models: Sequence[ServedModel], query: Mapping[str, str]) -> dict[str, Any]:
    limit = query.get("limit", "20")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 6):
        raise RequestError(f"limit must be between 1 and {_MOST}", param="limit")
    shown, more = page_between(
        models, lambda model: model.name, after=query.get("after_id"),
        before=query.get("before_id"), limit=int(limit), most=_MOST,
    )  # fmt: skip
    return {
        "data": [_card(model) for model in shown],
        "has_more": more,
        "first_id": shown[0].name if shown else None,
        "last_id": shown[-1].name if shown else None,
    }
