# SPDX-License-Identifier: Apache-2.0
"""Anthropic's content blocks, system prompts and tools as conversations in the shared form.

What freehold cannot read (images, documents, the vendor's own tools) is refused by its name.
`cache_control` is taken everywhere and changes nothing: prompts are cached by their beginnings
anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from freehold.server.conversation import (
    PARAGRAPH,
    assistant,
    call,
    merged,
    needs_object,
    needs_text,
    only_known,
    tool,
    tool_answer,
)
from freehold.server.failures import RequestError
from freehold.types import ToolChoice

_ROLES = ("user", "assistant", "system")
_TOOL_FIELDS = (
    "name", "description", "input_schema", "type", "strict", "cache_control", "input_examples",
    "eager_input_streaming", "allowed_callers", "defer_loading",
)  # fmt: skip


def conversation(
    system: str | Sequence[Any] | None, messages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All messages, the system prompt first. Raises RequestError by the place of what is wrong."""
    if not messages:
        raise RequestError("messages must hold at least one message", param="messages")
    result: list[dict[str, Any]] = []
    if system:
        result.append({"role": "system", "content": texts(system, "system")})
    names: dict[str, str] = {}  # of the tools called so far, by the id of the call
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        role = message.get("role")
        if role not in _ROLES:
            raise RequestError(f"{where}.role: {role!r:.60} is no role", param=f"{where}.role")
        only_known(message, ("role", "content"), where)
        content = message.get("content")
        where = f"{where}.content"
        if role == "system":
            result.append({"role": "system", "content": texts(content, where)})
        elif role == "user":
            result += _from_user(content, names, where)
        else:
            result.append(_from_assistant(content, names, where))
    return merged(result)


def texts(content: Any, where: str) -> str:
    """Text, or the text of blocks that hold nothing else."""
    if isinstance(content, str):
        return content
    found = []
    for kind, block, place in _blocks(content, where):
        if kind != "text":
            raise _unreadable(kind, place)
        found.append(_text(block, place))
    return PARAGRAPH.join(found)


def _from_user(content: Any, names: Mapping[str, str], where: str) -> list[dict[str, Any]]:
    """Answers of tools are messages of their own; text after them is the user's."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    result: list[dict[str, Any]] = []
    for kind, block, place in _blocks(content, where):
        if kind == "text":
            result.append({"role": "user", "content": _text(block, place)})
        elif kind == "tool_result":
            result.append(_tool_result(block, names, place))
        else:
            raise _unreadable(kind, place)
    if not result:
        raise RequestError(f"{where} must hold at least one block", param=where)
    return result


def _tool_result(block: dict[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    only_known(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where)
    call_id = needs_text(block.get("tool_use_id"), f"{where}.tool_use_id")
    if call_id not in names:
        raise RequestError(
            f"{where}.tool_use_id: no tool_use before it has the id {call_id!r:.60}",
            param=f"{where}.tool_use_id",
        )
    content = block.get("content")
    text = "" if content is None else texts(content, f"{where}.content")
    if block.get("is_error"):  # templates know no failed answers; the model has to be told
        text = f"Error: {text}"
    return tool_answer(text, names[call_id], call_id)


def _from_assistant(content: Any, names: dict[str, str], where: str) -> dict[str, Any]:
    if isinstance(content, str):
        return assistant(content, "", ())
    said, thoughts, calls = [], [], []
    for kind, block, place in _blocks(content, where):
        if kind == "text":
            said.append(_text(block, place))
        elif kind == "thinking":
            # The signature is the vendor's that wrote it, who may be another one.
            only_known(block, ("type", "thinking", "signature"), place)
            thoughts.append(needs_text(block.get("thinking"), f"{place}.thinking"))
        elif kind == "tool_use":
            only_known(block, ("type", "id", "name", "input", "cache_control", "caller"), place)
            call_id = needs_text(block.get("id"), f"{place}.id")
            name = needs_text(block.get("name"), f"{place}.name")
            given = needs_object(block.get("input"), f"{place}.input")
            names[call_id] = name
            calls.append(call(name, given, call_id))
        else:
            raise _unreadable(kind, place)
    return assistant(PARAGRAPH.join(said), PARAGRAPH.join(filter(None, thoughts)), calls)


def _blocks(content: Any, where: str) -> list[tuple[str, dict[str, Any], str]]:
    """(type, block, place) of a list of content blocks."""
    if not isinstance(content, list):
        raise RequestError(f"{where} must be text or a list of content blocks", param=where)
    result = []
    for index, block in enumerate(content):
        place = f"{where}.{index}"
        kind = needs_object(block, place).get("type")
        result.append((needs_text(kind, f"{place}.type"), block, place))
    return result


def _text(block: dict[str, Any], where: str) -> str:
    only_known(block, ("type", "text", "cache_control", "citations"), where)
    if block.get("citations"):
        raise RequestError(f"{where}.citations cannot be read", param=f"{where}.citations")
    return needs_text(block.get("text"), f"{where}.text")


def _unreadable(kind: str, where: str) -> RequestError:
    return RequestError(f"{where}: a block of type {kind!r:.60} cannot be read here", param=where)


# -- tools --------------------------------------------------------------------------------------


def tools(given: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools a client runs itself. The vendor's own have a type and are refused by it."""
    return [_tool(item, f"tools.{index}") for index, item in enumerate(given)]


