# SPDX-License-Identifier: Apache-2.0
"""How many patterns of a schema one text may have to match at once.

Whether several patterns leave any text possible takes time that doubles with each of them, and the
grammar library asks that without looking at a clock. So they are counted first: an upper bound, in
time proportional to the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_EITHER = ("anyOf", "oneOf")
_TOGETHER = ("allOf", *_EITHER)  # about the same value as the schema itself
_ELSEWHERE = ("$defs", "definitions")  # about nothing until something refers to them


def most_patterns_at_once(schema: Mapping[str, Any]) -> int:
    """The bound. What the schema refers to outside itself counts as nothing."""
    counter = _Counter(schema)
    # Children before parents, by a stack of our own: chains of references may be very long.
    stack: list[tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]] = []
    entered: set[int] = set()

    def enter(node: Mapping[str, Any]) -> None:
        if id(node) not in entered:
            entered.add(id(node))
            stack.append((node, counter.below(node)))

    enter(schema)
    while stack:
        node, below = stack[-1]
        following = next(below, None)
        if following is None:
            counter.count(node)
            stack.pop()
        else:
            enter(following)
    return counter.of(schema)


class _Counter:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._counts: dict[int, int] = {}  # by identity; those in a circle are 0 until known

    def of(self, node: Any) -> int:
        return self._counts.get(id(node), 0)

    def below(self, node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The schemas a node is made of."""
        for value in node.values():
            if isinstance(value, Mapping):
                yield value  # a schema, or a map of them
            elif isinstance(value, list):
                yield from (item for item in value if isinstance(item, Mapping))
        target = self._target(node)
        if target is not None:
            yield target

    def count(self, node: Mapping[str, Any]) -> None:
        own = ("pattern" in node) + ("format" in node)
        inside = 0
        for name, value in node.items():
            if isinstance(value, Mapping) and name not in _ELSEWHERE:
                inside = max(inside, self.of(value))
            elif isinstance(value, list) and name not in _TOGETHER:
                inside = max([inside, *map(self.of, value)])
        # A property named and one that fits a pattern may be the same.
        patterned = node.get("patternProperties")
        if isinstance(patterned, Mapping):
            inside += sum(self.of(item) for item in patterned.values())
        total = max(own, inside)
        all_of = node.get("allOf")
        total += sum(self.of(item) for item in all_of) if isinstance(all_of, list) else 0
        for name in _EITHER:
            found = node.get(name)
            if isinstance(found, list):
                total += max((self.of(item) for item in found), default=0)
        target = self._target(node)
        self._counts[id(node)] = total + (0 if target is None else self.of(target))

    def _target(self, node: Mapping[str, Any]) -> Mapping[str, Any] | None:
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return None
        found: Any = self._root
        for part in unquote(reference.partition("#")[2]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, Mapping):
                found = found.get(name)
            else:
                return None
        return found if isinstance(found, Mapping) else None
