# SPDX-License-Identifier: Apache-2.0
"""`GET /metrics`: `ServerMetrics` in the text format of Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from freehold.server.failures import RequestError
from freehold.server.openai.format import error_body
from freehold.server.request_context import current_key
from freehold.server.services import Dialect, Services


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["operations"])

    @routes.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        """Counters and gauges for Prometheus; not for keys that are limited to some models."""
        key = current_key()
        if key is not None and key.models is not None:
            raise RequestError(
                f"the key {key.name} sees some models only, and metrics are of all",
                kind="forbidden",
                hint="ask with a key without --model",
            )
        # On a thread: with many keys it is a long text, and streams should not wait for it.
        text = await asyncio.to_thread(services.metrics.render)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


DIALECT = Dialect("metrics", ("/metrics",), router, error_body)
