# SPDX-License-Identifier: Apache-2.0
"""How values are asked for so that each can show where it was read.

A schema of what somebody wants is planned as a tree: objects, lists and leaves. A leaf is *copied*
from the text (plain strings, addresses), read from copied words (*number*, *date*), *quoted*
(anything else: the words it is taken from, and the value beside them) or *free* (no evidence asked
for). ``"x-evidence"`` in a schema chooses: "copy", "quote" or "none". The plan gives the schema of
the answer a model writes, the form shown to it, and what an answer comes to. Knows no model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from freehold.chat.grounded_json import IN_TEXT
from freehold.chat.json_patterns import library_pattern
from freehold.documents import written
from freehold.errors import ConstraintError

Kind = Literal["copied", "number", "date", "quoted", "free"]

_MAX_NODES = 500
_MAX_DEPTH = 24
_TOKENS = {"copied": 48, "number": 24, "date": 32, "quoted": 96, "free": 64}
_OBJECT_WORDS = {
    "type", "properties", "required", "additionalProperties", "title", "description", "default",
    "$defs", "definitions", "$schema", "$id", "examples", "x-evidence", "propertyOrdering",
}  # fmt: skip
_LIST_WORDS = {
    "type", "items", "minItems", "maxItems", "title", "description", "default", "examples",
    "x-evidence", "uniqueItems",
}  # fmt: skip
_COPIED_FORMATS = {  # of strings that stand in a text as they are
    "email": r"[\p{L}\p{Nd}._%+'-]{1,64}@[\p{L}\p{Nd}.-]{1,190}\.\p{L}{2,24}",
    "uri": r"https?://[^\s<>]{1,500}",
}
_NULL = {"type": "null"}
# Nothing outside of groups and classes that an anchor could bind to one side of.
_ANCHORED = re.compile(r"\^((?:\\.|\[(?:\\.|[^\]\\])+\]|\((?:\\.|[^()\\])*\)|[^()\[\]|^$\\])+)\$")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value. `schema` allows no null; `nullable` says whether null will do."""

    kind: Kind
    schema: Mapping[str, Any]
    nullable: bool


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """Named values, those in `required` in any case."""

    properties: Mapping[str, Plan]
    required: frozenset[str]
    nullable: bool
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ListPlan:
    """Any number of values of one kind."""

    item: Plan
    nullable: bool
    schema: Mapping[str, Any]


Plan = Leaf | ObjectPlan | ListPlan


def plan(schema: Mapping[str, Any], *, evidence: bool = True) -> ObjectPlan:
    """The plan of a JSON Schema of an object. Raises ConstraintError for any other, and for one
    that refers to itself or has more than 500 parts."""
    found = _Planner(schema, evidence).node(schema, (), 0)
    if not isinstance(found, ObjectPlan) or found.nullable:
        raise ConstraintError(
            "what is extracted is an object with named properties",
            hint='give a JSON Schema of type "object" with properties, or --fields',
        )
    return found


