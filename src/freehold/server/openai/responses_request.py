# SPDX-License-Identifier: Apache-2.0
"""A request for one of OpenAI's responses: its body, read and checked, in the terms all share.

Whatever can be refused before a model is asked is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from freehold.server.failures import RequestError
from freehold.server.generation import GenerationRequest
from freehold.server.openai import format as fmt
from freehold.server.openai.chat import tool_choice
from freehold.server.openai.constraints import ConstraintFields, response_format_constraint
from freehold.server.openai.responses_events import ResponseWriter
from freehold.server.openai.responses_input import (
    Item,
    chat_tool_choice,
    chat_tools,
    messages,
    normalised,
)
from freehold.server.openai.responses_store import ResponseStore
from freehold.server.services import Body
from freehold.server.sse import dumps
from freehold.types import Constraint


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


class PromptFields(Body):
    """What the prompt is made of."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextFields | None = None
    reasoning: ReasoningFields | None = None
    truncation: Literal["disabled"] | None = None
    # beyond OpenAI's
    chat_template_kwargs: dict[str, Any] | None = None


class ResponsesBody(PromptFields, fmt.SamplingFields, ConstraintFields):
    """The request."""

    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    # The thought itself is in its item, so there is nothing to encrypt.
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
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
    items += normalised(body.input, store.finder(owner))
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
    form, form_field = _form(body)
    variables = fmt.template_variables(body.chat_template_kwargs)
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
        constraint=form,
        constraint_field=form_field,
        template_variables=variables,
        recommended=recommended,
    )


def _form(body: ResponsesBody) -> tuple[Constraint | None, str]:
    """The form of the answer, and the field that asks for it."""
    if body.response_format is not None:
        raise RequestError("response_format is text.format here", param="response_format")
    other, field = body.constraint()
    given = None if body.text is None else body.text.format
    if given is not None and given.get("type") == "json_schema":
        given = {"type": "json_schema", "json_schema": given}
    try:
        form = response_format_constraint(given)
    except RequestError:
        raise RequestError(
            "text.format must be text, json_object, or json_schema with a schema",
            param="text.format",
        ) from None
    if form is not None and other is not None:
        raise RequestError(f"text.format and {field} each ask for a form", param=field)
    return (other, field) if other is not None else (form, "text.format")


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
