# SPDX-License-Identifier: Apache-2.0
"""What one rendering may cost: processor time, bytes made, size of a value, call depth.

Counts and refuses; knows nothing about Jinja.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

MAX_SECONDS = 0.5  # processor time of the rendering thread; real templates take milliseconds
SECONDS_PER_CHARACTER = 1e-7  # more for long input: 0.1 s per million characters
MAX_VALUE = 2_000_000  # characters and items one value may hold, plus 4 per input character
MAX_TOTAL = 256_000_000  # bytes made in all (most are freed again), plus 64 per input character
_ITEM_BYTES = 8
MAX_DEPTH = 100  # nested calls


class LimitExceeded(Exception):
    """The template needs more than it may have."""


class Budget:
    """Spent by one rendering in one thread."""

    def __init__(self, *, max_seconds: float = MAX_SECONDS) -> None:
        self._deadline = time.thread_time() + max_seconds
        self._seconds = max_seconds
        self._total = 0
        self._depth = 0
        self.max_value = MAX_VALUE
        self.max_total = MAX_TOTAL
        # Expanded size of each container seen. Holding the container keeps its id its own.
        self._weights: dict[int, tuple[Any, int]] = {}

    def start(self, given: Any) -> int:
        """Widen the limits by the size of the caller's own input, and start the clock."""
        size = self.weigh(given)
        self.max_value += 4 * size
        self.max_total += 64 * size
        self._seconds += size * SECONDS_PER_CHARACTER
        self._deadline = time.thread_time() + self._seconds
        return size

    def tick(self) -> None:
        """Check the time."""
        if time.thread_time() > self._deadline:
            raise LimitExceeded(f"it runs longer than {self._seconds:.2g} s")

    def charge(self, size: int) -> None:
        """Count bytes made."""
        self._total += size
        if self._total > self.max_total:
            raise LimitExceeded(f"it makes more than {self.max_total >> 20} MiB of text")

    def charge_text(self, text: str) -> None:
        """Count a string made."""
        self.charge(len(text) if text.isascii() else 4 * len(text))

    def allow(self, size: int) -> None:
        """Refuse a value of this size before it is made."""
        if size > self.max_value:
            raise LimitExceeded(f"a value would hold more than {self.max_value} characters")

    def allow_replace(self, text: str, old: str, new: str) -> None:
        """Refuse a replacement whose result would be too long."""
        if len(new) > len(old):
            self.allow(len(text) + text.count(old) * (len(new) - len(old)))

    @contextmanager
    def nested(self) -> Iterator[None]:
        """One call deeper."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LimitExceeded(f"calls nest deeper than {MAX_DEPTH}")
        try:
            yield
        finally:
            self._depth -= 1

    def weigh(self, value: Any) -> int:
        """Size when written out: characters of all strings plus one per item, shared or not."""
        if isinstance(value, str):
            return 1 + len(value)
        if not isinstance(value, (list, tuple, dict)):
            return 1
        known = self._weights.get(id(value))
        if known is not None:
            return known[1]
        weight = 1
        if isinstance(value, dict):
            for key, item in value.items():
                weight += self.weigh(key) + self.weigh(item)
        else:
            for item in value:
                weight += self.weigh(item)
        self._weights[id(value)] = (value, weight)
        return weight

    def weigh_new(self, value: Any) -> None:
        """Count a value just made, and refuse one that is too large."""
        if isinstance(value, str):
            self.allow(len(value))
            self.charge_text(value)
        elif isinstance(value, (list, tuple, dict)) and id(value) not in self._weights:
            self.allow(len(value))
            self.allow(self.weigh(value))
            self.charge(_ITEM_BYTES * len(value))

    def weigh_part(self, part: Any, whole: Any) -> None:
        """Count a slice; it weighs no more than what it was cut from."""
        if isinstance(part, (list, tuple)) and isinstance(whole, (list, tuple)):
            self._weights[id(part)] = (part, self.weigh(whole))
            self.charge(_ITEM_BYTES * len(part))
        else:
            self.weigh_new(part)

    def text(self, value: Any) -> str:
        """`str(value)`, refused where that would be too long."""
        if type(value) is str:
            return value
        if isinstance(value, (list, tuple, dict)):
            self.allow(self.weigh(value))
        return str(value)

    def joined(self, separator: str, parts: Sequence[str]) -> str:
        """`separator.join(parts)` within the limits."""
        self.allow(sum(map(len, parts)) + len(separator) * max(0, len(parts) - 1))
        result = separator.join(parts)
        self.charge_text(result)
        return result


def plain(value: Any) -> Any:
    """A copy of caller data in plain dicts and lists; other objects are passed on."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
