# SPDX-License-Identifier: Apache-2.0
"""Ollama's routes that change which models there are: ``/api/pull``, ``copy`` and ``delete``.

Knows their bodies and the lines of progress that Ollama's clients read. What may be fetched, copied
or deleted is decided in `models/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from freehold.errors import ModelNotFoundError
from freehold.server.failures import RequestError
from freehold.server.models.pulls import PullJob, Pulls, Step
from freehold.server.models.references import comes_from_elsewhere, fetchable
from freehold.server.models.served_model import ServedModel
from freehold.server.models.store_changes import StoreChanges, leave_refused, require_leave
from freehold.server.ollama.format import NDJSON, error_line, line
from freehold.server.ollama.requests import ModelBody
from freehold.server.request_context import current, may_use
from freehold.server.services import Body, Services
from freehold.server.sse import stream_response

_EVERY = 0.2  # seconds between lines on a file that is coming
_PATIENCE = 10.0  # seconds for a source to say what it has, before an answer begins without that


class PullBody(ModelBody):
    """``/api/pull``."""

    stream: bool | None = None
    insecure: bool | None = None


class CopyBody(Body):
    """``/api/copy``."""

    source: str
    destination: str


def add_routes(routes: APIRouter, services: Services) -> None:
    """The routes."""
    settings, registry = services.settings, services.registry
    pulls = Pulls(settings.max_pulls, lambda: services.draining)
    changes = StoreChanges(registry)

    @routes.post("/api/pull")
    async def pull(body: PullBody) -> Response:
        """Fetch a model into the store of this machine, where the server lets clients do that."""
        asked = body.asked()
        if body.insecure:
            raise RequestError("there is no fetching without checks", param="insecure")
        served, refusal = _served(services, asked), leave_refused(settings, "fetches")
        if served is not None and (refusal is not None or _only_here(served)):
            return _success(body.stream is not False)  # it is there, and stays as it is
        if refusal is not None:
            raise refusal
        name = fetchable(asked, settings.pull_hosts).name
        if not (may_use(asked) or may_use(name)):
            raise RequestError(
                f"{asked!r:.120} is not among the models of this key",
                param="model", kind="forbidden",
            )  # fmt: skip
        async with AsyncExitStack() as stack:
            job = await stack.enter_async_context(pulls.of(name))
            if body.stream is False:
                await job.over.wait()
                job.result()
                return _success(False)
            with suppress(TimeoutError):  # so that most refusals have a status of their own
                await asyncio.wait_for(job.begun.wait(), _PATIENCE)
            if job.over.is_set():
                job.result()
            current().deadline = None  # it takes as long as it takes
            return stream_response(
                _lines(job), error_line, holding=stack.pop_all(), media_type=NDJSON
            )

    @routes.post("/api/copy")
    async def copy(body: CopyBody) -> Response:
        """Give a model of the store another name too."""
        require_leave(settings, "copies")
        await changes.copy(body.source, body.destination)
        return Response()

    @routes.delete("/api/delete")
    async def delete(body: ModelBody) -> Response:
        """Take a model out of the store."""
        require_leave(settings, "deletes")
        await changes.delete(body.asked())
        return Response()

    @routes.post("/api/push")
    @routes.post("/api/create")
    @routes.post("/api/blobs/{digest}")
    @routes.head("/api/blobs/{digest}", include_in_schema=False)
    async def made(request: Request) -> Response:
        """Models are neither published nor made here."""
        raise RequestError(
            "this server neither publishes nor makes models",
            hint="pull one, or start freehold serve with the files of the models it shall serve",
        )


def _served(services: Services, name: str) -> ServedModel | None:
    try:
        return services.registry.find(name)
    except ModelNotFoundError:
        return None


def _only_here(served: ServedModel) -> bool:
    """Whether there is nowhere to fetch the model from."""
    return served.stored is None or not comes_from_elsewhere(served.stored.name)


def _success(streamed: bool) -> Response:
    done = {"status": "success"}
    return Response(line(done), media_type=NDJSON) if streamed else JSONResponse(done)


async def _lines(job: PullJob) -> AsyncGenerator[str, None]:
    """Progress until the model is there. Raises what ended it."""
    shown, last = 0, None
    while True:
        over = job.over.is_set()
        steps = job.steps[shown:]
        for step in steps:
            if step is not last:
                yield line(_told(step))
            last = step
        shown += len(steps) - 1  # the last one may grow
        if over:
            break
        with suppress(TimeoutError):
            await asyncio.wait_for(job.over.wait(), _EVERY)
    job.result()
    yield line({"status": "success"})


def _told(step: Step) -> dict[str, Any]:
    """One line; a file without a promised digest goes by its name."""
    file = step.file
    if file is None:
        words = {"checking": "verifying sha256 digest", "recording": "writing manifest"}
        return {"status": words.get(step.stage, "pulling manifest")}
    told: dict[str, Any] = {"status": f"pulling {(file.sha256 or file.name)[:80]}"}
    if file.sha256 is not None:
        told = {"status": f"pulling {file.sha256[:12]}", "digest": f"sha256:{file.sha256}"}
    return {**told, "total": file.size, "completed": step.done}
