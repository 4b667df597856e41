# SPDX-License-Identifier: Apache-2.0
"""Ollama's request bodies, and what they ask for in the terms all dialects share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from freehold.llm import LLM
from freehold.server.conversation import (
    assistant,
    call,
    needs_object,
    needs_text,
    only_known,
    take_prefill,
    tool,
    tool_answer,
)
from freehold.server.failures import RequestError
from freehold.server.generation import GenerationRequest
from freehold.server.ollama.options import sampling_of
from freehold.server.quantities import parse_keep_alive
from freehold.server.services import Body
from freehold.types import Constraint

_LEVELS = ("low", "medium", "high", "max")
_MOST_LOGPROBS = 20
_MESSAGE = ("role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")


class ModelBody(Body):
    """A request about one model, which older clients call its name."""

    model: str | None = None
    name: str | None = None

    def asked(self) -> str:
        """The model's name. Raises RequestError where there is none."""
        found = self.model or self.name
        if not found:
            raise RequestError("model is required", param="model")
        return found


class ShowBody(ModelBody):
    """``/api/show``. Long lists are left out in any case."""

    verbose: bool | None = None
    system: None = None
    template: None = None
    options: dict[str, Any] | None = None


class KeepBody(Body):
    """A request that loads a model."""

    model: str
    options: dict[str, Any] | None = None
    keep_alive: int | float | str | None = None

    def seconds(self) -> float | None:
        """How long the model shall stay; None: as the server has it."""
        return None if self.keep_alive is None else parse_keep_alive(self.keep_alive)


class AnswerBody(KeepBody):
    """What generating and chatting have in common."""

    stream: bool | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    # Nothing is ever cut or shifted out of a prompt: what does not fit is refused.
    truncate: Literal[False] | None = None
    shift: Literal[False] | None = None


class GenerateBody(AnswerBody):
    """``/api/generate``."""

    prompt: str | None = None
    system: str | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class ChatBody(AnswerBody):
    """``/api/chat``."""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    # Open WebUI writes these two here; elsewhere they are a message and an option.
    system: str | None = None
    num_predict: int | None = None


class EmbedBody(KeepBody):
    """``/api/embed``."""

    input: str | list[str]
    truncate: bool | None = None
    dimensions: int | None = None


class EmbeddingsBody(KeepBody):
    """``/api/embeddings``."""

    prompt: str | None = None


def chat_request(body: ChatBody, recommended: bool) -> GenerationRequest:
    """What a chat asks for."""
    names: dict[str, str] = {}
    messages = [_message(m, f"messages[{i}]", names) for i, m in enumerate(body.messages or ())]
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    common = _common(body)
    if body.num_predict is not None:
        common["sampling"] = {
            **sampling_of({"num_predict": body.num_predict}), **common["sampling"]
        }  # fmt: skip
    prefill = take_prefill(messages)
    if prefill:
        if common["constraint"] is not None or body.think:
            raise RequestError(
                "messages: an answer that is begun already has neither a thought nor a format",
                param="messages",
            )
        common["template_variables"] = {"enable_thinking": False}
    return GenerationRequest(
        messages=messages,
        prefill=prefill,
        tools=[_tool(t, f"tools[{i}]") for i, t in enumerate(body.tools or ())] or None,
        recommended=recommended,
        **common,
    )


def generate_request(body: GenerateBody, recommended: bool) -> GenerationRequest:
    """What a prompt asks for: a conversation of one turn, or the text itself with ``raw``."""
    _refuse(body.images, "images", "the model reads text alone")
    _refuse(body.template, "template", "the model's own is used; raw takes a finished prompt")
    common = _common(body)
    prompt = body.prompt or ""
    if body.raw or body.suffix:
        for name in ("system", "context", "think"):
            if getattr(body, name):
                raise RequestError(f"raw and suffix take a prompt as it is, without {name}",
                                   param=name)  # fmt: skip
        del common["template_variables"]
        return GenerationRequest(prompt=prompt, recommended=recommended, **common)
    messages = [{"role": "user", "content": prompt}]
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    return GenerationRequest(
        messages=messages, before=tuple(body.context or ()), recommended=recommended, **common
    )


