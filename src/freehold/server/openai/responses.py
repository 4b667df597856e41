# SPDX-License-Identifier: Apache-2.0
"""OpenAI's responses: ``/v1/responses``.

Knows that dialect's routes. Requests are read by `responses_request` and `responses_input`, answers
written by `responses_events`, kept by `responses_store`; generation is `generation.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from freehold.llm import LLM
from freehold.server.failures import Failure, RequestError, failure_of
from freehold.server.generation import Generation, prompt_ids
from freehold.server.models.registry import ServedModel
from freehold.server.openai import format as fmt
from freehold.server.openai.responses_events import Event, ResponseWriter
from freehold.server.openai.responses_request import Job, PromptFields, ResponsesBody, read
from freehold.server.openai.responses_store import MAX_RUNNING, ResponseStore, StoredResponse
from freehold.server.paging import Order, list_body, page
from freehold.server.security.caller import caller
from freehold.server.services import Dialect, Services
from freehold.server.sse import dumps, frame, stream_response

_log = logging.getLogger("freehold.server")


async def _written(
    llm: LLM, generation: Generation, writer: ResponseWriter
) -> AsyncGenerator[Event, None]:
    """The events of an answer from the first token on."""
    async with aclosing(generation.events()) as events:
        async for _, event in events:
            for each in writer.take(llm, event):
                yield each
            if event.completion is not None:
                count = len(generation.prompt_token_ids)
                for each in writer.finish(llm, event.completion, count):
                    yield each


async def _begun(model: ServedModel, job: Job) -> Generation:
    job.writer.response["model"] = model.name
    return await Generation.start(model.loaded, job.request)


def _logged(error: Exception) -> Failure:
    failure = failure_of(error)
    if failure.kind == "internal":
        _log.error("a response failed", exc_info=error)
    return failure


def _frame(event: Event) -> str:
    return frame(event, event["type"])


def _keep(store: ResponseStore, job: Job) -> None:
    if job.input is not None:
        response = dumps(job.writer.response).encode()
        store.put(StoredResponse(job.response_id, job.owner, job.input, response))


async def _frames(
    llm: LLM, generation: Generation, job: Job, store: ResponseStore
) -> AsyncGenerator[str, None]:
    """A streamed response. It is stored once it is over; one that is left early is forgotten."""
    writer = job.writer
    for event in writer.begin():
        yield _frame(event)
    try:
        async with aclosing(_written(llm, generation, writer)) as events:
            async for event in events:
                if writer.over:  # whoever has seen the last event may ask for it
                    _keep(store, job)
                yield _frame(event)
    except Exception as error:
        events_of_failure = writer.fail(_logged(error))
        _keep(store, job)
        for event in events_of_failure:
            yield _frame(event)


async def _whole(
    llm: LLM, generation: Generation, job: Job, store: ResponseStore
) -> dict[str, Any]:
    async with aclosing(_written(llm, generation, job.writer)) as events:
        async for _ in events:
            pass
    _keep(store, job)
    return job.writer.response


def _start(services: Services, job: Job, store: ResponseStore, streamable: bool) -> StoredResponse:
    """Answer in the background. Raises RequestError where too many do that already."""
    services.registry.find(job.model)
    if store.running(job.owner) >= MAX_RUNNING:
        raise RequestError(
            f"{MAX_RUNNING} responses are running in the background", kind="rate_limited",
            retry_after=5,
        )  # fmt: skip
    assert job.input is not None
    writer = job.writer
    record = StoredResponse(job.response_id, job.owner, job.input, streamable=streamable)
    record.snapshot = writer.snapshot

    def tell(events: list[Event]) -> None:
        for event in events:
            if streamable:
                record.tell(_frame(event))

    def over() -> None:
        record.response = dumps(writer.response).encode()
        record.snapshot = record.cancel = None
        store.put(record)
        record.notify()

    async def work() -> None:
        try:
            async with services.registry.lease(job.model) as model:
                generation = await _begun(model, job)
                tell(writer.resume())
                written = _written(model.loaded.llm, generation, writer)
                async with aclosing(written) as events:
                    async for event in events:
                        tell([event])
        except asyncio.CancelledError:
            return  # `cancel` has told
        except Exception as error:
            tell(writer.fail(_logged(error)))
        over()

    def cancel() -> None:
        tell(writer.cancel())
        over()
        assert record.task is not None
        record.task.cancel()

    tell(writer.begin(queued=True))
    record.cancel = cancel
    store.put(record)
    record.task = asyncio.create_task(work())
    return record


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])
    settings = services.settings
    store = ResponseStore(
        max_bytes=settings.responses_bytes, max_count=settings.responses_count,
        max_age=settings.responses_age,
    )  # fmt: skip
    services.at_end.append(store.close)

    @routes.post("/v1/responses")
    async def create(body: ResponsesBody, request: Request) -> Response:
        """Answer, at once, as a stream or in the background."""
        job = read(body, caller(request), store, settings.recommended_sampling)
        if body.background:
            record = _start(services, job, store, bool(body.stream))
            if body.stream:
                return stream_response(record.listen(-1), fmt.error_frame)
            return JSONResponse(record.body())
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(services.registry.lease(job.model))
            generation = await _begun(model, job)
            llm = model.loaded.llm
            if body.stream:
                frames = _frames(llm, generation, job, store)
                return stream_response(frames, fmt.error_frame, holding=stack.pop_all())
            return JSONResponse(await _whole(llm, generation, job, store))

    @routes.post("/v1/responses/input_tokens")
    async def input_tokens(body: PromptFields, request: Request) -> dict[str, Any]:
        """How many tokens the prompt of a response would have."""
        whole = ResponsesBody(**body.model_dump(), store=False)
        job = read(whole, caller(request), store, settings.recommended_sampling)
        async with services.registry.lease(job.model) as model:
            ids = await model.loaded.text(lambda llm: prompt_ids(llm, job.request))
        return {"object": "response.input_tokens", "input_tokens": len(ids)}

    @routes.get("/v1/responses/{response_id}")
    async def retrieve(
        response_id: str, request: Request, stream: bool = False,
        starting_after: Annotated[int, Query(ge=-1, le=2**53)] = -1,
    ) -> Response:  # fmt: skip
        """A stored response, or the events of one in the background from a place on."""
        record = store.get(caller(request), response_id)
        if not stream:
            return JSONResponse(record.body())
        if not record.streamable:
            raise RequestError(
                "only what was begun with background and stream can be streamed again",
                param="stream",
            )
        return stream_response(record.listen(starting_after), fmt.error_frame)

    @routes.delete("/v1/responses/{response_id}")
    async def delete(response_id: str, request: Request) -> dict[str, Any]:
        """Forget a response."""
        store.delete(caller(request), response_id)
        return {"id": response_id, "object": "response", "deleted": True}

    @routes.post("/v1/responses/{response_id}/cancel")
    async def cancel(response_id: str, request: Request) -> dict[str, Any]:
        """Stop a response that is written in the background."""
        record = store.get(caller(request), response_id)
        if not record.body()["background"]:
            raise RequestError(
                "only a response in the background can be cancelled", param="response_id"
            )
        store.stop(record)
        return record.body()

    @routes.get("/v1/responses/{response_id}/input_items")
    async def input_items(
        response_id: str, request: Request, after: str | None = None, limit: int = 20,
        order: Order = "desc",
    ) -> dict[str, Any]:  # fmt: skip
        """What the model was given, earlier turns included."""
        items = store.get(caller(request), response_id).items()
        return list_body(
            *page(items, lambda item: item["id"], after=after, limit=limit, order=order)
        )

    return routes


DIALECT = Dialect("openai_responses", ("/v1/responses",), router, fmt.error_body)
