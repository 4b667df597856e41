# SPDX-License-Identifier: Apache-2.0
"""Lists in pages: from an id on, in either order, so many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from freehold.server.failures import RequestError

_Item = TypeVar("_Item")
Order = Literal["asc", "desc"]


def page(
    items: Sequence[_Item], key: Callable[[_Item], str], *, after: str | None, limit: int,
    most: int = 100, order: Order = "desc",
) -> tuple[list[_Item], bool]:  # fmt: skip
    """At most `limit` of `items` (oldest first) behind the one called `after`, and whether there
    are more. Raises RequestError by the name of the parameter."""
    if not 1 <= limit <= most:
        raise RequestError(f"limit must be between 1 and {most}, not {limit}", param="limit")
    wanted = list(items) if order == "asc" else list(reversed(items))
    start = 0
    if after is not None:
        ids = [key(item) for item in wanted]
        if after not in ids:
            raise RequestError(f"there is no {after!r:.80} to go on from", param="after")
        start = ids.index(after) + 1
    return wanted[start : start + limit], len(wanted) > start + limit


def list_body(data: Sequence[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """A page as OpenAI's clients read it."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def page_between(
    items: Sequence[_Item], key: Callable[[_Item], str], *, after: str | None, before: str | None,
    limit: int, most: int,
) -> tuple[list[_Item], bool]:  # fmt: skip
    """At most `limit` of `items`, in their order: the first behind `after`, or the last before
    `before`; and whether there are more that way. Raises RequestError by Anthropic's names."""
    if not 1 <= limit <= most:
        raise RequestError(f"limit must be between 1 and {most}", param="limit")
    if after is not None and before is not None:
        raise RequestError("after_id and before_id exclude each other", param="before_id")
    ids = [key(item) for item in items]
    for field, name in (("after_id", after), ("before_id", before)):
        if name is not None and name not in ids:
            raise RequestError(f"{field}: there is no {name!r:.120}", param=field)
    if before is not None:
        rest = list(items[: ids.index(before)])
        return rest[-limit:], len(rest) > limit
    rest = list(items if after is None else items[ids.index(after) + 1 :])
    return rest[:limit], len(rest) > limit
