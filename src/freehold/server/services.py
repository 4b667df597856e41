# SPDX-License-Identifier: Apache-2.0
"""What every dialect is handed, and what a dialect is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from freehold.server.failures import Failure
from freehold.server.metrics import ServerMetrics
from freehold.server.registry import ModelRegistry
from freehold.server.settings import ServerSettings


@dataclass(slots=True)
class Services:
    """The parts of one running server."""

    settings: ServerSettings
    registry: ModelRegistry
    metrics: ServerMetrics
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


class Body(BaseModel):
    """Base of request bodies: a field nobody knows is refused by name, not dropped; a number in
    quotes is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)
