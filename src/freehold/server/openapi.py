# SPDX-License-Identifier: Apache-2.0
"""The server's OpenAPI document: what FastAPI knows of the routes, and what it cannot know.

Errors are in the words of the dialect whose path it is: their schema is read off the error bodies
that the dialect makes, so a new dialect is described without a word here. Routes that can stream
say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from freehold.server.failures import Failure, FailureKind
from freehold.server.services import Dialect, dialect_of

_ABOUT = """\
A private endpoint for language models on one's own hardware, in the words of several vendors' APIs.
Fields that are not named here are refused by name."""
_MEANINGS: dict[FailureKind, str] = {
    "invalid_request": "the request cannot be answered as it stands",
    "context_length": "prompt and answer do not fit the context",
    "not_found": "no such model or object",
    "unauthenticated": "an API key is needed, or the one shown is not valid",
    "forbidden": "not for whoever asks",
    "too_large": "the body is too large",
    "rate_limited": "a limit of the key is reached: see Retry-After",
    "overloaded": "too much to do: see Retry-After",
    "timeout": "the answer took too long",
    "internal": "the server failed",
}


def document(app: FastAPI, dialects: Sequence[Dialect]) -> dict[str, Any]:
    """The whole document, as JSON."""
    found = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):  # nobody answers so
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    found["security"] = [{}, {"bearer": []}, {"x-api-key": []}]
    for dialect in dialects:
        schemas[_error_name(dialect)] = _error_schema(dialect)
    for path, operations in found["paths"].items():
        dialect = dialect_of(dialects, path)
        for operation in operations.values():
            responses = operation["responses"]
            responses.pop("422", None)
            for status, text in {**_errors(dialect), "default": "any other failure"}.items():
                responses.setdefault(
                    status,
                    {
                        "description": text,
                        "content": {
                            "application/json": {
                                "schema": {"$ref": f"#/components/schemas/{_error_name(dialect)}"}
                            }
                        },
                    },
                )
            if _can_stream(operation, schemas):
                content = responses["200"].setdefault("content", {})
                content.setdefault(dialect.stream_type, {"schema": {"type": "string"}})
    return found


def _error_name(dialect: Dialect) -> str:
    return f"{dialect.name}_error"


def _errors(dialect: Dialect) -> dict[str, str]:
    """Meanings of the statuses that this dialect says no with."""
    meanings: dict[str, list[str]] = {}
    for kind in get_args(FailureKind):
        status = str(dialect.status(Failure(kind, "")))
        meanings.setdefault(status, []).append(_MEANINGS[kind])
    return {status: "; ".join(texts) for status, texts in sorted(meanings.items())}


def _error_schema(dialect: Dialect) -> dict[str, Any]:
    """What every error body of the dialect has in common: fields, and types they can have."""
    return _schema_of(
        [
            dialect.error_body(Failure(kind, "why", param))
            for kind in get_args(FailureKind)
            for param in (None, "model")
        ]
    )


def _schema_of(examples: Sequence[Any]) -> dict[str, Any]:
    if all(isinstance(each, Mapping) for each in examples):
        names = dict.fromkeys(name for each in examples for name in each)
        return {
            "type": "object",
            "properties": {
                name: _schema_of([each[name] for each in examples if name in each])
                for name in names
            },
            "required": [name for name in names if all(name in each for each in examples)],
        }
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    found = [*dict.fromkeys(kinds.get(type(each), "object") for each in examples)]
    if len(found) == 1:
        return {"type": found[0]}
    return {"anyOf": [{"type": kind} for kind in found]}


def _can_stream(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = body.get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    return "stream" in schemas.get(name, schema).get("properties", {})
