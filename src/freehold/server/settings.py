# SPDX-License-Identifier: Apache-2.0
"""What `freehold serve` was told. Plain values; the command line fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server process."""

    models: tuple[str, ...] = ()  # names or paths, each served under its short name
    host: str = "127.0.0.1"
    port: int = 8484
    engine: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `LLM`
    max_waiting: int = 256  # requests waiting per model before "come back later"
    recommended_sampling: bool = True  # the vendor's settings where a request names none
