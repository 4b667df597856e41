# SPDX-License-Identifier: Apache-2.0
"""What every dialect is handed, and what a dialect is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, ValidationError

from freehold.server.batches import Batches
from freehold.server.failures import Failure, FailureKind, RequestError, invalid_field
from freehold.server.metrics import ServerMetrics
from freehold.server.registry import ModelRegistry
from freehold.server.settings import ServerSettings


@dataclass(slots=True)
class Services:
    """The parts of one running server."""

    settings: ServerSettings
    registry: ModelRegistry
    metrics: ServerMetrics
    batches: Batches
    endpoints: set[str] = field(default_factory=set)  # paths that take a POST
    # What routers want done when the server starts, and before the models go.
    at_start: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    at_end: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A vendor's API: its routes, and how it says no.

    `prefixes` are the paths whose errors are this dialect's; the longest that fits wins.
    """

    name: str
    prefixes: tuple[str, ...]
    router: Callable[[Services], APIRouter]
    error_body: Callable[[Failure], dict[str, Any]]
    statuses: Mapping[FailureKind, int] = field(default_factory=dict)  # where they are its own

    def status(self, failure: Failure) -> int:
        """The HTTP status of a failure in this dialect."""
        return failure.status_code or self.statuses.get(failure.kind) or failure.status


class Body(BaseModel):
    """Base of request bodies: a field nobody knows is refused by name, not dropped; a number in
    quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


_Body = TypeVar("_Body", bound=Body)


def validated(kind: type[_Body], raw: Mapping[str, Any]) -> _Body:
    """A body that came by another way than HTTP, as one of many in a file.

    Raises RequestError by the name of the first field that is wrong.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        failure = invalid_field(error.errors()[0])
        raise RequestError(failure.message, param=failure.param) from None
