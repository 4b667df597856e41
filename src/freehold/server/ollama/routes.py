# SPDX-License-Identifier: Apache-2.0
"""Ollama's API: ``/api/generate``, ``chat``, ``embed``, ``tags``, ``show``, ``ps`` and the rest.

Knows that dialect's routes; bodies are `requests.py`, answers `answers.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from freehold.errors import FreeholdError
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.generation import Generation, GenerationRequest
from freehold.server.models.registry import ServedModel
from freehold.server.ollama import requests as asks
from freehold.server.ollama.answers import Answer, Shape, generated, said
from freehold.server.ollama.format import (
    NDJSON,
    VERSION,
    error_body,
    error_line,
    listed,
    moment,
    nanoseconds,
    running,
    shown,
)
from freehold.server.ollama.model_facts import ModelFacts, model_facts
from freehold.server.ollama.options import check_context
from freehold.server.ollama.store_routes import add_routes
from freehold.server.request_context import current, may_use
from freehold.server.services import Dialect, Services
from freehold.server.sse import stream_response

_FORMS = (b"", b"text/plain", b"application/x-www-form-urlencoded")


class _JsonRoute(APIRoute):
    """Reads every body as JSON: what ``curl -d`` sends says it is a form."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The handler, behind a change of the header."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            kind = request.headers.get("content-type", "").encode("latin-1", "replace")
            if kind.partition(b";")[0].strip().lower() in _FORMS:
                headers = [h for h in request.scope["headers"] if h[0] != b"content-type"]
                scope = {**request.scope,
                         "headers": [*headers, (b"content-type", b"application/json")]}  # fmt: skip
                request = Request(scope, request.receive)
            return await handler(request)

        return handle


@contextmanager
def _own_names() -> Iterator[None]:
    """Errors from below by the names that this dialect has for the fields."""
    try:
        yield
    except RequestError as error:
        if error.param == "response_format":
            error.param = "format"
        raise


async def _facts(model: ServedModel) -> ModelFacts | None:
    """What its file says; None where it cannot be read, which is no reason to list no others."""
    try:
        return await asyncio.to_thread(model_facts, model.source)
    except (FreeholdError, OSError):
        return None


async def _answer(
    services: Services, body: asks.AnswerBody, asked: GenerationRequest,
    shape: Shape, *, context: bool = False,
) -> Response:  # fmt: skip
    """Lease, generate, and let go when the answer is over."""
    begun = time.perf_counter()
    async with AsyncExitStack() as stack:
        lease = services.registry.lease(body.model, body.seconds())
        model = await stack.enter_async_context(lease)
        loaded = time.perf_counter()
        llm = model.loaded.llm
        check_context(body.options, llm.context_length)
        if body.think and not llm.answer_format.thinks:
            raise RequestError(f"{body.model!r:.120} does not support thinking", param="think")
        if isinstance(body, asks.GenerateBody) and body.suffix:
            fill, plain = body, asked
            asked = await model.loaded.text(lambda llm: asks.filled(llm, fill, plain))
        with _own_names():
            generation = await Generation.start(model.loaded, asked)
        answer = Answer(
            llm, body.model, generation, shape, begun=begun, loaded=loaded, context=context
        )
        if body.stream is not False:
            return stream_response(
                answer.lines(), error_line, holding=stack.pop_all(), media_type=NDJSON
            )
        return JSONResponse(await answer.whole())


async def _load(services: Services, body: asks.KeepBody, shape: Shape) -> Response:
    """A request with nothing to answer loads the model, or lets it go with keep_alive 0."""
    seconds, reason = body.seconds(), "load"
    if seconds == 0:
        reason = "unload"
        model = services.registry.find(body.model)
        if model.pinned:
            raise RequestError(f"{model.name} is pinned, and stays", param="keep_alive")
        if model.state != "unloaded":
            await services.registry.unload(body.model)
    else:
        async with services.registry.lease(body.model, seconds) as model:
            check_context(body.options, model.loaded.llm.context_length)
    fields = {"model": body.model, "created_at": moment(), **shape("", "", ())}
    return JSONResponse({**fields, "done": True, "done_reason": reason})


