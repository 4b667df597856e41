# SPDX-License-Identifier: Apache-2.0
"""What is read from a journal: items with what came of them, counts, runs. Knows no file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from freehold.documents.jobs.items import ErrorInfo

State = Literal["running", "done", "waiting", "cancelled", "interrupted", "failed"]

ROWS = """
SELECT i.position, i.seq, i.id, hex(i.content), i.origin, i.error,
       r.status, r.value, r.error, r.usage, r.seconds, r.attempts
FROM item i LEFT JOIN result r ON r.content = i.content
"""


@dataclass(frozen=True, slots=True)
class Row:
    """An item with what came of it; `status` is "pending" while nothing did."""

    position: int
    seq: int
    id: str
    content_sha256: str | None
    origin: Mapping[str, Any]
    status: Literal["ok", "error", "pending"]
    value: Any
    error: ErrorInfo | None
    usage: Mapping[str, int]
    seconds: float
    attempts: int


class Known(NamedTuple):
    """What a journal knows of an item that is put in."""

    state: Literal["ok", "error", "again", "refused"] | None
    ours: bool  # it came of this run


@dataclass(frozen=True, slots=True)
class Counts:
    """Items of a job by what came of them."""

    items: int
    ok: int
    errors: int

    @property
    def pending(self) -> int:
        """Items that nothing came of yet."""
        return self.items - self.ok - self.errors


@dataclass(frozen=True, slots=True)
class Run:
    """One time that somebody worked on the job; `record` is what `record.py` noted."""

    id: int
    started: float
    ended: float | None
    state: State
    record: Mapping[str, Any]
    counts: Mapping[str, Any]


def row_of(raw: Sequence[Any]) -> Row:
    """A row that `ROWS` selected."""
    position, seq, name, content, origin, refusal, status, value, error, usage, seconds, tries = raw
    why = refusal or error
    return Row(
        position, seq, name, content.lower() or None if content else None, json.loads(origin),
        "error" if refusal else status or "pending",
        None if value is None or refusal else json.loads(value),
        None if why is None else ErrorInfo(**json.loads(why)),
        json.loads(usage or "{}"), seconds or 0.0, tries or 0,
    )  # fmt: skip
