# SPDX-License-Identifier: Apache-2.0
"""Who is asking, and what came of it: one record per request, seen from wherever it is handled.

The outermost layer makes the record, whoever learns something writes it in, the log reads it at the
end. Tasks that a request starts see its record too. Knows no HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from freehold.server.security.keys import ApiKey

KEY_NAME = "freehold.key"  # where a scope's state names the API key that was shown


@dataclass(slots=True)
class RequestRecord:
    """What is known of one request. Times are `time.monotonic()`, counts are tokens."""

    id: str = ""
    started: float = field(default_factory=time.monotonic)
    key: ApiKey | None = None  # None: no key is demanded
    over: bool = False  # work may outlast it: a batch, a stored response
    patient: bool = False  # a line of a batch: nobody waits for it
    model: str | None = None
    prompt_tokens: int = 0  # once per answer
    cached_tokens: int = 0
    completion_tokens: int = 0
    queued: float = 0.0  # seconds the first answer waited for its turn
    first_token: float | None = None
    deadline: float | None = None  # the loop's time at which the answer must be over
    on_tokens: Callable[[int], None] | None = None  # told of tokens as they are counted
    keep_texts: bool = False  # the log shall hold what was asked and answered
    prompt: str | None = None
    answers: list[str] = field(default_factory=list)

    def count(self, *, prompt: int = 0, completion: int = 0, cached: int = 0) -> None:
        """Add tokens that were worked on."""
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.cached_tokens += cached
        if self.on_tokens is not None and prompt + completion:
            self.on_tokens(prompt + completion)


_current: ContextVar[RequestRecord | None] = ContextVar("freehold_request", default=None)


def set_current(record: RequestRecord | None) -> None:
    """Everything this task does from now on belongs to `record`."""
    _current.set(record)


def current() -> RequestRecord:
    """The record of the request that is being handled; outside of any, one that nobody reads."""
    return _current.get() or RequestRecord(over=True)


def current_key() -> ApiKey | None:
    """The key of whoever asks; None where none is demanded, and for the server's own work."""
    record = _current.get()
    return None if record is None else record.key


def owner() -> str | None:
    """Whom things belong to that this request stores: the name of its key."""
    key = current_key()
    return None if key is None else key.name


def prefix_salt() -> bytes:
    """Who shares computed prefixes of prompts with this request: those with the same key."""
    key = current_key()
    return b"" if key is None else key.sha256[:64].encode()


def may_use(model: str) -> bool:
    """Whether whoever asks sees and reaches the model of that name."""
    key = current_key()
    return key is None or key.may_use(model)
