# SPDX-License-Identifier: Apache-2.0
"""The form of an answer as OpenAI's clients ask for it: ``response_format``, and vLLM's spellings
of what that has no words for (``structured_outputs``, and ``guided_…`` of its older versions).

Knows the fields. What can be kept is decided where grammars are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from freehold.server.failures import RequestError
from freehold.server.services import Body
from freehold.types import Constraint


class StructuredOutputs(Body):
    """vLLM's field: one of its members."""

    json_schema: Any = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None  # Lark
    # beyond vLLM's: a schema whose marked strings are words of a text
    grounded: dict[str, Any] | None = None


class ConstraintFields(Body):
    """Fields of chat and plain completions that say what form an answer must have."""

    response_format: dict[str, Any] | None = None
    # beyond OpenAI's
    structured_outputs: StructuredOutputs | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None

    def constraint(self) -> tuple[Constraint | None, str]:
        """The form, and the field that asked for it; RequestError where several do."""
        found = [
            (one, where)
            for where, one in (
                ("response_format", response_format_constraint(self.response_format)),
                *_structured(self.structured_outputs),
                ("guided_json", _schema(self.guided_json, "guided_json")),
                ("guided_regex", _plain("regex", self.guided_regex)),
                ("guided_choice", _plain("choice", self.guided_choice)),
                ("guided_grammar", _plain("lark", self.guided_grammar)),
            )
            if one is not None
        ]
        if len(found) > 1:
            raise RequestError(
                f"{found[0][1]} and {found[1][1]} each ask for a form of the answer; it has one",
                param=found[1][1],
            )
        return found[0] if found else (None, "response_format")


def response_format_constraint(given: Mapping[str, Any] | None) -> Constraint | None:
    """OpenAI's ``response_format``, or llama.cpp's with a schema beside ``json_object``.

    Raises RequestError for what is neither.
    """
    kind = None if given is None else given.get("type")
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        schema = given.get("schema")
        return Constraint("json") if schema is None else Constraint("json_schema", schema)
    inner = given.get("json_schema")
    if kind == "json_schema" and isinstance(inner, Mapping) and "schema" in inner:
        return Constraint("json_schema", inner["schema"])
    raise RequestError(
        "response_format must be text, json_object, or json_schema with a schema",
        param="response_format",
    )


def _structured(given: StructuredOutputs | None) -> list[tuple[str, Constraint | None]]:
    if given is None:
        return []
    name = "structured_outputs"
    members = [
        (f"{name}.json", _schema(given.json_schema, f"{name}.json")),
        (f"{name}.json_object", Constraint("json") if given.json_object else None),
        (f"{name}.regex", _plain("regex", given.regex)),
        (f"{name}.choice", _plain("choice", given.choice)),
        (f"{name}.grammar", _plain("lark", given.grammar)),
        (f"{name}.grounded", _plain("grounded", given.grounded)),
    ]
    if all(constraint is None for _, constraint in members):
        raise RequestError(
            f"{name} needs one of json, json_object, regex, choice, grammar and grounded",
            param=name,
        )
    return members


def _plain(kind: Any, value: Any) -> Constraint | None:
    return None if value is None else Constraint(kind, value)


def _schema(value: Any, field: str) -> Constraint | None:
    """A schema, which vLLM's clients may also send as JSON text."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{field} is not JSON: {error}", param=field) from None
    return Constraint("json_schema", value)
