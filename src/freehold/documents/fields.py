# SPDX-License-Identifier: Apache-2.0
"""What somebody wants extracted, said in one of three ways, as a JSON Schema.

Pairs ``name:type``, a file with a JSON Schema, or a pydantic class ``module:Class``. Importing that
module runs its code: it is the caller's own, never a document's. Knows nothing of plans and models.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from freehold.errors import InvalidParameterError

_MAX_BYTES = 1_000_000  # of a schema file
TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "id": {"type": "string", "pattern": r"^\S*[0-9]\S*$"},  # no blanks, and a digit
    "email": {"type": "string", "format": "email"},
}
_OTHER_NAMES = {"str": "text", "string": "text", "float": "number", "int": "integer",
                "bool": "boolean"}  # fmt: skip


def schema_of_fields(fields: Sequence[str]) -> dict[str, Any]:
    """A schema of values by name, each of which may be null.

    ``name``, ``name:type`` with a type of `TYPES`, ``name:a|b`` for one of some words, and any of
    them with ``[]`` behind it for a list. Raises InvalidParameterError.
    """
    given: Any = fields
    if isinstance(given, str) or not all(isinstance(field, str) for field in given):
        raise InvalidParameterError("fields are a list of names")
    properties: dict[str, Any] = {}
    for field in given:
        name, separator, kind = field.partition(":")
        name = name.strip()
        if not name or name in properties:
            raise InvalidParameterError("fields must be one or more different names")
        properties[name] = _type(name, kind.strip() if separator else "text")
    if not properties:
        raise InvalidParameterError("fields must be one or more different names")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _type(name: str, kind: str) -> dict[str, Any]:
    if kind.endswith("[]"):
        inner = dict(_type(name, kind.removesuffix("[]")))
        inner["type"] = inner["type"][0] if "type" in inner else None
        if inner["type"] is None:
            inner = {"enum": [value for value in inner["enum"] if value is not None]}
        return {"type": "array", "items": inner}
    if "|" in kind:
        words = [word.strip() for word in kind.split("|")]
        if not all(words) or len(set(words)) < len(words):
            raise InvalidParameterError(f"{name}: the words between | must be different words")
        return {"enum": [*words, None]}
    found = TYPES.get(_OTHER_NAMES.get(kind, kind))
    if found is None:
        raise InvalidParameterError(
            f"{name}: there is no type {kind!r:.40}",
            hint=f"types: {', '.join(TYPES)}, a|b|c for one of some words, and any with [] for a "
            "list",
        )
    return {**found, "type": [found["type"], "null"]}


def load_schema(name: str) -> dict[str, Any]:
    """The schema in a JSON file, or of a pydantic class ``module:Class``.

    A module is looked for in the current folder first, as Python does it for scripts. Raises
    InvalidParameterError.
    """
    module, colon, attribute = name.partition(":")
    if colon and not Path(name).exists() and module.replace(".", "").isidentifier():
        return _of_class(module, attribute)
    path = Path(name)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"{name:.200}: {getattr(error, 'strerror', error)}") from None
    if len(data) > _MAX_BYTES:
        raise InvalidParameterError(f"{name:.200}: a schema of more than {_MAX_BYTES:,} bytes")
    try:
        schema = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"{name:.200} is not JSON: {str(error)[:100]}") from None
    if not isinstance(schema, dict):
        raise InvalidParameterError(f"{name:.200} holds no JSON Schema of an object")
    return schema


def _of_class(module: str, attribute: str) -> dict[str, Any]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        schema = found.model_json_schema()
    except Exception as error:  # whatever the module does is its author's to hear of
        raise InvalidParameterError(
            f"{module}:{attribute} is no pydantic class: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    finally:
        sys.path.remove(here)
    if not isinstance(schema, dict):
        raise InvalidParameterError(f"{module}:{attribute} gives no JSON Schema")
    return schema
