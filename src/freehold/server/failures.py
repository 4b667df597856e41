# SPDX-License-Identifier: Apache-2.0
"""Errors as a server tells them: status, kind and sentence; how a body looks is its dialect's.

Knows the error tree. Whatever is not in it is a bug: the client learns no detail of it, the log
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from freehold.errors import (
    CapacityError,
    ContextLengthError,
    FreeholdError,
    ModelNotFoundError,
    PolicyError,
    UserError,
)

FailureKind = Literal[
    "invalid_request",
    "context_length",
    "not_found",
    "unauthenticated",
    "forbidden",
    "too_large",
    "rate_limited",
    "overloaded",
    "timeout",
    "internal",
]

STATUS: dict[FailureKind, int] = {
    "invalid_request": 400,
    "context_length": 400,
    "not_found": 404,
    "unauthenticated": 401,
    "forbidden": 403,
    "too_large": 413,
    "rate_limited": 429,
    "overloaded": 503,
    "timeout": 504,
    "internal": 500,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request is not answered."""

    kind: FailureKind
    message: str
    param: str | None = None  # the field of the request that is to blame
    retry_after: int | None = None  # seconds
    status_code: int | None = None  # where it differs from the kind's own

    def __post_init__(self) -> None:
        # Names of fields come from the client, and may hold what cannot be sent back.
        for name in ("message", "param"):
            text = getattr(self, name)
            if isinstance(text, str) and not text.isascii():
                text = text.encode("utf-8", "backslashreplace").decode()
                object.__setattr__(self, name, text)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.status_code or STATUS[self.kind]


class RequestError(UserError):
    """A request that cannot be answered as it stands. `param` names the field to blame."""

    def __init__(
        self, message: str, *, param: str | None = None, kind: FailureKind = "invalid_request",
        hint: str | None = None, retry_after: int | None = None, status_code: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message, hint=hint)
        self.param, self.kind, self.retry_after = param, kind, retry_after
        self.status_code = status_code


def invalid_field(first: Mapping[str, Any]) -> Failure:
    """What pydantic found wrong with a body (the first of its `errors`), by the field's name."""
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    if first["type"] == "json_invalid":
        return Failure("invalid_request", "the body is not valid JSON")
    if first["type"] == "extra_forbidden":
        return Failure("invalid_request", f"unknown parameter: {where!r:.120}", where[:120])
    return Failure(
        "invalid_request", f"{where or 'body'}: {first['msg']}"[:500], where[:120] or None
    )


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


def failure_of(error: BaseException) -> Failure:
    """How an exception is told to the client."""
    if isinstance(error, RequestError):
        return Failure(error.kind, str(error), error.param, error.retry_after, error.status_code)
    if isinstance(error, ContextLengthError):
        return Failure("context_length", str(error))
    if isinstance(error, ModelNotFoundError):
        return Failure("not_found", str(error), "model")
    if isinstance(error, PolicyError):
        return Failure("forbidden", error.message, "model")  # the hint is for who runs the server
    if isinstance(error, UserError):
        return Failure("invalid_request", str(error))
    if isinstance(error, CapacityError):
        return Failure("overloaded", str(error), retry_after=1)
    if isinstance(error, FreeholdError):
        return Failure("internal", error.message)
    return Failure("internal", "the server failed; its log says why")
