# SPDX-License-Identifier: Apache-2.0
"""OpenAI's responses: ``/v1/responses``.

Knows that dialect's bodies and routes. Items are read by `responses_input`, written by
`responses_events`, kept by `responses_store`; generation is `generation.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from freehold.llm import LLM
from freehold.server import openai_format as fmt
from freehold.server.caller import caller
from freehold.server.failures import Failure, RequestError, failure_of
from freehold.server.generation import Generation, GenerationRequest
from freehold.server.openai_chat import tool_choice
from freehold.server.openai_constraints import response_format_constraint
from freehold.server.paging import Order, list_body, page
from freehold.server.registry import ServedModel
from freehold.server.responses_events import Event, ResponseWriter
from freehold.server.responses_input import (
    Item,
    chat_tool_choice,
    chat_tools,
    messages,
    normalised,
)
from freehold.server.responses_store import MAX_RUNNING, ResponseStore, StoredResponse
from freehold.server.services import Body, Dialect, Services
from freehold.server.sse import dumps, frame, stream_response, while_connected

_log = logging.getLogger("freehold.server")


class TextFields(Body):
    """What form the text has."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningFields(Body):
    """How much to think. Thoughts come whole, as the content of reasoning items."""

    effort: str | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None


class StreamOptions(Body):
    """Padding against eavesdroppers on public networks; there is none here."""

    include_obfuscation: bool | None = None


class ResponsesBody(fmt.SamplingFields):
    """The request."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextFields | None = None
    reasoning: ReasoningFields | None = None
    top_logprobs: int | None = None
    # The thought itself is in its item, so there is nothing to encrypt.
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    truncation: Literal["disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    # labels for the vendor's own books; they change no answer
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: Literal["auto", "default"] | None = None
    # beyond OpenAI's
    chat_template_kwargs: dict[str, Any] | None = None


@dataclass(slots=True)
class Job:
    """One request, read and found sound."""

    model: str
    request: GenerationRequest
    writer: ResponseWriter
    owner: str
    input: bytes | None  # the JSON to store; None: it is not stored

    @property
    def response_id(self) -> str:
        """Of the response that is to be written."""
        response_id: str = self.writer.response["id"]
        return response_id


def read(body: ResponsesBody, owner: str, store: ResponseStore, recommended: bool) -> Job:
    """Everything that can be refused before a model is asked. Raises RequestError."""
    fmt.check_metadata(body.metadata)
    text = body.text or TextFields()
    _json([body.input, body.tools, body.tool_choice, text.format])
    kept = body.store is not False
    if body.background and not kept:
        raise RequestError("background needs store: true", param="background")
    items = _history(body, owner, store)
    items += normalised(body.input, lambda item_id: store.find_item(owner, item_id))
    if not items and not body.instructions:
        raise RequestError("input must hold at least one item", param="input")
    stored = _json(items) if kept else None
    if stored is not None and len(stored) > store.max_bytes:
        raise RequestError(
            f"the input is larger than the {store.max_bytes:,} bytes that are kept for all",
            param="store", hint="say store: false",
        )  # fmt: skip
    writer = ResponseWriter(head(body))
    return Job(body.model, to_request(body, items, recommended), writer, owner, stored)


def _json(value: Any) -> bytes:
    try:
        return dumps(value).encode()
    except (ValueError, RecursionError):
        raise RequestError(
            "the body holds what JSON cannot: no number, half a character, or too deep a nesting"
        ) from None


def _history(body: ResponsesBody, owner: str, store: ResponseStore) -> list[Item]:
    if body.previous_response_id is None:
        return []
    try:
        record = store.get(owner, body.previous_response_id)
    except RequestError as error:
        raise RequestError(
            error.message, kind="not_found", param="previous_response_id",
            hint="it was not stored, or has been forgotten; send the conversation as input",
        ) from None  # fmt: skip
    previous = record.body()
    if previous["status"] not in ("completed", "incomplete"):
        raise RequestError(
            f"the response before this one is {previous['status']}", param="previous_response_id"
        )
    output: list[Item] = previous["output"]
    return record.items() + output


def to_request(body: ResponsesBody, items: list[Item], recommended: bool) -> GenerationRequest:
    """What the body asks for, in the terms all dialects share."""
    sampling = body.sampling()
    if body.max_output_tokens is not None:
        sampling["max_tokens"] = body.max_output_tokens
    if body.top_logprobs is not None or "message.output_text.logprobs" in (body.include or ()):
        sampling["logprobs"] = body.top_logprobs or 0
    variables = dict(body.chat_template_kwargs or {})
    effort = None if body.reasoning is None else body.reasoning.effort
    if effort is not None:
        variables.setdefault("reasoning_effort", effort)
        variables.setdefault("enable_thinking", effort != "none")
    choice, tools = chat_tool_choice(body.tool_choice, chat_tools(body.tools))
    return GenerationRequest(
        messages=messages(body.instructions, items),
        sampling=sampling,
        tools=tools,
        tool_choice=tool_choice(choice, tools, body.parallel_tool_calls),
        constraint=_constraint(body.text),
        template_variables=variables,
        recommended=recommended,
    )


def _constraint(text: TextFields | None) -> Any:
    given = None if text is None else text.format
    if given is not None and given.get("type") == "json_schema":
        given = {"type": "json_schema", "json_schema": given}
    try:
        return response_format_constraint(given)
    except RequestError:
        raise RequestError(
            "text.format must be text, json_object, or json_schema with a schema",
            param="text.format",
        ) from None


def head(body: ResponsesBody) -> dict[str, Any]:
    """The response before anything is written. What the request left open is null."""
    text = body.text or TextFields()
    reasoning = body.reasoning or ReasoningFields()
    blank = {"parameters": None, "strict": None}
    return {
        "id": fmt.new_id("resp_"), "object": "response", "created_at": fmt.now(),
        "status": "in_progress", "background": bool(body.background), "error": None,
        "incomplete_details": None, "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens, "max_tool_calls": None, "model": body.model,
        "output": [], "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort, "summary": None},
        "safety_identifier": body.safety_identifier, "service_tier": "default",
        "store": body.store is not False, "temperature": body.temperature,
        "text": {"format": text.format or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": [{**blank, **tool} for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0, "top_p": body.top_p, "truncation": "disabled",
        "usage": None, "user": body.user, "metadata": body.metadata or {}, "completed_at": None,
    }  # fmt: skip


# -- answering ----------------------------------------------------------------------------------


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
    """Start the answer of a leased model; what is refused is named as this dialect names it."""
    job.writer.response["model"] = model.name
    try:
        return await Generation.start(model.loaded, job.request)
    except RequestError as error:
        if error.param != "response_format":
            raise
        raise RequestError(error.message, param="text.format", hint=error.hint) from error


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
            return JSONResponse(await while_connected(request, _whole(llm, generation, job, store)))

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
