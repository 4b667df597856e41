# SPDX-License-Identifier: Apache-2.0
"""OpenAI's chat completions: ``POST /v1/chat/completions``.

Knows that dialect's bodies; generation is `generation.py`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.generation import Generation, GenerationRequest, ToolChoice
from freehold.server.openai import format as fmt
from freehold.server.openai.constraints import ConstraintFields
from freehold.server.services import Dialect, Services
from freehold.server.sse import frame, stream_response
from freehold.types import Completion, StreamEvent, ToolCall

_ROLES = {"developer": "system"}  # what OpenAI calls a system message nowadays


class ChatBody(fmt.SamplingFields, ConstraintFields):
    """The request."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: fmt.StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    # labels for the vendor's own books; they change no answer
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    # beyond OpenAI's
    chat_template_kwargs: dict[str, Any] | None = None


def to_request(body: ChatBody, recommended: bool) -> GenerationRequest:
    """What the body asks for, in the terms all dialects share."""
    if not body.messages:
        raise RequestError("messages must hold at least one message", param="messages")
    sampling = body.sampling()
    limits = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise RequestError(
            "max_tokens and max_completion_tokens differ", param="max_completion_tokens"
        )
    if limits:
        sampling["max_tokens"] = limits.pop()
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if body.logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    form, form_field = body.constraint()
    variables = fmt.template_variables(body.chat_template_kwargs)
    if body.reasoning_effort is not None:
        variables.setdefault("reasoning_effort", body.reasoning_effort)
        variables.setdefault("enable_thinking", body.reasoning_effort != "none")
    return GenerationRequest(
        messages=[message(m, i) for i, m in enumerate(body.messages)],
        sampling=sampling,
        n=1 if body.n is None else body.n,
        tools=body.tools or None,
        tool_choice=tool_choice(body.tool_choice, body.tools, body.parallel_tool_calls),
        constraint=form,
        constraint_field=form_field,
        template_variables=variables,
        recommended=recommended,
    )


def message(raw: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A message as templates want it: text for content, arguments of calls as objects."""
    where = f"messages[{index}]"
    role = raw.get("role")
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise RequestError(f"{where}: {role!r:.60} is no role", param=where)
    result = {**raw, "role": _ROLES.get(role, role)}
    if "content" in raw:
        result["content"] = content_text(raw["content"], f"{where}.content")
    if raw.get("tool_calls"):
        result["tool_calls"] = [_call(c, where) for c in raw["tool_calls"]]
    return result


def content_text(content: Any, where: str) -> str | None:
    """Text of a message's content: itself, or its text parts one after the other."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} must be text or a list of parts", param=where)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if kind == "text" else None
        if not isinstance(text, str):
            raise RequestError(
                f"{where}: a part of type {kind!r:.40} cannot be read; text can", param=where
            )
        texts.append(text)
    return "".join(texts)


def _call(raw: Any, where: str) -> dict[str, Any]:
    function = raw.get("function") if isinstance(raw, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RequestError(f"{where}: a tool call needs function.name", param=where)
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise RequestError(
                f"{where}: the arguments of {function['name']!r:.60} are not JSON", param=where
            ) from None
    return {**raw, "type": "function", "function": {**function, "arguments": arguments}}


def tool_choice(
    choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]] | None,
    parallel: bool | None,
) -> ToolChoice:  # fmt: skip
    """OpenAI's ``tool_choice`` and ``parallel_tool_calls``."""
    several = parallel is not False
    if choice is None or isinstance(choice, str):
        mode = choice or "auto"
        if mode not in ("none", "auto", "required"):
            raise RequestError(f"tool_choice {mode!r:.40} is not known", param="tool_choice")
        if mode == "required" and not tools:
            raise RequestError("tool_choice needs tools", param="tool_choice")
        return ToolChoice(mode, None, several)
    name = (choice.get("function") or {}).get("name")
    known = [(tool.get("function") or {}).get("name") for tool in tools or ()]
    if choice.get("type") != "function" or name not in known:
        raise RequestError("tool_choice must name one of the tools", param="tool_choice")
    return ToolChoice("named", name, several)


