# SPDX-License-Identifier: Apache-2.0
"""Anthropic's Messages: ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``.

Knows that dialect's bodies; content is `content.py`, answers are `stream.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold.server.anthropic import content
from freehold.server.anthropic.format import STATUSES, error_body, error_frame
from freehold.server.anthropic.stream import Answer
from freehold.server.conversation import needs_object, only_known, take_prefill
from freehold.server.failures import RequestError
from freehold.server.generation import Generation, GenerationRequest, prompt_ids
from freehold.server.services import Body, Dialect, Services, validated
from freehold.server.sse import stream_response
from freehold.types import Constraint

_EFFORTS = ("low", "medium", "high", "xhigh", "max")


class CountBody(Body):
    """What makes up a prompt, and what changes none."""

    model: str
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None  # where older clients put `output_config.format`
    cache_control: dict[str, Any] | None = None  # prompts are cached by themselves
    context_management: dict[str, Any] | None = None
    speed: Literal["standard"] | None = None
    mcp_servers: None = None


class MessagesBody(CountBody):
    """The request."""

    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    # labels for the vendor's own books; they change no answer
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    user_profile_id: str | None = None
    # of the vendor's own machines
    thread: dict[str, Any] | None = None
    container: None = None
    diagnostics: None = None
    inference_geo: None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """What the request says of thoughts."""

    variables: Mapping[str, Any]
    thoughts: Literal["shown", "omitted", "hidden"]
    required: bool = False  # a model that has no thoughts cannot answer
    budget: int | None = None  # tokens


def thinking(given: Mapping[str, Any] | None) -> Thinking:
    """Anthropic's ``thinking``. Without it there is none, as clients that do not ask expect."""
    if given is None:
        return Thinking({"enable_thinking": False}, "hidden")
    kind = given.get("type")
    known = {"disabled": (), "adaptive": ("display",), "enabled": ("display", "budget_tokens")}
    if not isinstance(kind, str) or kind not in known:
        raise RequestError(
            f"thinking.type must be enabled, adaptive or disabled, not {kind!r:.40}",
            param="thinking.type",
        )
    only_known(given, ("type", *known[kind]), "thinking")
    if kind == "disabled":
        return Thinking({"enable_thinking": False}, "hidden")
    display = given.get("display") or "summarized"
    if display not in ("summarized", "omitted"):
        raise RequestError("thinking.display must be summarized or omitted",
                           param="thinking.display")  # fmt: skip
    budget = given.get("budget_tokens")
    if kind == "enabled" and (type(budget) is not int or budget < 1):
        raise RequestError("thinking.budget_tokens must be a number of tokens",
                           param="thinking.budget_tokens")  # fmt: skip
    shown: Literal["shown", "omitted"] = "shown" if display == "summarized" else "omitted"
    return Thinking({"enable_thinking": True}, shown, kind == "enabled", budget)


def to_request(body: CountBody, recommended: bool) -> tuple[GenerationRequest, Thinking]:
    """What the body asks for, in the terms all dialects share."""
    offered = content.tools(body.tools or ())
    thought = thinking(body.thinking)
    variables = dict(thought.variables)
    config = dict(body.output_config or {})
    older = body.output_format
    if older is not None and config.setdefault("format", older) != older:
        raise RequestError("output_format and output_config.format differ", param="output_format")
    only_known(config, ("effort", "format"), "output_config")
    if (effort := config.get("effort")) is not None:
        if effort not in _EFFORTS:
            raise RequestError(f"output_config.effort must be one of {', '.join(_EFFORTS)}",
                               param="output_config.effort")  # fmt: skip
        variables["reasoning_effort"] = effort
    _check_context_management(body.context_management)
    messages = content.conversation(body.system, body.messages)
    prefill = take_prefill(messages)
    if prefill != prefill.rstrip():
        raise RequestError("messages: the beginning of an answer cannot end with white space",
                           param="messages")  # fmt: skip
    if prefill and (thought.required or config.get("format") is not None):
        raise RequestError(
            "messages: an answer that is begun already has neither a thought nor a format",
            param="messages", hint="end with a message of the user",
        )  # fmt: skip
    request = GenerationRequest(
        messages=messages,
        prefill=prefill,
        sampling=_sampling(body) if isinstance(body, MessagesBody) else {},
        tools=offered or None,
        tool_choice=content.tool_choice(body.tool_choice, offered),
        constraint=_constraint(config.get("format")),
        template_variables=variables,
        recommended=recommended,
        thought_budget=thought.budget,
    )
    if isinstance(body, MessagesBody) and (thought.budget or 0) >= max(1, body.max_tokens):
        raise RequestError("max_tokens must be greater than thinking.budget_tokens",
                           param="max_tokens")  # fmt: skip
    return request, thought


