# SPDX-License-Identifier: Apache-2.0
"""Conversations and tools in the form chat templates want them, whatever dialect they came in.

Content is text, arguments of calls are objects, and an answer of a tool names its tool. Knows no
dialect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from freehold.server.failures import RequestError

PARAGRAPH = "\n\n"  # between texts that a dialect keeps apart and a template does not


def assistant(text: str, thought: str, calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the model said before."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["reasoning_content"] = thought
        if not (text and calls):  # gpt-oss takes one of them beside a call, and calls it this
            message["thinking"] = thought
    if calls:
        message["tool_calls"] = list(calls)
    return message


def call(name: str, arguments: Mapping[str, Any], call_id: str | None = None) -> dict[str, Any]:
    """One call of a tool that the model made."""
    result: dict[str, Any] = {"type": "function"}
    if call_id is not None:
        result["id"] = call_id
    return {**result, "function": {"name": name, "arguments": dict(arguments)}}


def tool_answer(text: str, name: str | None, call_id: str | None = None) -> dict[str, Any]:
    """What a tool gave back."""
    message: dict[str, Any] = {"role": "tool", "content": text}
    if name is not None:
        message["name"] = name
    if call_id is not None:
        message["tool_call_id"] = call_id
    return message


def tool(
    name: str, description: str | None, parameters: Mapping[str, Any], strict: bool
) -> dict[str, Any]:
    """A tool that may be called; `parameters` is the JSON Schema of its arguments."""
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = dict(parameters)
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def merged(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Texts of one speaker in a row as one message: many templates insist on turns."""
    result: list[dict[str, Any]] = []
    for message in messages:
        last = result[-1] if result else None
        if last is not None and _is_text(last) and _is_text(message, last["role"]):
            result[-1] = {**last, "content": last["content"] + PARAGRAPH + message["content"]}
        else:
            result.append(message)
    return result


def take_prefill(messages: list[dict[str, Any]]) -> str:
    """How the answer begins: a last message of the assistant's, which is taken off `messages`.

    Raises RequestError where that is more than a text, or all there is.
    """
    if not messages or messages[-1]["role"] != "assistant":
        return ""
    if len(messages) == 1 or messages[-1].keys() != {"role", "content"}:
        raise RequestError(
            "messages: the last one must be the user's, or the beginning of an answer as text",
            param="messages",
        )
    return needs_text(messages.pop()["content"], "messages")


def _is_text(message: Mapping[str, Any], role: str | None = None) -> bool:
    return message.keys() == {"role", "content"} and message["role"] in (
        ("system", "user", "assistant") if role is None else (role,)
    )


def needs_text(value: Any, where: str) -> str:
    """`value`, if it is text. Raises RequestError that names `where`."""
    if not isinstance(value, str):
        raise RequestError(f"{where} must be text", param=where)
    return value


def needs_object(value: Any, where: str) -> dict[str, Any]:
    """`value`, if it is an object. Raises RequestError that names `where`."""
    if not isinstance(value, dict):
        raise RequestError(f"{where} must be an object", param=where)
    return value


def only_known(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse what nobody would read. Raises RequestError that names the first such field."""
    for name in given:
        if name not in known:
            raise RequestError(f"{where}.{name:.60} is not known", param=f"{where}.{name:.60}")