# -- answers ------------------------------------------------------------------------------------


def calls_json(calls: tuple[ToolCall, ...], ids: dict[int, str]) -> list[dict[str, Any]]:
    """Tool calls; `ids` keeps the ids that were made up for those without."""
    return [
        {
            "id": call.id or ids.setdefault(call.index, fmt.new_id("call_")),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def _choice(llm: LLM, index: int, completion: Completion) -> dict[str, Any]:
    answer: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    if completion.reasoning:
        answer["reasoning_content"] = completion.reasoning
    if completion.tool_calls:
        answer["tool_calls"] = calls_json(completion.tool_calls, {})
        answer["content"] = completion.text or None
    logprobs = completion.logprobs
    return {
        "index": index,
        "message": answer,
        "logprobs": None if logprobs is None else {"content": fmt.logprob_content(llm, logprobs)},
        "finish_reason": fmt.finish_reason(completion),
    }


async def _chunks(
    llm: LLM, generation: Generation, head: dict[str, Any], include_usage: bool
) -> AsyncGenerator[str, None]:
    """Frames of a streamed answer, ``[DONE]`` included."""
    tail: dict[str, Any] = {"usage": None} if include_usage else {}
    begun: set[int] = set()
    ids: dict[int, dict[int, str]] = {}
    done: list[Completion] = []
    async with aclosing(generation.events()) as events:
        async for index, event in events:
            delta = _delta(event, ids.setdefault(index, {}))
            if index not in begun:
                begun.add(index)
                delta = {"role": "assistant", "content": "", **delta}
            choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
            if event.logprobs is not None:
                choice["logprobs"] = {"content": fmt.logprob_content(llm, event.logprobs)}
            if delta or event.logprobs:
                yield frame({**head, "choices": [choice], **tail})
            if event.completion is not None:
                done.append(event.completion)
                end = {"index": index, "delta": {}}
                end["finish_reason"] = fmt.finish_reason(event.completion)
                yield frame({**head, "choices": [end], **tail})
    if include_usage:
        counts = fmt.usage(len(generation.prompt_token_ids), done)
        yield frame({**head, "choices": [], "usage": counts})
    yield frame("[DONE]")


def _delta(event: StreamEvent, ids: dict[int, str]) -> dict[str, Any]:
    delta: dict[str, Any] = {}
    if event.text:
        delta["content"] = event.text
    if event.reasoning:
        delta["reasoning_content"] = event.reasoning
    if event.tool_calls:
        calls = calls_json(event.tool_calls, ids)
        pairs = zip(event.tool_calls, calls, strict=True)
        delta["tool_calls"] = [{"index": call.index, **shown} for call, shown in pairs]
    return delta


def router(services: Services) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["openai"])

    @routes.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody) -> Response:
        """Answer a conversation."""
        asked = to_request(body, services.settings.recommended_sampling)
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(services.registry.lease(body.model))
            generation = await Generation.start(model.loaded, asked)
            llm = model.loaded.llm
            head = {"id": fmt.new_id("chatcmpl-"), "created": fmt.now(), "model": model.name}
            if body.stream:
                options = body.stream_options or fmt.StreamOptions()
                head["object"] = "chat.completion.chunk"
                frames = _chunks(llm, generation, head, options.include_usage)
                return stream_response(frames, fmt.error_frame, holding=stack.pop_all())
            done = await generation.results()
            choices = [_choice(llm, i, completion) for i, completion in enumerate(done)]
            counts = fmt.usage(len(generation.prompt_token_ids), done)
            head["object"] = "chat.completion"
            return JSONResponse({**head, "choices": choices, "usage": counts})

    return routes


DIALECT = Dialect("openai_chat", ("/v1/chat",), router, fmt.error_body)