def _sampling(body: MessagesBody) -> dict[str, Any]:
    if body.thread is not None:
        raise RequestError(
            "thread: conversations are not held here; send all messages", param="thread"
        )
    if body.max_tokens < 0:
        raise RequestError("max_tokens must be 0 or more", param="max_tokens")
    if body.max_tokens == 0 and body.stream:
        raise RequestError("max_tokens 0 computes the prompt alone, and there is nothing to stream",
                           param="stream")  # fmt: skip
    given = {
        "max_tokens": max(1, body.max_tokens),
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "stop": body.stop_sequences,
    }
    return {name: value for name, value in given.items() if value is not None}


def _constraint(given: Any) -> Constraint | None:
    if given is None:
        return None
    where = "output_config.format"
    only_known(needs_object(given, where), ("type", "schema"), where)
    if given.get("type") != "json_schema" or "schema" not in given:
        raise RequestError(f"{where} must be json_schema with a schema", param=where)
    return Constraint("json_schema", needs_object(given["schema"], f"{where}.schema"))


def _check_context_management(given: Mapping[str, Any] | None) -> None:
    """Edits that keep everything are none; others would change the prompt behind its author."""
    where = "context_management"
    only_known(given or {}, ("edits",), where)
    edits = (given or {}).get("edits") or []
    if not isinstance(edits, list) or any(
        not isinstance(edit, Mapping) or edit.get("keep") != "all" for edit in edits
    ):
        raise RequestError(f"{where}.edits: nothing is edited out of a prompt here", param=where)


@contextmanager
def _own_names() -> Iterator[None]:
    """Errors from below by the names that this dialect has for the fields."""
    try:
        yield
    except RequestError as error:
        if error.param == "response_format":
            error.param = "output_config.format"
        raise


@asynccontextmanager
async def _started(services: Services, body: MessagesBody) -> AsyncIterator[Answer]:
    """The answer to a body, on a leased model."""
    asked, thought = to_request(body, services.settings.recommended_sampling)
    async with services.registry.lease(body.model) as model:
        llm = model.loaded.llm
        if thought.required and not llm.answer_format.thinks:
            raise RequestError(
                f"{model.name} does not think", param="thinking", hint="leave thinking out"
            )
        with _own_names():
            generation = await Generation.start(model.loaded, asked)
        yield Answer(
            llm, model.name, generation, body.max_tokens, thought.thoughts, body.max_tokens == 0
        )


async def answer(services: Services, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The message that answers one body, without HTTP; it does not stream.

    Raises FreeholdError for what cannot be answered (`failures.failure_of` words it).
    """
    body = validated(MessagesBody, raw)
    if body.stream:
        raise RequestError("stream: an answer among many cannot be streamed", param="stream")
    async with _started(services, body) as started:
        return await started.whole()


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["anthropic"])

    @routes.post("/v1/messages")
    async def messages(body: MessagesBody) -> Response:
        """Answer a conversation."""
        async with AsyncExitStack() as stack:
            started = await stack.enter_async_context(_started(services, body))
            if body.stream:
                return stream_response(started.frames(), error_frame, holding=stack.pop_all())
            return JSONResponse(await started.whole())

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountBody) -> dict[str, int]:
        """How many tokens a conversation takes, its tools included."""
        asked, _ = to_request(body, recommended=False)
        async with services.registry.lease(body.model) as model:
            ids = await model.loaded.text(lambda llm: prompt_ids(llm, asked))
        return {"input_tokens": len(ids)}

    return routes


DIALECT = Dialect("anthropic_messages", ("/v1/messages",), router, error_body, STATUSES)
