# SPDX-License-Identifier: Apache-2.0
"""Items of OpenAI's responses: what may be an input, spelled out, and as messages of a chat.

`normalised` gives every item the form in which it is stored and listed; `messages` knows that form
only. Whatever a text model cannot take is refused by the name of its field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from freehold.server.failures import RequestError
from freehold.server.openai.format import new_id

Item = dict[str, Any]

MAX_ITEMS = 10_000
_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
# Fields an item may have, and those that change nothing here and are not kept.
_FIELDS = {
    "message": ({"role", "content"}, {"phase"}),
    "function_call": ({"call_id", "name", "arguments"}, {"created_by"}),
    "function_call_output": ({"call_id", "output"}, {"created_by", "name"}),
    "reasoning": ({"summary", "content"}, set()),
}
_PART_EXTRAS = {"annotations", "logprobs", "prompt_cache_breakpoint"}
_PREFIX = {
    "message": "msg_",
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
}


def normalised(
    given: str | Sequence[Mapping[str, Any]], find: Callable[[str], Item | None]
) -> list[Item]:
    """The items of an ``input``. `find` gives the stored item of an id, for references.

    Raises RequestError.
    """
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if len(given) > MAX_ITEMS:
        raise RequestError(f"input may hold {MAX_ITEMS} items at most", param="input")
    return [_item(raw, f"input[{i}]", find) for i, raw in enumerate(given)]


def _item(raw: Mapping[str, Any], where: str, find: Callable[[str], Item | None]) -> Item:
    kind = raw.get("type") or "message"
    if kind == "item_reference":
        found = find(_text(raw, "id", where))
        if found is None:
            raise RequestError(f"{where}: no stored item has this id", param=where)
        return found
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise RequestError(
            f"{where}: items of type {kind!r:.40} are not supported; there are "
            f"{', '.join(_FIELDS)}",
            param=where,
        )
    fields, ignored = _FIELDS[kind]
    for name, value in raw.items():
        if value is not None and name not in fields | ignored | {"type", "id", "status"}:
            raise RequestError(f"{where}: {name!r:.60} is not supported", param=f"{where}.{name}")
    item_id = _text(raw, "id", where) if raw.get("id") else new_id(_PREFIX[kind])
    item: Item = {"id": item_id, "type": kind, "status": "completed"}
    if kind == "message":
        role = raw.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise RequestError(f"{where}: {role!r:.60} is no role", param=f"{where}.role")
        return item | {
            "role": role,
            "content": _parts(raw.get("content"), role, f"{where}.content"),
        }
    if kind == "function_call":
        arguments = _text(raw, "arguments", where) or "{}"
        _arguments(arguments, where)
        call = {"call_id": _text(raw, "call_id", where), "name": _text(raw, "name", where)}
        return item | call | {"arguments": arguments}
    if kind == "function_call_output":
        output = raw.get("output")
        if not isinstance(output, str):
            output = _parts(output, "user", f"{where}.output")
        return item | {"call_id": _text(raw, "call_id", where), "output": output}
    summary = _texts(raw.get("summary") or [], "summary_text", f"{where}.summary")
    content = _texts(raw.get("content") or [], "reasoning_text", f"{where}.content")
    return item | {"summary": summary, "content": content}


def _text(raw: Mapping[str, Any], name: str, where: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{where}: {name} must be a text", param=f"{where}.{name}")
    return value


def _arguments(text: str, where: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise RequestError(f"{where}: arguments is not JSON", param=f"{where}.arguments") from None


def _parts(content: Any, role: str, where: str) -> list[Item]:
    """Content as a list of parts, all of them text."""
    ours = "output_text" if role == "assistant" else "input_text"
    extra: Item = {"annotations": []} if role == "assistant" else {}
    if isinstance(content, str):
        return [{"type": ours, "text": content, **extra}]
    if not isinstance(content, list):
        raise RequestError(f"{where} must be text or a list of parts", param=where)
    parts: list[Item] = []
    for i, part in enumerate(content):
        here = f"{where}[{i}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "refusal" and role == "assistant":
            parts.append({"type": "refusal", "refusal": _text(part, "refusal", here)})
            continue
        if kind not in ("input_text", "output_text", "text"):
            raise RequestError(
                f"{here}: a part of type {kind!r:.40} cannot be read; text can", param=here
            )
        for name, value in part.items():
            if value is not None and name not in _PART_EXTRAS | {"type", "text"}:
                raise RequestError(f"{here}: {name!r:.60} is not supported", param=here)
        parts.append({"type": ours, "text": _text(part, "text", here), **extra})
    return parts


def _texts(raw: Any, kind: str, where: str) -> list[Item]:
    if not isinstance(raw, list):
        raise RequestError(f"{where} must be a list", param=where)
    parts = []
    for i, part in enumerate(raw):
        here = f"{where}[{i}]"
        if not isinstance(part, Mapping) or part.get("type") != kind:
            raise RequestError(f"{here} must be of type {kind}", param=here)
        parts.append({"type": kind, "text": _text(part, "text", here)})
    return parts


def messages(instructions: str | None, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Normalised items as templates want them.

    A thought, what was said and the calls of one turn are one message of the assistant. System
    messages at the beginning become one, since most templates take no second.
    """
    result: list[dict[str, Any]] = []
    if instructions:
        result.append({"role": "system", "content": instructions})
    names: dict[str, str] = {}  # of the functions, by call

    def turn() -> dict[str, Any]:
        if not result or result[-1]["role"] != "assistant":
            result.append({"role": "assistant", "content": ""})
        return result[-1]

    for i, item in enumerate(items):
        kind = item["type"]
        if kind == "reasoning":
            thought = "".join(part["text"] for part in item["content"] or item["summary"])
            last = result[-1] if result else {}
            if last.get("role") == "assistant" and (last["content"] or "tool_calls" in last):
                result.append({"role": "assistant", "content": ""})  # a thought begins a turn
            said = turn()
            said["reasoning_content"] = said.get("reasoning_content", "") + thought
        elif kind == "function_call":
            names[item["call_id"]] = item["name"]
            arguments = _arguments(item["arguments"], f"input[{i}]")
            function = {"name": item["name"], "arguments": arguments}
            call = {"id": item["call_id"], "type": "function", "function": function}
            turn().setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            said = {"role": "tool", "tool_call_id": item["call_id"]}
            if item["call_id"] in names:
                said["name"] = names[item["call_id"]]
            output = item["output"]
            said["content"] = output if isinstance(output, str) else _joined(output)
            result.append(said)
        else:
            _say(result, _ROLES[item["role"]], _joined(item["content"]))
    return result


