# SPDX-License-Identifier: Apache-2.0
"""`GET /metrics`: `ServerMetrics` in the text format of Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from freehold.server.openai_format import error_body
from freehold.server.services import Dialect, Services


def router(services: Services) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["operations"])

    @routes.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}
    )
    async def metrics() -> Response:
        """Counters and gauges for Prometheus."""
        # On a thread: with many keys it is a long text, and streams should not wait for it.
        text = await asyncio.to_thread(services.metrics.render)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


DIALECT = Dialect("metrics", ("/metrics",), router, error_body)
