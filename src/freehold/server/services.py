# SPDX-License-Identifier: Apache-2.0
"""What every dialect is handed, and what a dialect is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, ValidationError

from freehold.server.batches.service import Batches
from freehold.server.failures import Failure, FailureKind, RequestError, invalid_field
from freehold.server.limits.quotas import Quotas
from freehold.server.models.registry import ModelRegistry
from freehold.server.monitoring.metrics import ServerMetrics
from freehold.server.security.keys import KeyRing
from freehold.server.settings import ServerSettings


@dataclass(slots=True)
class Services:
    """The parts of one running server."""

    settings: ServerSettings
    registry: ModelRegistry
    metrics: ServerMetrics
    batches: Batches
    endpoints: set[str] = field(default_factory=set)  # paths that take a POST
    keys: KeyRing | None = None  # None: nobody needs a key
    quotas: Quotas = field(default_factory=Quotas)
    active: int = 0  # requests that are being answered
    draining: bool = False  # those are finished, no others are taken
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
    untyped_bodies: bool = False  # its users call curl without a header; browsers still may not
    stream_type: str = "text/event-stream"  # what a streamed answer is

    def status(self, failure: Failure) -> int:
        """The HTTP status of a failure in this dialect."""
        return failure.status_code or self.statuses.get(failure.kind) or failure.status


FALLBACK = "openai_chat"  # whose words fit where no dialect's path is


def dialect_of(dialects: Sequence[Dialect], path: str) -> Dialect:
    """Whose words an error on this path is told in."""
    fits = [
        (len(prefix), dialect)
        for dialect in dialects
        for prefix in dialect.prefixes
        if path == prefix or path.startswith(prefix.rstrip("/") + "/")
    ]
    if fits:
        return max(fits, key=lambda item: item[0])[1]
    return next(dialect for dialect in dialects if dialect.name == FALLBACK)


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