def _say(result: list[dict[str, Any]], role: str, text: str) -> None:
    last: dict[str, Any] = result[-1] if result else {}
    same = last.get("role") == role
    if same and role == "assistant" and not last["content"] and "tool_calls" not in last:
        last["content"] = text  # of the thought before it
    elif same and role == "system" and len(result) == 1:
        last["content"] += "\n\n" + text
    else:
        result.append({"role": role, "content": text})


def _joined(parts: Sequence[Item]) -> str:
    return "".join(part["refusal" if part["type"] == "refusal" else "text"] for part in parts)


def chat_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Functions as chats describe them. Tools that the vendor would run itself are refused."""
    result = []
    for i, tool in enumerate(tools or ()):
        where = f"tools[{i}]"
        kind = tool.get("type")
        if kind != "function":
            raise RequestError(
                f"{where}: tools of type {kind!r:.40} are not run here; functions are", param=where
            )
        known = {"type", "name", "description", "parameters", "strict"}
        for name, value in tool.items():
            if value is not None and name not in known:
                raise RequestError(f"{where}: {name!r:.60} is not supported", param=where)
        function = {k: v for k, v in tool.items() if k != "type" and v is not None}
        _text(function, "name", where)
        result.append({"type": "function", "function": function})
    return result or None


def chat_tool_choice(
    choice: str | Mapping[str, Any] | None, tools: list[dict[str, Any]] | None
) -> tuple[str | dict[str, Any] | None, list[dict[str, Any]] | None]:
    """``tool_choice`` as chats say it, and those tools that it leaves to be chosen from."""
    if not isinstance(choice, Mapping):
        return choice, tools
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}, tools
    if choice.get("type") != "allowed_tools":
        raise RequestError(
            f"tool_choice of type {choice.get('type')!r:.40} is not supported", param="tool_choice"
        )
    allowed = choice.get("tools")
    if not isinstance(allowed, list) or choice.get("mode") not in ("auto", "required"):
        raise RequestError("allowed_tools needs mode and tools", param="tool_choice")
    names = [tool.get("name") if isinstance(tool, Mapping) else None for tool in allowed]
    chosen = [tool for tool in tools or () if tool["function"]["name"] in names]
    known = [tool["function"]["name"] for tool in chosen]
    if not chosen or any(name not in known for name in names):
        raise RequestError("allowed_tools must name some of the tools", param="tool_choice")
    return choice["mode"], chosen