class _Planner:
    def __init__(self, root: Mapping[str, Any], evidence: bool) -> None:
        self._root = root
        self._evidence = evidence
        self._count = 0

    def node(self, schema: Any, seen: tuple[str, ...], depth: int) -> Plan:
        self._count += 1
        if self._count > _MAX_NODES or depth > _MAX_DEPTH:
            raise ConstraintError(f"the schema has more than {_MAX_NODES} parts or nests too deep")
        schema, nullable, seen = self._settled(schema, seen)
        wish = schema.get("x-evidence")
        if wish not in (None, "copy", "quote", "none"):
            raise ConstraintError(f"x-evidence is copy, quote or none, not {wish!r:.40}")
        whole = wish in ("quote", "none")
        if not whole and schema.get("type") == "object" and _is_object(schema):
            properties = {
                name: self.node(inner, seen, depth + 1)
                for name, inner in schema["properties"].items()
            }
            required = frozenset(schema.get("required", ())) & set(properties)
            return ObjectPlan(properties, required, nullable, schema)
        if not whole and schema.get("type") == "array" and _is_list(schema):
            item = self.node(schema["items"], seen, depth + 1)
            return ListPlan(item, nullable, schema)
        return Leaf(self._kind(schema, wish), self._closed(schema, seen), nullable)

    def _kind(self, schema: Mapping[str, Any], wish: str | None) -> Kind:
        if not self._evidence or wish == "none":
            return "free"
        if wish == "quote":
            return "quoted"
        kind = schema.get("type")
        bare = "pattern" not in schema or _whole_pattern(schema) is not None
        if bare and not {"enum", "const"} & schema.keys():
            if kind == "string" and schema.get("format", "email") in _COPIED_FORMATS:
                return "copied"
            if kind == "string" and schema.get("format") == "date":
                return "date"
            if kind in ("number", "integer"):
                return "number"
        if wish == "copy":
            raise ConstraintError("only strings, numbers and dates can be copied from a text")
        return "quoted"

    def _settled(
        self, schema: Any, seen: tuple[str, ...]
    ) -> tuple[Mapping[str, Any], bool, tuple[str, ...]]:
        """A schema without references and without null, and whether it allowed null."""
        nullable = False
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, Mapping):
                return ({} if schema is True else {"not": {}}), nullable, seen
            reference = schema.get("$ref")
            if isinstance(reference, str):
                if reference in seen:
                    raise ConstraintError(f"the schema refers to itself at {reference!r:.80}")
                seen = (*seen, reference)
                beside = {name: value for name, value in schema.items() if name != "$ref"}
                schema = {**self._target(reference), **beside}
                continue
            kinds = schema.get("type")
            if isinstance(kinds, list) and "null" in kinds:
                nullable = True
                rest = [kind for kind in kinds if kind != "null"]
                schema = {**schema, "type": rest[0] if len(rest) == 1 else rest}
                if None in schema.get("enum", ()):
                    schema = {**schema, "enum": [v for v in schema["enum"] if v is not None]}
                continue
            name = next((n for n in ("anyOf", "oneOf", "allOf") if n in schema), None)
            choices = schema.get(name, ()) if name else ()
            if name in ("anyOf", "oneOf") and _NULL in choices:
                nullable = True
                choices = [choice for choice in choices if choice != _NULL]
                schema = {**schema, name: choices}
            if name and isinstance(choices, Sequence) and len(choices) == 1:
                rest_of = {key: value for key, value in schema.items() if key != name}
                if not isinstance(choices[0], Mapping):
                    return schema, nullable, seen
                schema = {**choices[0], **rest_of}
                continue
            return schema, nullable, seen
        raise ConstraintError("the schema refers from one place to another without end")

    def _target(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        if not reference.startswith("#"):
            raise ConstraintError(f"the schema refers to {reference!r:.80}, outside itself")
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(found, Mapping):
            raise ConstraintError(f"the schema refers to {reference!r:.80}, which is not there")
        return found

    def _closed(self, schema: Mapping[str, Any], seen: tuple[str, ...]) -> Mapping[str, Any]:
        """A leaf's schema with what it may refer to."""
        definitions = {
            name: self._root[name] for name in ("$defs", "definitions")
            if name in self._root and '"$ref"' in json.dumps(schema)
        }  # fmt: skip
        return {name: v for name, v in {**schema, **definitions}.items() if name != "x-evidence"}


def _whole_pattern(schema: Mapping[str, Any]) -> str | None:
    """A pattern of a schema that is about a whole string, as the grammar library reads it, without
    its anchors; None for any other."""
    pattern = schema.get("pattern")
    if not isinstance(pattern, str) or "format" in schema:
        return None
    found = _ANCHORED.fullmatch(pattern)
    return None if found is None else library_pattern(found[1])


def _is_object(schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties")
    return isinstance(properties, Mapping) and bool(properties) and schema.keys() <= _OBJECT_WORDS


def _is_list(schema: Mapping[str, Any]) -> bool:
    return isinstance(schema.get("items"), Mapping) and schema.keys() <= _LIST_WORDS


# -- the answer's schema --------------------------------------------------------------------------


def answer_schema(
    node: Plan, *, lenient: bool = False, optional: bool = False, most: int | None = None
) -> dict[str, Any]:
    """The schema of what a model writes. `lenient`: null will do for anything, as in a piece of a
    document; `optional`: for this one. `most` bounds lists, which a model might never end."""
    found: dict[str, Any]
    if isinstance(node, ObjectPlan):
        inner = {
            name: answer_schema(
                child, lenient=lenient, optional=name not in node.required, most=most
            )
            for name, child in node.properties.items()
        }
        found = _exactly(inner)
    elif isinstance(node, ListPlan):
        found = {"type": "array", "items": answer_schema(node.item, most=most)}
        if not lenient and "minItems" in node.schema:
            found["minItems"] = node.schema["minItems"]
        bounds = [bound for bound in (node.schema.get("maxItems"), most) if bound is not None]
        if bounds:
            found["maxItems"] = max(min(bounds), found.get("minItems", 0))
        return {"anyOf": [_NULL, found]} if node.nullable else found
    else:
        found = _leaf_schema(node)
    can_be_null = node.nullable or lenient or optional
    return {"anyOf": [_NULL, found]} if can_be_null else found


def _leaf_schema(leaf: Leaf) -> dict[str, Any]:
    copied: dict[str, Any] = {"type": "string", IN_TEXT: True}
    if leaf.kind == "number":
        return {**copied, IN_TEXT: written.NUMBER_SHAPE}
    if leaf.kind == "date":
        return {**copied, IN_TEXT: written.DATE_SHAPE}
    if leaf.kind == "copied":
        shape = _COPIED_FORMATS.get(leaf.schema.get("format", "")) or _whole_pattern(leaf.schema)
        limits = {k: leaf.schema[k] for k in ("minLength", "maxLength") if k in leaf.schema}
        return {**copied, **limits, **({} if shape is None else {IN_TEXT: shape})}
    if leaf.kind == "quoted":
        quote = {"anyOf": [_NULL, copied]}
        return _exactly({"quote": quote, "value": dict(leaf.schema)})
    return dict(leaf.schema)


def _exactly(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# -- what a model is shown ------------------------------------------------------------------------


def flat_names(root: ObjectPlan) -> list[str] | None:
    """The names, where all that is asked for are plain values by name: no model needs more said."""
    plain = all(
        isinstance(node, Leaf) and "description" not in node.schema
        and (node.kind in ("copied", "number", "date") or _is_text(node))
        for node in root.properties.values()
    )  # fmt: skip
    return list(root.properties) if plain else None


def _is_text(leaf: Leaf) -> bool:
    """Whether any text will do, from the document or not."""
    return leaf.kind == "free" and set(leaf.schema) == {"type"} and leaf.schema["type"] == "string"


def form(node: Plan) -> Any:
    """The answer's form as JSON with words where values go."""
    if isinstance(node, ObjectPlan):
        return {name: form(child) for name, child in node.properties.items()}
    if isinstance(node, ListPlan):
        return [form(node.item)]
    about = node.schema.get("description") or ""
    what = {
        "copied": "copied text", "number": "number as written", "date": "date as written",
    }.get(node.kind) or _value_words(node.schema)  # fmt: skip
    words = f"{what}: {about}" if about else what
    if node.kind == "quoted":
        return {"quote": "the words it is taken from, or null", "value": words}
    return words


def _value_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(v, ensure_ascii=False) for v in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    kind = schema.get("type")
    if kind == "boolean":
        return "true or false"
    if kind in ("string", "number", "integer"):
        return " ".join(filter(None, (kind, schema.get("format"), schema.get("pattern"))))
    return json.dumps(dict(schema), ensure_ascii=False)


def answer_tokens(node: Plan) -> tuple[int, bool]:
    """Tokens an answer may take without its lists, and whether it has lists."""
    if isinstance(node, ObjectPlan):
        parts = [answer_tokens(child) for child in node.properties.values()]
        names = sum(8 + len(name) // 2 for name in node.properties)
        return names + sum(part for part, _ in parts), any(lists for _, lists in parts)
    if isinstance(node, ListPlan):
        return answer_tokens(node.item)[0], True
    return _TOKENS[node.kind], False
