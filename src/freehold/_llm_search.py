# SPDX-License-Identifier: Apache-2.0
"""The likeliest answers of a form, as far as a few of their beginnings tell: beam search.

Greedy decoding takes the likeliest token and lives with what its form then leaves: a name that
begins like another one in the text is finished as that other one. Here the `width` likeliest
beginnings of an answer go on side by side, and the answer whose tokens are likeliest together is
taken. Tokens that a form leaves no choice about are taken at once and cost no likelihood. A
beginning is computed from the prefix cache, one row a token. Knows token ids, grammars and an
engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from freehold.engine.measuring import Measurement
from freehold.engine.structured import TokenConstraint
from freehold.errors import FreeholdError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.engine.structured import Grammar
    from freehold.models.adapters import Adapter

MAX_WIDTH = 32
_AT_ONCE = 16  # prompts searched together: more would push each other out of the cache


@dataclass(slots=True)
class _Beginning:
    tokens: list[int]
    logprob: float
    constraint: TokenConstraint
    over: bool = False
    forced: int = 0


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The likeliest answer to one prompt. `whole`: it came to its end within its tokens."""

    tokens: tuple[int, ...]
    whole: bool
    forced_tokens: int
    cached_tokens: int
    error: FreeholdError | None = None


class _Search:
    """One prompt's beginnings."""

    def __init__(self, prompt: Sequence[int], grammar: Grammar, limit: int) -> None:
        self.prompt = list(prompt)
        self.limit = limit
        self.cached_tokens = -1
        self.error: FreeholdError | None = None
        self.beam = [_Beginning([], 0.0, grammar.start())]

    def due(self, ends: frozenset[int]) -> list[tuple[_Beginning, list[int]]]:
        """Beginnings that have a choice to make, with the tokens they may take."""
        found: list[tuple[_Beginning, list[int]]] = []
        if self.error is not None:
            return found
        try:
            for each in self.beam:
                if not each.over:
                    self._force(each, ends)
                if not each.over:
                    found.append((each, [int(t) for t in np.flatnonzero(each.constraint.mask())]))
        except FreeholdError as error:
            self.error = error
            return []
        best = max((each.logprob for each in self.beam if each.over), default=-np.inf)
        # None that goes on gets likelier: once a whole answer leads, it has won.
        return found if any(each.logprob > best for each, _ in found) else []

    def _force(self, each: _Beginning, ends: frozenset[int]) -> None:
        for token in each.constraint.forced():
            each.tokens.append(token)
            each.forced += 1
            if token in ends:
                each.over = True
                return
            each.constraint.accept(token)
        each.over = each.constraint.done or len(each.tokens) >= self.limit

    def take(
        self, rows: Sequence[tuple[_Beginning, list[int], np.ndarray]], width: int,
        ends: frozenset[int],
    ) -> None:  # fmt: skip
        """The likeliest beginnings one token longer."""
        ways: list[tuple[float, int, int]] = []
        for number, (each, allowed, logprobs) in enumerate(rows):
            for at in np.argsort(-logprobs, kind="stable")[:width]:
                ways.append((each.logprob + float(logprobs[at]), number, allowed[at]))
        ways.sort(key=lambda way: -way[0])
        longer = [each for each in self.beam if each.over]
        try:
            for logprob, number, token in ways[:width]:
                before = rows[number][0]
                constraint = before.constraint.copy()
                over = token in ends
                if not over:
                    constraint.accept(token)
                longer.append(
                    _Beginning(
                        [*before.tokens, token], logprob, constraint,
                        over or constraint.done, before.forced,
                    )
                )  # fmt: skip
        except FreeholdError as error:
            self.error = error
        longer.sort(key=lambda each: -each.logprob)
        self.beam = longer[:width]

    def result(self, ends: frozenset[int]) -> SearchResult:
        best = max(self.beam, key=lambda each: (each.over, each.logprob))
        whole = best.constraint.done or (bool(best.tokens) and best.tokens[-1] in ends)
        tokens = tuple(token for token in best.tokens if token not in ends)
        return SearchResult(tokens, whole, best.forced, max(0, self.cached_tokens), self.error)


def search(
    engine: Engine, prompts: Sequence[Sequence[int]], grammars: Sequence[Grammar],
    limits: Sequence[int], ends: Sequence[int], width: int, adapter: Adapter | None = None,
) -> list[SearchResult]:  # fmt: skip
    """The likeliest answer to each prompt, of at most so many tokens."""
    if not 2 <= width <= MAX_WIDTH:
        raise InvalidParameterError(f"between 2 and {MAX_WIDTH} beginnings can be kept")
    ending = frozenset(ends)
    searches = [
        _Search(prompt, grammar, limit)
        for prompt, grammar, limit in zip(prompts, grammars, limits, strict=True)
    ]
    for start in range(0, len(searches), _AT_ONCE):
        group = searches[start : start + _AT_ONCE]
        while _step(engine, group, ending, width, adapter):
            pass
    return [each.result(ending) for each in searches]


def _step(
    engine: Engine, group: Sequence[_Search], ends: frozenset[int], width: int,
    adapter: Adapter | None,
) -> bool:  # fmt: skip
    asked = [(each, way, allowed) for each in group for way, allowed in each.due(ends)]
    if not asked:
        return False
    wanted = [
        Measurement(
            [*each.prompt, *way.tokens], "next", len(each.prompt) + len(way.tokens),
            targets=tuple(allowed),
        )
        for each, way, allowed in asked
    ]  # fmt: skip
    outputs = engine.measure_outputs(wanted, adapter=adapter)
    rows: dict[int, list[tuple[_Beginning, list[int], np.ndarray]]] = {}
    for (each, way, allowed), output in zip(asked, outputs, strict=True):
        assert output.numbers is not None
        if each.cached_tokens < 0:
            each.cached_tokens = output.cached_tokens
        rows.setdefault(id(each), []).append((way, allowed, output.numbers))
    for each in group:
        if id(each) in rows:
            each.take(rows[id(each)], width, ends)
    return True
