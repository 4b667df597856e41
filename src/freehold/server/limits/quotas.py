# SPDX-License-Identifier: Apache-2.0
"""How much a key may ask for: requests and tokens a minute, and requests at the same time.

What is allowed a minute flows back evenly, so nobody waits for a minute to turn. What an answer
took is known at its end only; a key may so run up a debt, and waits until it is paid off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from freehold.server.failures import RequestError
from freehold.server.security.keys import ApiKey


@dataclass(slots=True)
class _Bucket:
    """What is left of an amount a minute. It is full at first."""

    level: float = math.inf
    at: float = 0.0

    def refill(self, limit: int, now: float) -> float:
        self.level = min(float(limit), self.level + (now - self.at) * limit / 60.0)
        self.at = now
        return self.level


@dataclass(slots=True)
class _Use:
    requests: _Bucket = field(default_factory=_Bucket)
    tokens: _Bucket = field(default_factory=_Bucket)
    running: int = 0


class Quotas:
    """Counts by the name of the key. All methods belong to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def enter(self, key: ApiKey) -> None:
        """Begin a request, which `leave` must end. Raises RequestError (rate_limited)."""
        use, now = self._uses.setdefault(key.name, _Use()), self._clock()
        limit = key.concurrent_requests
        if limit is not None and use.running >= limit:
            raise _slower(f"the key {key.name} may have {limit} requests at a time", 1.0)
        limit = key.tokens_per_minute
        if limit is not None and (level := use.tokens.refill(limit, now)) < 1.0:
            wait = (1.0 - level) * 60.0 / limit
            raise _slower(f"the key {key.name} may use {limit} tokens a minute", wait)
        limit = key.requests_per_minute
        if limit is not None:
            if (level := use.requests.refill(limit, now)) < 1.0:
                wait = (1.0 - level) * 60.0 / limit
                raise _slower(f"the key {key.name} may send {limit} requests a minute", wait)
            use.requests.level -= 1.0
        use.running += 1

    def leave(self, key: ApiKey) -> None:
        """The request is over."""
        self._uses[key.name].running -= 1

    def charge(self, key: ApiKey, tokens: int) -> None:
        """Count tokens that were worked on for the key."""
        limit = key.tokens_per_minute
        if limit is not None:
            bucket = self._uses.setdefault(key.name, _Use()).tokens
            bucket.refill(limit, self._clock())
            bucket.level -= tokens


def _slower(message: str, seconds: float) -> RequestError:
    return RequestError(message, kind="rate_limited", retry_after=max(1, math.ceil(seconds)))
