# SPDX-License-Identifier: Apache-2.0
"""Numbers out of a model's metadata, each checked before anybody uses it.

Knows types, ranges and how to name the offending key; knows no key and no architecture. JSON
and GGUF values look alike here. ``None`` counts as absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from freehold.errors import MalformedFileError

MAX_INT = 2**31 - 1  # positions, widths and counts travel as 32-bit integers


def shown(value: object) -> str:
    """`value` for a message: its repr, cut short because a file may hold anything."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, slots=True)
class Fields:
    """Typed access to a mapping; every failure is a MalformedFileError naming file and key."""

    values: Mapping[str, Any]
    where: str  # the file, for messages
    prefix: str = ""  # put before every key: "llama."

    def __contains__(self, key: str) -> bool:
        return self.values.get(self.prefix + key) is not None

    def get(self, key: str) -> Any:
        return self.values.get(self.prefix + key)

    def bad(self, key: str, rule: str) -> MalformedFileError:
        """The error for `key`; `rule` completes the sentence "KEY must be ..."."""
        value = self.get(key)
        if value is None:
            return MalformedFileError(f"{self.where}: {self.prefix}{key} is missing")
        return MalformedFileError(
            f"{self.where}: {self.prefix}{key} must be {rule}, not {shown(value)}"
        )

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = MAX_INT
    ) -> int:
        """A whole number within [low, high]; a list of equal numbers, one per layer, counts."""
        value = self.get(key)
        if value is None:
            if default is None:
                raise self.bad(key, "")
            return default
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if isinstance(value, list | tuple) and value:
            if any(other != value[0] for other in value[1:]):
                raise self.bad(key, "the same in every layer")
            value = value[0]
        whole = _whole(value)
        if whole is None or not low <= whole <= high:
            raise self.bad(key, f"a whole number from {low} to {high}")
        return whole

    def integers(
        self, key: str, count: int, default: int | None = None, *, low: int = 1, high: int = MAX_INT
    ) -> tuple[int, ...]:
        """`count` whole numbers within [low, high]: a list, one per layer, or one for all."""
        value = self.get(key)
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list | tuple):
            return (self.integer(key, default, low=low, high=high),) * count
        numbers = [_whole(one) for one in value]
        if len(numbers) != count or any(n is None or not low <= n <= high for n in numbers):
            raise self.bad(key, f"{count} whole numbers from {low} to {high}, one per layer")
        return tuple(n for n in numbers if n is not None)

    def number(
        self, key: str, default: float | None = None, *, above: float = 0.0, high: float = 1e12,
        zero: bool = False,
    ) -> float:  # fmt: skip
        """A finite number greater than `above` and at most `high`, or with `zero` also 0."""
        value = self.get(key)
        if value is None:
            if default is None:
                raise self.bad(key, "")
            return default
        if isinstance(value, bool | np.bool_) or not isinstance(
            value, int | float | np.integer | np.floating
        ):
            raise self.bad(key, "a number")
        try:
            result = float(value)
        except OverflowError:  # JSON allows integers of any length
            result = math.inf
        if not (math.isfinite(result) and (above < result <= high or (zero and result == 0.0))):
            least = "of 0 or more" if zero else f"above {above:g}"
            raise self.bad(key, f"a number {least} and at most {high:g}")
        return result

    def boolean(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool | np.bool_):
            raise self.bad(key, "true or false")
        return bool(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.get(key)
        if value is None:
            if default is None:
                raise self.bad(key, "")
            return default
        if not isinstance(value, str):
            raise self.bad(key, "text")
        return value

    def table(self, key: str) -> Fields | None:
        """A nested mapping, or None where it is absent or empty."""
        value = self.get(key)
        if value is None or value == {}:
            return None
        if not isinstance(value, Mapping):
            raise self.bad(key, "a table")
        return Fields(value, f"{self.where}: {self.prefix}{key}")


def _whole(value: object) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value)
    # Some configs write 8192.0.
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    return None