def filled(llm: LLM, body: GenerateBody, asked: GenerationRequest) -> GenerationRequest:
    """The request whose answer stands between the prompt and the suffix. To be run on the thread
    for text; raises RequestError where the model was not taught to fill in."""
    marks = llm.fill_in
    if marks is None:
        raise RequestError(
            "suffix: the model has no tokens that mark a gap", param="suffix",
            hint="use a model trained to fill in",
        )  # fmt: skip
    ids = marks.ids(llm.tokenizer, body.prompt or "", body.suffix or "")
    sampling = {**asked.sampling, "stop_token_ids": marks.ends}
    return replace(asked, prompt=ids, sampling=sampling)


def _refuse(value: Any, name: str, why: str) -> None:
    if value:
        raise RequestError(f"{name} cannot be used: {why}", param=name)


def _common(body: AnswerBody) -> dict[str, Any]:
    sampling = sampling_of(body.options)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if not 0 <= (body.top_logprobs or 0) <= _MOST_LOGPROBS:
        raise RequestError(f"top_logprobs must be between 0 and {_MOST_LOGPROBS}",
                           param="top_logprobs")  # fmt: skip
    if body.logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    return {
        "sampling": sampling,
        "constraint": _constraint(body.format),
        "template_variables": _thinking(body.think),
    }


def _constraint(given: str | Mapping[str, Any] | None) -> Constraint | None:
    if given is None or given == "":
        return None
    if given == "json":
        return Constraint("json")
    if isinstance(given, Mapping):
        return Constraint("json_schema", given)
    raise RequestError(f"format must be \"json\" or a JSON schema, not {given!r:.40}",
                       param="format")  # fmt: skip


def _thinking(think: bool | str | None) -> dict[str, Any]:
    """Without a word the model does as its template has it."""
    if think is None or think == "":
        return {}
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in _LEVELS:
        raise RequestError(f"think must be true, false or one of {', '.join(_LEVELS)}",
                           param="think")  # fmt: skip
    return {"enable_thinking": True, "reasoning_effort": think}


def _message(raw: Mapping[str, Any], where: str, names: dict[str, str]) -> dict[str, Any]:
    only_known(raw, _MESSAGE, where)
    role, content = raw.get("role"), raw.get("content")
    if role not in ("system", "user", "assistant", "tool"):
        raise RequestError(f"{where}.role: {role!r:.60} is no role", param=f"{where}.role")
    text = "" if content is None else needs_text(content, f"{where}.content")
    _refuse(raw.get("images"), f"{where}.images", "the model reads text alone")
    calls = raw.get("tool_calls") or []
    if not isinstance(calls, list):
        raise RequestError(f"{where}.tool_calls must be a list", param=f"{where}.tool_calls")
    if role == "assistant":
        thought = raw.get("thinking")
        made = [_call(c, f"{where}.tool_calls[{i}]", names) for i, c in enumerate(calls)]
        known = "" if thought is None else needs_text(thought, f"{where}.thinking")
        return assistant(text, known, made)
    if calls:
        raise RequestError(f"{where}.tool_calls: only the assistant calls tools",
                           param=f"{where}.tool_calls")  # fmt: skip
    if role == "tool":
        call_id = raw.get("tool_call_id")
        if call_id is not None:
            needs_text(call_id, f"{where}.tool_call_id")
        name = raw.get("tool_name") or names.get(str(call_id))
        if name is not None:
            needs_text(name, f"{where}.tool_name")
        return tool_answer(text, name, call_id)
    return {"role": role, "content": text}


def _call(raw: Any, where: str, names: dict[str, str]) -> dict[str, Any]:
    function = needs_object(needs_object(raw, where).get("function"), f"{where}.function")
    name = needs_text(function.get("name"), f"{where}.function.name")
    arguments = needs_object(function.get("arguments") or {}, f"{where}.function.arguments")
    call_id = raw.get("id")
    if call_id is not None:
        names[needs_text(call_id, f"{where}.id")] = name
    return call(name, arguments, call_id)


def _tool(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    if raw.get("type", "function") != "function":
        raise RequestError(f"{where}.type must be function", param=f"{where}.type")
    function = needs_object(raw.get("function"), f"{where}.function")
    name = needs_text(function.get("name"), f"{where}.function.name")
    description = function.get("description")
    if description is not None:
        needs_text(description, f"{where}.function.description")
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    schema = needs_object(schema, f"{where}.function.parameters")
    return tool(name, description, schema, function.get("strict") is True)


def texts(given: str | Sequence[str]) -> list[str]:
    """One text or many as a list."""
    return [given] if isinstance(given, str) else list(given)
