# SPDX-License-Identifier: Apache-2.0
"""Find literal tokens in text: leftmost, then longest, as vendors' tokenizers match them.

A trie, because vocabularies carry thousands of such tokens and a regular expression tries its
alternatives one by one. Knows nothing about what the tokens mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from freehold.errors import TokenizerError

# Bounds on what a hostile vocabulary can make the trie cost. Real ones: 200 and 0.1 M.
MAX_LITERAL_LENGTH = 1024
MAX_LITERAL_TOTAL = 4_000_000

_END = ""  # key of a node's token; children are keyed by one character


class LiteralMatcher:
    """Leftmost-longest matches of a fixed set of non-empty strings."""

    def __init__(self, literals: Iterable[str]) -> None:
        self._root: dict[str, Any] = {}
        total = 0
        for literal in literals:
            total += len(literal)
            if len(literal) > MAX_LITERAL_LENGTH or total > MAX_LITERAL_TOTAL:
                raise TokenizerError(
                    f"special tokens are longer than {MAX_LITERAL_LENGTH} characters, "
                    f"or {MAX_LITERAL_TOTAL} together"
                )
            node = self._root
            for char in literal:
                node = node.setdefault(char, {})
            node[_END] = literal
        firsts = "".join(map(re.escape, self._root))
        self._first = re.compile(f"[{firsts}]") if firsts else None

    def finditer(
        self, text: str, start: int = 0, end: int | None = None
    ) -> Iterator[tuple[int, int]]:
        """Spans (start, end) of matches inside text[start:end], in order, not overlapping."""
        if self._first is None:
            return
        end = len(text) if end is None else end
        search = self._first.search
        position = start
        while (candidate := search(text, position, end)) is not None:
            begin = candidate.start()
            node = self._root
            stop = -1
            for k in range(begin, end):
                child = node.get(text[k])
                if child is None:
                    break
                node = child
                if _END in node:
                    stop = k + 1
            if stop > 0:
                yield begin, stop
                position = stop
            else:
                position = begin + 1
