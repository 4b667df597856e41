# SPDX-License-Identifier: Apache-2.0
"""What a tool's schema says about a parameter that a model wrote as plain text.

Several syntaxes write ``<parameter=x>5</parameter>``: whether that is the number or the text is
in the schema alone. Knows just enough JSON Schema for that question; validates nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from freehold.chat.parse_json import CONSTANTS, json_value, quoted
from freehold.chat.parse_reader import Malformed, Reader, Steps

_MAX_STEPS = 64  # schemas visited for one parameter; references may go round in circles


class ToolSchemas:
    """Tools by name, in either spelling: ``{"type": "function", "function": {…}}`` or bare."""

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._schemas: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            inner = tool.get("function") if isinstance(tool, Mapping) else None
            entry = inner if isinstance(inner, Mapping) else tool
            name = entry.get("name") if isinstance(entry, Mapping) else None
            if isinstance(name, str):
                found = entry.get("parameters", entry.get("input_schema"))
                self._schemas[name] = found if isinstance(found, Mapping) else {}

    def __contains__(self, name: str) -> bool:
        return name in self._schemas

    def __bool__(self) -> bool:
        return bool(self._schemas)

    def __iter__(self) -> Any:
        return iter(self._schemas)

    def parameter(self, tool: str, key: str) -> frozenset[str]:
        """JSON types a parameter may have; empty = nothing is said."""
        root = self._schemas.get(tool, {})
        properties = root.get("properties")
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        return _types(schema, root)


def _types(schema: Any, root: Mapping[str, Any]) -> frozenset[str]:
    found: set[str] = set()
    stack = [schema]
    for _ in range(_MAX_STEPS):
        if not stack:
            break
        item = stack.pop()
        if not isinstance(item, Mapping):
            continue
        kind = item.get("type")
        listed = kind if isinstance(kind, list) else [kind]
        found.update(name for name in listed if isinstance(name, str))
        if item.get("nullable") is True and found:
            found.add("null")
        if kind is None:
            values = item.get("enum", [item["const"]] if "const" in item else ())
            found.update(_type_of(v) for v in values if isinstance(values, list))
        for word in ("anyOf", "oneOf", "allOf"):
            branch = item.get(word)
            stack += branch if isinstance(branch, list) else []
        if isinstance(item.get("$ref"), str):
            stack.append(_resolve(item["$ref"], root))
    return frozenset(found)


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    for part in reference.removeprefix("#/").split("/"):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"


def typed_value(text: str, types: frozenset[str]) -> str:
    """JSON text of a value written as `text` that may have these types.

    A text that fits none of them is passed on as a string: a tool can refuse it better than a
    parser can guess.
    """
    if types == {"string"}:
        return quoted(text)
    value = json_of(text.strip())
    if value is None:
        return quoted(text)
    kind = _type_of(json.loads(value))
    if kind == "string":
        # Where a string may stand, quotes are part of it; where none may, they enclose it.
        return quoted(text) if not types or "string" in types else value
    if types and kind not in types and not (kind == "number" and "integer" in types):
        return quoted(text) if "string" in types else value
    return value


def json_of(text: str) -> str | None:
    """`text` as sound JSON, or None."""
    if not text or (text[0] not in '{["-0123456789' and text not in CONSTANTS):
        return None
    reader = Reader()
    reader.feed(text)
    reader.end()
    parts: list[str] = []

    def read() -> Steps[None]:
        yield from json_value(reader, parts.append)
        if (yield from reader.peek()):
            raise Malformed("bad_syntax", "more than one value")

    try:
        for _ in read():
            raise AssertionError("a reader at its end asked for more")
    except Malformed:
        return None
    return "".join(parts)
