# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas as grammars: what of them can be kept, and how the JSON is laid out.

llguidance turns a schema into a grammar and refuses most of what it cannot keep. Here the rest is
refused: keywords it takes for mere remarks, and schemas whose grammar would take seconds to make.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import llguidance

from freehold.chat.deep_stack import on_deep_stack
from freehold.chat.json_conjunction import most_patterns_at_once
from freehold.chat.json_formats import MAX_LENGTHS, PATTERNS
from freehold.chat.json_patterns import is_writable, library_pattern
from freehold.errors import ConstraintError

MAX_BYTES = 256 * 1024  # of a schema's own text
MAX_DEPTH = 48  # objects and lists inside each other; each may be three levels of a schema
MAX_PATTERNS = 8  # met by one text
MAX_PROPERTIES = 1000  # of one object: the grammar's size grows with the square
# One line, a space behind commas and colons: most of an object's text is then forced, and a model
# cannot lose itself in white space.
LAYOUT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # No \uXXXX: it is another way to write a property's name, past what is said of the property.
    "json_allowed_escapes": 'nrbtf\\"',
}
_CANNOT = "which cannot be kept while an answer is written"
# A validator may hold these to be assertions, and no grammar checks them.
_UNCHECKED = ("contentEncoding", "contentMediaType", "contentSchema")
_PREFIX = "Unimplemented keys: "
# What else the library says, in words of ours.
_REASONS = (
    ("oneOf constraints", "the schema uses oneOf with alternatives that might hold at once"),
    ("Unknown format: ", "the schema uses the format {rest!r:.60}"),
    (
        "min/maxProperties only",
        "the schema uses minProperties or maxProperties beside properties that are not required",
    ),
    ("patternProperty regexes", "the schema uses patternProperties that may match the same name"),
    ("circular references with", "the schema uses $ref in a circle, with keywords beside it"),
    ("is not present in a registry", "the schema uses $ref to something outside itself"),
    ("Unable to determine if regex", "the schema asks for several patterns at once"),
)
# Keywords whose value is an instance, not a schema.
_DATA = frozenset({"const", "enum", "default", "examples", "example", "x-guidance"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def schema_grammar(schema: Any) -> dict[str, Any]:
    """A member of llguidance's list of grammars for the JSON a schema describes.

    Raises ConstraintError for what is no schema, too large, or asks for what cannot be kept.
    """
    if not isinstance(schema, (Mapping, bool)):
        raise ConstraintError(f"a JSON Schema is an object, not {type(schema).__name__}")
    _check_depth(schema)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"the schema is not JSON: {error}") from None
    if len(text) > MAX_BYTES:
        raise ConstraintError(f"the schema has {len(text):,} characters; {MAX_BYTES:,} are read")
    if isinstance(schema, bool):
        return {"json_schema": schema}
    own: dict[str, Any] = json.loads(text)
    for where, node in list(_schemas(own)):
        _check_node(where, node)
        _spell_format(node)
        if isinstance(node.get("pattern"), str):
            node["pattern"] = library_pattern(node["pattern"])
        if isinstance(node.get("patternProperties"), dict):
            node["patternProperties"] = _patterns(node["patternProperties"])
    if most_patterns_at_once(own) > MAX_PATTERNS:
        raise ConstraintError(
            f"the schema asks a text to match more than {MAX_PATTERNS} patterns at once, {_CANNOT}"
        )
    # Whatever the caller wrote under this name, the layout and the strictness are ours.
    return {"json_schema": {**own, "x-guidance": {**LAYOUT, "lenient": False}}}


def _patterns(given: dict[str, Any]) -> dict[str, Any]:
    """The schemas by the library's spelling of their patterns, which may be the same of two."""
    schemas: dict[str, list[Any]] = {}
    for pattern, schema in given.items():
        schemas.setdefault(library_pattern(pattern, exact=True), []).append(schema)
    return {p: found[0] if len(found) == 1 else {"allOf": found} for p, found in schemas.items()}


def _spell_format(node: dict[str, Any]) -> None:
    """Write a format of ours as the pattern and the length that it is."""
    name = node.get("format")
    pattern = PATTERNS.get(name) if isinstance(name, str) else None
    if pattern is None:
        return
    del node["format"]
    spelled: dict[str, Any] = {"pattern": f"^(?:{pattern})$"}
    if name in MAX_LENGTHS:
        spelled["maxLength"] = MAX_LENGTHS[name]
    if spelled.keys() & node.keys():
        node["allOf"] = [*node.get("allOf", ()), spelled]
    else:
        node.update(spelled)


def unsupported(schema: Any) -> str | None:
    """Why a schema cannot be kept, None if it can."""
    try:
        part = schema_grammar(schema)
    except ConstraintError as error:
        return error.message
    grammar = json.dumps({"grammars": [part]})
    text: str = on_deep_stack(lambda: llguidance.LLMatcher.validate_grammar(grammar))
    return schema_reason(text) if text and not text.startswith("WARNING") else None


def schema_reason(text: str) -> str:
    """llguidance's complaint about a schema in a sentence that names the keyword."""
    at = text.find(_PREFIX)
    if at >= 0:
        names = text[at + len(_PREFIX) :].splitlines()[0].strip("[] ").replace('"', "")
        return f"the schema uses {names}, {_CANNOT}"
    for sign, reason in _REASONS:
        _, found, rest = text.partition(sign)
        if found:
            return f"{reason.format(rest=rest.split(';')[0].strip())}, {_CANNOT}"
    return text


def _check_depth(schema: Any) -> None:
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > 3 * MAX_DEPTH:
            raise ConstraintError(f"the schema nests deeper than {3 * MAX_DEPTH} levels")
        following: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                if not all(isinstance(key, str) for key in item):
                    raise ConstraintError("the schema is not JSON: a key is not text")
                following += item.values()
            elif isinstance(item, (list, tuple)):
                following += item
        if len(following) > MAX_BYTES:
            raise ConstraintError("the schema is too large")
        level = following


def _schemas(root: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside, with a pointer to it."""
    stack: list[tuple[str, Any, bool]] = [("#", root, True)]
    while stack:
        where, item, is_schema = stack.pop()
        if isinstance(item, dict):
            if is_schema:
                yield where, item
            for key, value in item.items():
                if is_schema and key in _DATA:
                    continue
                stack.append((f"{where}/{key}", value, not (is_schema and key in _MAPS)))
        elif isinstance(item, list):
            stack += [(f"{where}/{i}", value, True) for i, value in enumerate(item)]


def _check_node(where: str, node: Mapping[str, Any]) -> None:
    for name in _UNCHECKED:
        if name in node:
            raise ConstraintError(f"the schema uses {name} at {where:.80}, {_CANNOT}")
    reference = node.get("$ref")
    if isinstance(reference, str) and _points_into_data(reference):
        raise ConstraintError(f"the schema uses $ref to {reference!r:.80}, which is no schema")
    if "$ref" in node and "$id" in node:
        raise ConstraintError(
            f"the schema has $id beside $ref at {where:.80}, which drafts read differently"
        )
    for name in ("const", "enum", "required"):
        _check_writable(where, node.get(name))
    properties = node.get("properties")
    if isinstance(properties, Mapping):
        _check_writable(where, list(properties))
    if isinstance(properties, Mapping) and len(properties) > MAX_PROPERTIES:
        raise ConstraintError(
            f"the schema has {len(properties):,} properties at {where:.80}; {MAX_PROPERTIES:,} are "
            "the most"
        )


def _points_into_data(reference: str) -> bool:
    parts = unquote(reference.partition("#")[2]).split("/")
    pairs = zip(["", *parts], parts, strict=False)
    return any(part in _DATA and before not in _MAPS for before, part in pairs)


def _check_writable(where: str, value: Any) -> None:
    """Texts an answer must hold are made of characters that it can hold."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str) and not all(map(is_writable, item)):
            raise ConstraintError(
                f"the schema has {item!r:.60} at {where:.80}, with a character that an answer "
                "cannot hold"
            )
        if isinstance(item, dict):
            stack += [*item, *item.values()]
        elif isinstance(item, list):
            stack += item