def _tool(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    kind = given.get("type")
    if kind not in (None, "custom"):
        raise RequestError(
            f"{where}: the tool {kind!r:.60} is run by another vendor's servers, not here",
            param=where,
            hint="give a tool of your own: name, description and input_schema",
        )
    only_known(given, _TOOL_FIELDS, where)
    if given.get("defer_loading"):
        raise RequestError(f"{where}.defer_loading needs a tool search, and there is none",
                           param=f"{where}.defer_loading")  # fmt: skip
    if given.get("allowed_callers") not in (None, ["direct"]):
        raise RequestError(f"{where}.allowed_callers: only \"direct\" can call tools here",
                           param=f"{where}.allowed_callers")  # fmt: skip
    name = needs_text(given.get("name"), f"{where}.name")
    schema = needs_object(given.get("input_schema"), f"{where}.input_schema")
    description = given.get("description")
    if description is not None:
        needs_text(description, f"{where}.description")
    if given.get("input_examples"):
        schema = {**schema, "examples": given["input_examples"]}  # where JSON Schema has them
    return tool(name, description, schema, given.get("strict") is True)


def tool_choice(
    given: Mapping[str, Any] | None, offered: Sequence[Mapping[str, Any]]
) -> ToolChoice:
    """Anthropic's ``tool_choice``, with ``disable_parallel_tool_use`` inside."""
    if given is None:
        return ToolChoice()
    kind = given.get("type")
    fields = {"auto": (), "any": (), "none": (), "tool": ("name",)}.get(str(kind))
    if fields is None:
        raise RequestError(f"tool_choice.type {kind!r:.40} is not known", param="tool_choice.type")
    extra = () if kind == "none" else ("disable_parallel_tool_use",)
    only_known(given, ("type", *fields, *extra), "tool_choice")
    single = given.get("disable_parallel_tool_use", False)
    if not isinstance(single, bool):
        raise RequestError("tool_choice.disable_parallel_tool_use must be true or false",
                           param="tool_choice.disable_parallel_tool_use")  # fmt: skip
    if kind in ("any", "tool") and not offered:
        raise RequestError("tool_choice needs tools", param="tool_choice")
    if kind == "tool":
        name = given.get("name")
        if name not in [item["function"]["name"] for item in offered]:
            raise RequestError(f"tool_choice.name: there is no tool {name!r:.80}",
                               param="tool_choice.name")  # fmt: skip
        return ToolChoice("named", name, not single)
    return ToolChoice("required" if kind == "any" else str(kind), None, not single)
