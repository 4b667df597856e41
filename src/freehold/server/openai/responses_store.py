# SPDX-License-Identifier: Apache-2.0
"""Responses that can be asked for again: in memory, per key, for a while.

Bounded in bytes, number and age for each key; the oldest that is over goes first. Everything is
kept as JSON in UTF-8, so that what is counted is what is used. A response of another key does not
exist. Knows nothing of how responses are written.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from freehold.server.failures import RequestError

MAX_RUNNING = 64  # in the background, per key


@dataclass(slots=True, eq=False)
class StoredResponse:
    """One of them. `input` is the JSON of all items the model was given, instructions apart."""

    response_id: str
    owner: str
    input: bytes
    response: bytes = b""  # its JSON, once it is over
    # Background only: how it looks meanwhile, its events as frames, and who writes it.
    snapshot: Callable[[], dict[str, Any]] | None = None
    frames: list[str] = field(default_factory=list)
    streamable: bool = False
    task: asyncio.Task[None] | None = None
    cancel: Callable[[], None] | None = None
    created: float = field(default_factory=time.monotonic)
    size: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        """Whether it is still being written."""
        return not self.response

    def body(self) -> dict[str, Any]:
        """The response as it is now."""
        if self.running and self.snapshot is not None:
            return self.snapshot()
        body: dict[str, Any] = json.loads(self.response)
        return body

    def items(self) -> list[dict[str, Any]]:
        """What the model was given, instructions apart."""
        items: list[dict[str, Any]] = json.loads(self.input)
        return items

    def tell(self, frame: str) -> None:
        """One more event for whoever listens, now or later."""
        self.frames.append(frame)
        self.notify()

    def notify(self) -> None:
        """Wake those who listen."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def listen(self, after: int) -> AsyncGenerator[str, None]:
        """Frames of the events whose sequence number is above `after`, until the last."""
        position = after + 1
        while True:
            changed = self._changed
            while position < len(self.frames):
                yield self.frames[position]
                position += 1
            if not self.running:
                return
            await changed.wait()


class ResponseStore:
    """All methods belong to one event loop."""

    def __init__(self, *, max_bytes: int, max_count: int, max_age: float) -> None:
        """Bounds for each key: bytes of JSON, responses, seconds."""
        self.max_bytes = max_bytes
        self._max_count = max_count
        self._max_age = max_age
        self._kept: dict[str, OrderedDict[str, StoredResponse]] = {}

    def put(self, record: StoredResponse) -> None:
        """Keep one, or count anew what has grown; others may have to go."""
        self._expire()
        kept = self._kept.setdefault(record.owner, OrderedDict())
        record.size = (
            len(record.input) + len(record.response) + sum(len(frame) for frame in record.frames)
        )
        kept[record.response_id] = record
        total = sum(each.size for each in kept.values())
        for each in list(kept.values()):
            if total <= self.max_bytes and len(kept) <= self._max_count:
                break
            if not each.running and each is not record:
                total -= each.size
                del kept[each.response_id]

    def get(self, owner: str, response_id: str) -> StoredResponse:
        """Raises RequestError (not_found)."""
        self._expire()
        record = self._of(owner).get(response_id)
        if record is None:
            raise RequestError(
                f"no response is stored as {response_id!r:.80}", kind="not_found",
                param="response_id",
            )  # fmt: skip
        return record

    def delete(self, owner: str, response_id: str) -> None:
        """Forget one; what still runs is stopped. Raises RequestError (not_found)."""
        record = self.get(owner, response_id)
        self.stop(record)
        del self._kept[owner][response_id]

    def stop(self, record: StoredResponse) -> None:
        """End one that runs in the background as cancelled."""
        if record.running and record.cancel is not None:
            record.cancel()

    def finder(self, owner: str) -> Callable[[str], dict[str, Any] | None]:
        """Finds the item of an id in any response of this key, the latest first. It reads each
        response once at most: make one for each request."""
        self._expire()
        left = list(self._of(owner).values())
        known: dict[str, dict[str, Any]] = {}

        def find(item_id: str) -> dict[str, Any] | None:
            while item_id not in known and left:
                record = left.pop()
                output: list[dict[str, Any]] = record.body()["output"]
                for item in output + record.items():
                    known.setdefault(item["id"], item)
            return known.get(item_id)

        return find

    def running(self, owner: str) -> int:
        """How many run in the background."""
        return sum(record.running for record in self._of(owner).values())

    async def close(self) -> None:
        """Stop what runs."""
        records = [record for kept in self._kept.values() for record in kept.values()]
        tasks = [record.task for record in records if record.task is not None]
        for record in records:
            self.stop(record)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _of(self, owner: str) -> dict[str, StoredResponse]:
        return self._kept.get(owner) or {}

    def _expire(self) -> None:
        oldest = time.monotonic() - self._max_age
        for owner, kept in list(self._kept.items()):
            for record in list(kept.values()):
                if record.created > oldest:
                    break
                if not record.running:
                    del kept[record.response_id]
            if not kept:
                del self._kept[owner]