async def _embed(
    services: Services, body: asks.KeepBody, given: list[str], cut: bool
) -> tuple[list[list[float]], int, dict[str, int]]:
    """Vectors of length 1, the number of tokens, and how long it took."""
    begun = time.perf_counter()
    async with services.registry.lease(body.model, body.seconds()) as model:
        loaded = time.perf_counter()
        llm = model.loaded.llm
        check_context(body.options, llm.context_length)
        ids = await model.loaded.text(lambda llm: _token_ids(llm, given, cut))
        vectors = await model.loaded.embed(ids)
        current().count(prompt=sum(map(len, ids)))
        times = {
            "total_duration": nanoseconds(time.perf_counter() - begun),
            "load_duration": nanoseconds(loaded - begun),
        }
    return vectors.tolist(), sum(map(len, ids)), times


def _token_ids(llm: LLM, given: list[str], cut: bool) -> list[list[int]]:
    limit = llm.context_length
    result = []
    for index, text in enumerate(given):
        ids = llm.ids(text)
        if not ids:
            raise RequestError(f"input {index} is empty", param="input")
        if len(ids) > limit and not cut:
            raise RequestError(
                f"input {index} has {len(ids):,} tokens and the context {limit:,}",
                param="input", kind="context_length", hint="truncate: true cuts it off there",
            )  # fmt: skip
        result.append(ids[:limit])
    return result


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["ollama"], route_class=_JsonRoute)
    recommended = services.settings.recommended_sampling

    @routes.get("/", response_class=PlainTextResponse)
    @routes.head("/", include_in_schema=False)
    async def alive() -> str:
        """Whether anybody is here."""
        return "freehold is running"

    @routes.get("/api/version")
    @routes.head("/api/version", include_in_schema=False)
    async def version() -> dict[str, str]:
        """The age of the API, and freehold's own version behind it."""
        return {"version": VERSION}

    @routes.get("/api/tags")
    @routes.head("/api/tags", include_in_schema=False)
    async def tags() -> dict[str, Any]:
        """All models this server answers for."""
        models = services.registry.models()
        return {"models": [listed(model, await _facts(model)) for model in models]}

    @routes.get("/api/ps")
    async def ps() -> dict[str, Any]:
        """Those of them that are loaded; one under an adapter is the model it adapts."""
        bases = [model for model in services.registry.bases() if may_use(model.name)]
        loaded = [model for model in bases if model.llm is not None]
        facts = [await _facts(model) for model in loaded]
        pairs = zip(loaded, facts, strict=True)
        return {"models": [running(m, found) for m, found in pairs if m.llm is not None]}

    @routes.post("/api/show")
    async def show(body: asks.ShowBody) -> dict[str, Any]:
        """What a model is."""
        model = services.registry.find(body.asked())
        return shown(model, await asyncio.to_thread(model_facts, model.source))

    @routes.post("/api/generate")
    async def generate(body: asks.GenerateBody) -> Response:
        """Answer a prompt."""
        asked = asks.generate_request(body, recommended)
        if not (body.prompt or body.context or body.suffix):
            return await _load(services, body, generated)
        told = not (body.raw or body.suffix)
        return await _answer(services, body, asked, generated, context=told)

    @routes.post("/api/chat")
    async def chat(body: asks.ChatBody) -> Response:
        """Answer a conversation."""
        asked = asks.chat_request(body, recommended)
        if not body.messages:
            return await _load(services, body, said)
        return await _answer(services, body, asked, said)

    @routes.post("/api/embed")
    async def embed(body: asks.EmbedBody) -> dict[str, Any]:
        """Vectors of texts."""
        given = asks.texts(body.input)
        vectors, tokens, times = await _embed(services, body, given, body.truncate is True)
        if body.dimensions is not None:
            vectors = [_shortened(vector, body.dimensions) for vector in vectors]
        return {
            "model": body.model, "embeddings": vectors, **times, "prompt_eval_count": tokens
        }  # fmt: skip

    @routes.post("/api/embeddings")
    async def embeddings(body: asks.EmbeddingsBody) -> Any:
        """The vector of one text, as older clients ask for it."""
        if not body.prompt:
            await _load(services, body, generated)
            return {"embedding": []}
        vectors, _, _ = await _embed(services, body, [body.prompt], False)
        return {"embedding": vectors[0]}

    add_routes(routes, services)
    return routes


def _shortened(vector: list[float], size: int) -> list[float]:
    """The first `size` numbers, of length 1 again."""
    if not 1 <= size <= len(vector):
        raise RequestError(f"dimensions must be between 1 and {len(vector)}", param="dimensions")
    length = sum(x * x for x in vector[:size]) ** 0.5 or 1.0
    return [x / length for x in vector[:size]]


DIALECT = Dialect("ollama", ("/api",), router, error_body, untyped_bodies=True, stream_type=NDJSON)
