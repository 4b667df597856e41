# SPDX-License-Identifier: Apache-2.0
"""Batches as they lie on disk: a folder each, with what is known of it in ``batch.json``.

Knows no dialect and runs nothing. A batch of another key does not exist.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from freehold.server.failures import RequestError
from freehold.server.files.disk import Quota, write_atomically

_ID = re.compile(r"[a-z]{3,8}_[0-9a-f]{24}")
OVER = ("completed", "failed", "expired", "cancelled")
MAX_ACTIVE = 100  # batches of one key that are not over
KEPT_SECONDS = 30 * 86400  # that one which is over can be looked up
MAX_KEPT = 1000  # batches of one key; of those that are over the oldest go


@dataclass(slots=True, eq=False)
class Batch:
    """One of them. Times are seconds since 1970; `times` says when a status began."""

    batch_id: str
    kind: str  # the dialect it came by
    owner: str
    endpoint: str
    window: str
    created: int
    expires: int
    status: str = "validating"  # in_progress, cancelling, finalizing, then one of OVER
    ending: str = "completed"  # what it will be once its answers are written together
    times: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    input_file_id: str | None = None
    # Of the files that answers will be written to; drawn before, so that a crash doubles none.
    output_file_id: str | None = None
    error_file_id: str | None = None
    keep_seconds: int = KEPT_SECONDS  # that those files are kept
    errors: list[dict[str, Any]] = field(default_factory=list)
    total: int = 0
    completed: int = 0
    failed: int = 0
    unfinished: int = 0  # lines that were not asked any more
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing of it will change."""
        return self.status in OVER

    def enter(self, status: str) -> None:
        """Begin a status."""
        self.status = status
        self.times[status] = int(time.time())


class BatchStore:
    """Reads the folder once; from then on it alone writes there."""

    def __init__(self, folder: Path, quota: Quota) -> None:
        self.folder, self.quota = folder, quota
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._batches: dict[str, Batch] = {}
        self._sizes: dict[str, int] = {}
        for path in sorted(folder.iterdir()):
            batch = self._read(path)
            if batch is None:
                if path.is_dir() and _ID.fullmatch(path.name):  # never came to be, or is going
                    shutil.rmtree(path, ignore_errors=True)
                continue
            self._batches[batch.batch_id] = batch
            self.measure(batch)

    @staticmethod
    def _read(path: Path) -> Batch | None:
        try:
            batch = Batch(**json.loads((path / "batch.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return batch if batch.batch_id == path.name and _ID.fullmatch(path.name) else None

    def place(self, batch: Batch) -> Path:
        """The folder of a batch."""
        return self.folder / batch.batch_id

    def create(
        self, prefix: str, kind: str, owner: str, endpoint: str, window: str, seconds: int
    ) -> Batch:
        """A new batch with an empty folder. It comes to be by `add`.

        Raises RequestError where too many of the key are not over.
        """
        own = [b for b in list(self._batches.values()) if b.owner == owner]
        done = sorted((b for b in own if b.over), key=lambda b: b.created)
        if len(own) - len(done) >= MAX_ACTIVE:
            raise RequestError(
                f"{MAX_ACTIVE} batches are not over yet", kind="rate_limited", retry_after=60
            )
        for old in done[: max(0, len(own) - MAX_KEPT + 1)]:
            self.remove(old)
        now = int(time.time())
        name = f"{prefix}_{secrets.token_hex(12)}"
        batch = Batch(name, kind, owner, endpoint, window, now, now + seconds)
        self.place(batch).mkdir(mode=0o700)
        return batch

    def discard(self, batch: Batch) -> None:
        """Undo `create`."""
        shutil.rmtree(self.place(batch), ignore_errors=True)

    def add(self, batch: Batch) -> None:
        """Keep it."""
        self.save(batch)
        self._batches[batch.batch_id] = batch
        self.measure(batch)

    def save(self, batch: Batch) -> None:
        """Write down what is known of it. Blocks until it is on disk."""
        write_atomically(self.place(batch) / "batch.json", json.dumps(asdict(batch)).encode())

    def measure(self, batch: Batch) -> None:
        """Count what its folder takes."""
        place = self.place(batch)
        size = sum(path.stat().st_size for path in place.iterdir()) if place.is_dir() else 0
        self.quota.give(self._sizes.get(batch.batch_id, 0))
        self.quota.take(size, anyway=True)
        self._sizes[batch.batch_id] = size

    def grow(self, batch: Batch, count: int) -> None:
        """Count what was added to one of its files."""
        self.quota.take(count, anyway=True)
        self._sizes[batch.batch_id] = self._sizes.get(batch.batch_id, 0) + count

    def get(self, owner: str, kind: str, batch_id: str) -> Batch:
        """Raises RequestError (not_found)."""
        batch = self._batches.get(batch_id)
        if batch is None or (batch.owner, batch.kind) != (owner, kind):
            raise RequestError(
                f"there is no batch {batch_id!r:.80}", kind="not_found", param="batch_id"
            )
        return batch

    def of(self, owner: str, kind: str) -> list[Batch]:
        """Batches of a key and dialect, oldest first."""
        found = [b for b in list(self._batches.values()) if (b.owner, b.kind) == (owner, kind)]
        return sorted(found, key=lambda b: b.created)

    def over(self) -> list[Batch]:
        """Those of which nothing will change."""
        return [batch for batch in list(self._batches.values()) if batch.over]

    def unfinished(self) -> list[Batch]:
        """Those that are not over, oldest first."""
        found = [batch for batch in list(self._batches.values()) if not batch.over]
        return sorted(found, key=lambda b: b.created)

    def remove(self, batch: Batch) -> None:
        """Forget one that is over."""
        del self._batches[batch.batch_id]
        shutil.rmtree(self.place(batch), ignore_errors=True)
        self.quota.give(self._sizes.pop(batch.batch_id, 0))

    def sweep(self) -> None:
        """Remove those that have been over for long."""
        oldest = time.time() - KEPT_SECONDS
        for batch in list(self._batches.values()):
            if batch.over and max(batch.times.values(), default=batch.created) < oldest:
                self.remove(batch)
