# SPDX-License-Identifier: Apache-2.0
"""Jinja's filters and tests under a budget, and the ones chat templates add.

`tojson` and `from_json` follow what the templates were written against: plain JSON, non-ASCII
characters kept, nothing escaped for HTML. Knows nothing about rewriting or attribute access.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import pass_environment
from jinja2.environment import Environment
from jinja2.filters import make_attrgetter

from freehold.chat.budget import Budget, LimitExceeded

Function = Callable[..., Any]

_ABSENT = ("urlize", "random", "pprint", "xmlattr")  # slow on long input, or not repeatable
_MAX_ITERATED = 200_000  # items a filter written in Python may walk
_MAX_SLOW_TEXT = 200_000  # characters for filters that run regular expressions over their text
_SLOW_TEXT = frozenset({"wordwrap", "title", "striptags", "wordcount", "urlencode", "truncate"})
_TEXT = _SLOW_TEXT | {
    "string", "safe", "upper", "lower", "trim", "replace", "capitalize", "escape", "e",
    "forceescape", "center", "indent", "format", "reverse",
}  # fmt: skip
_WALKING = frozenset({
    "map", "select", "reject", "selectattr", "rejectattr", "groupby", "sort", "unique", "batch",
    "slice", "min", "max", "list", "join", "sum", "dictsort", "reverse", "items",
})  # fmt: skip
# Whole-number arguments (position after the value, name, largest size) that decide how much
# a filter makes.
_SIZES: dict[str, tuple[tuple[int, str, int], ...]] = {
    "center": ((0, "width", 100_000),),
    "indent": ((0, "width", 1_000),),
    "batch": ((0, "linecount", 10_000),),
    "slice": ((0, "slices", 10_000),),
    "round": ((0, "precision", 64),),
    "wordwrap": ((0, "width", 1_000_000),),
}


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 0


def _check(budget: Budget, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse a filter call that would walk, scan or make too much."""
    budget.tick()
    value = args[0] if args else None
    if name in _WALKING and _size(value) > _MAX_ITERATED:
        raise LimitExceeded(f"the filter {name} gets more than {_MAX_ITERATED} items")
    if name in _TEXT and isinstance(value, (list, tuple, dict)):
        budget.allow(budget.weigh(value))
    if name in _SLOW_TEXT and _size(value) > _MAX_SLOW_TEXT:
        raise LimitExceeded(f"the filter {name} gets more than {_MAX_SLOW_TEXT} characters")
    for position, keyword, largest in _SIZES.get(name, ()):
        size = args[1 + position] if len(args) > 1 + position else kwargs.get(keyword, 0)
        length = abs(size) if isinstance(size, int) else _size(size)
        if length > largest:
            raise LimitExceeded(f"the filter {name} is asked for a size of {length}")
        if name == "indent" and isinstance(value, str):
            budget.allow(len(value) + (value.count("\n") + 1) * length)


def guarded_filters(filters: Mapping[str, Function], budget: ContextVar[Budget]) -> dict[str, Any]:
    """Jinja's filters, each checked before and counted after."""
    own = _own_filters(budget)
    chosen = {name: f for name, f in {**filters, **own}.items() if name not in _ABSENT}

    def guard(name: str, function: Function) -> Function:
        skip = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            current = budget.get()
            _check(current, name, args[skip:], kwargs)
            result = function(*args, **kwargs)
            current.weigh_new(result)
            return result

        return guarded

    return {name: guard(name, function) for name, function in chosen.items()}


def guarded_tests(tests: Mapping[str, Function], budget: ContextVar[Budget]) -> dict[str, Any]:
    """Jinja's tests; comparing long values takes time, so the clock is looked at."""

    def guard(function: Function) -> Function:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            budget.get().tick()
            return function(*args, **kwargs)

        return guarded

    return {name: guard(function) for name, function in tests.items()}


def _own_filters(budget: ContextVar[Budget]) -> dict[str, Function]:
    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        width = len(indent) if isinstance(indent, str) else abs(indent or 0)
        if width > 64 or sum(map(len, separators or ())) > 64:
            raise LimitExceeded("tojson is asked for wide indents or separators")
        current = budget.get()
        current.allow(current.weigh(value))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    @pass_environment
    def join(environment: Environment, value: Any, d: Any = "", attribute: Any = None) -> str:
        current = budget.get()
        if attribute is not None:
            value = map(make_attrgetter(environment, attribute), value)
        parts = []
        for item in value:
            parts.append(current.text(item))
            current.charge_text(parts[-1])
        return current.joined(current.text(d), parts)

    @pass_environment
    def total(
        environment: Environment, iterable: Iterable[Any], attribute: Any = None, start: Any = 0
    ) -> Any:
        if attribute is not None:
            iterable = map(make_attrgetter(environment, attribute), iterable)
        numbers = [start, *iterable]
        # Adding lists up one by one copies each again and again.
        if not all(isinstance(n, (int, float)) for n in numbers):
            raise TypeError("the filter sum adds numbers only")
        return sum(numbers)

    def replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
        current = budget.get()
        text, old, new = current.text(value), current.text(old), current.text(new)
        current.allow_replace(text, old, new)
        return text.replace(old, new, -1 if count is None else count)

    @pass_environment
    def format_(environment: Environment, value: Any, *args: Any, **kwargs: Any) -> Any:
        if args and kwargs:
            raise TypeError("the filter format takes positional or keyword values, not both")
        text = budget.get().text(value)
        return environment.call_binop(None, "%", text, kwargs or args)  # type: ignore[attr-defined]

    def from_json(value: Any) -> Any:
        return json.loads(value)

    return {
        "tojson": tojson,
        "join": join,
        "sum": total,
        "replace": replace,
        "format": format_,
        "string": lambda value: value if isinstance(value, str) else budget.get().text(value),
        "from_json": from_json,
    }


_DIRECTIVES = re.compile(r"(?:[^%]|%-?[A-Za-z%])*")


def strftime_now(format: str) -> str:
    """The local time now, written by `format`."""
    # The C library pads fields to a width given in the directive, however large.
    if len(format) > 200 or not _DIRECTIVES.fullmatch(format):
        raise LimitExceeded("strftime_now takes plain directives in at most 200 characters")
    return datetime.datetime.now().strftime(format)
