# SPDX-License-Identifier: Apache-2.0
"""All labels of a prompt as one trie of tokens, walked by what the model would say next.

What labels have in common is computed once: one row of logits tells the chance of every branch at
a node, so a label of one token costs nothing beyond the prompt. Nothing is decoded. Each round
asks, of all prompts at once, for the nodes that may still matter, as branches of prompts whose keys
and values are held (`engine/branches.py`).

A label is never likelier than its beginning. With a tolerance, `_llm_label_rule.py` says which
beginnings are looked into. Without one, those out of reach of the best whole label are left where
they are: what such a label gets is the chance of that beginning, which is an upper bound and
further below the best than the margin. All others get the very numbers, to the bit, that scoring
them one by one gives. Knows token ids and an engine; what is made of the numbers is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from freehold._llm_inputs import common_prefix
from freehold._llm_label_rule import EXACT, Precision, StopRule
from freehold._llm_labels import checked_labels, spelled
from freehold.engine.branches import Branch, Branches, Measured, Trunk
from freehold.engine.measuring import Measurement
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.llm import LLM
    from freehold.models.adapters import Adapter

MARGIN = 25.0  # nats: one in 10^11
IMPOSSIBLE = -1e6  # stands for the logarithm of nothing, which no file can hold
_LIKELY = 0.25  # share from which on a node is computed whole, and not step by step
_STEP = 6  # tokens at a time: fewer make more rounds, more are computed in vain
_ALIKE = 24  # tokens behind the instruction that make two prompts worth a place in the prefix cache
_AT_ONCE = 64  # prompts whose rounds are shared; more would push each other out of the cache


@dataclass(slots=True)
class _Node:
    path: tuple[int, ...]  # tokens from the prompt to here
    known: int = 0  # of the path, those whose chance the node before tells: one behind it
    children: dict[int, int] = field(default_factory=dict)  # token -> index of a node
    label: int | None = None  # that ends here


@dataclass(frozen=True, slots=True)
class TrieScores:
    """Of one prompt: log-probabilities of being answered with each label and nothing else, and what
    of the prompt was known already."""

    logprobs: tuple[float, ...]
    cached_tokens: int
    requests: int  # looks at nodes


@dataclass(slots=True)
class _Open:
    """A node whose tokens are not all computed."""

    logprobs: list[float] = field(default_factory=list)  # of the first tokens of its path
    base: Trunk | None = None  # with some of them computed; None = the prompt
    bound: float = 0.0  # log-probability of those tokens together


def _opened(logprobs: list[float], base: Trunk | None) -> _Open:
    return _Open(logprobs, base, _total(logprobs))


class _Walk:
    """How far one prompt has come in the trie."""

    def __init__(self, prompt: Sequence[int], num_labels: int) -> None:
        self.prompt = list(prompt)
        self.found: list[float] = [IMPOSSIBLE] * num_labels
        self.known: dict[int, float] = {}  # those of the labels that were computed
        self.open: dict[int, _Open] = {0: _Open()}  # by node
        self.best = -np.inf  # of whole labels
        self.trunk: Trunk | None = None
        self.cached_tokens = -1
        self.requests = 0

    def due(self, rule: float | StopRule) -> dict[int, float]:
        """Nodes to look into next, with their shares; none when no open one can matter. A number
        is a margin."""
        bounds = {node: entry.bound for node, entry in self.open.items()}
        if isinstance(rule, StopRule):
            return rule.due(bounds, self.known)
        if not bounds or max(bounds.values()) < self.best - rule:
            return {}
        # Those far behind the likeliest beginning wait: it may yet come to nothing.
        reach = max(self.best, *bounds.values()) - rule
        return {node: 1.0 for node, bound in bounds.items() if bound >= reach}

    def forget(self, due: Mapping[int, float]) -> None:
        """What is not due next is computed again from the prompt on, should it ever be."""
        for node, entry in self.open.items():
            if node not in due:
                entry.base = None


class LabelTrie:
    """The tokens of some labels. `endings` are the tokens that end an answer."""

    def __init__(self, labels: Sequence[Sequence[int]], endings: Sequence[int]) -> None:
        if len({tuple(ids) for ids in labels}) < len(labels) or not all(labels):
            raise InvalidParameterError("two labels are spelled with the same tokens")
        self.num_labels = len(labels)
        self.endings = tuple(endings)
        self.depth = max(map(len, labels)) + 1
        self._nodes: list[_Node] = []
        self._grow(sorted((tuple(ids), index) for index, ids in enumerate(labels)))

    def _grow(self, labels: list[tuple[tuple[int, ...], int]]) -> None:
        """Nodes for sorted labels, the root first. One stands wherever some of them part or one
        ends; the tokens in between belong to the node behind them."""
        waiting = [(labels, 0, -1)]
        while waiting:
            labels, known, parent = waiting.pop()
            first, last = labels[0][0], labels[-1][0]
            shared = 0 if parent < 0 else common_prefix(first, last)
            node = _Node(first[:shared], known)
            if parent >= 0:
                self._nodes[parent].children[first[known - 1]] = len(self._nodes)
            if len(first) == shared:
                node.label, labels = labels[0][1], labels[1:]
            here = len(self._nodes)
            self._nodes.append(node)
            for _, group in groupby(labels, key=lambda item: item[0][shared]):
                waiting.append((list(group), shared + 1, here))

    @classmethod
    def of(cls, llm: LLM, labels: Sequence[str]) -> LabelTrie:
        """Labels as answers in a chat with `llm`. Raises InvalidParameterError."""
        labels = checked_labels(labels)
        return cls([spelled(llm.tokenizer, label) for label in labels], llm.endings())

    def score(
        self, engine: Engine, prompts: Sequence[Sequence[int]], adapter: Adapter | None = None,
        margin: float = MARGIN, precision: Precision = EXACT, salt: bytes = b"",
    ) -> list[TrieScores]:  # fmt: skip
        """Scores of each prompt, all of them token ids. With a tolerance, the margin is of no
        account."""
        rule = self._rule(precision) if precision.tolerance else margin
        walks = [_Walk(prompt, self.num_labels) for prompt in prompts]
        waiting = walks
        while waiting:
            with engine.branches(adapter, salt=salt) as branches:
                started = self._start(branches, waiting[:_AT_ONCE])
                self._finish(branches, started, rule)
            waiting = [walk for walk in waiting if walk not in started]
        return [self._result(walk, rule) for walk in walks]

    def _start(self, branches: Branches, walks: Sequence[_Walk]) -> list[_Walk]:
        """Compute prompts, and with them what all labels begin with; those there was room for."""
        if started := self._start_as_branches(branches, walks):
            return started
        grown = branches.grow([self._asked(walk) for walk in walks], self._longest)
        for walk, trunk in zip(walks, grown, strict=True):
            if trunk is not None:
                walk.trunk, walk.cached_tokens = trunk, trunk.cached_tokens
                self._take(walk, 0, Measured(trunk.numbers))
        return [walk for walk in walks if walk.trunk is not None]

    def _start_as_branches(self, branches: Branches, walks: Sequence[_Walk]) -> list[_Walk]:
        """The same where prompts are short texts behind one instruction: they are branches of it,
        and none of them is a request. None where they are not, or there is no room."""
        shared = _instruction([walk.prompt for walk in walks], branches.pass_tokens - self.depth)
        if not shared:
            return []
        first = walks[0].prompt
        begin = Measurement(first[:shared], "next", first=shared, targets=(first[shared],))
        (trunk,) = branches.grow([begin], self._longest)
        assert trunk is not None  # one always is
        root = self._nodes[0]
        wanted = [
            Branch(
                trunk, [*walk.prompt[shared:], *root.path], len(walk.prompt) - shared,
                tuple(root.children), self._endings(root), keep=True,
            )
            for walk in walks
        ]  # fmt: skip
        while wanted and not branches.can_keep(wanted):
            wanted = wanted[: len(wanted) // 2]
        started: list[_Walk] = []
        for walk, found in zip(walks, branches.measure(wanted), strict=False):
            if found.trunk is not None:
                walk.trunk, walk.cached_tokens = found.trunk, shared if started else 0
                self._take(walk, 0, found)
                started.append(walk)
        if started:
            started[0].cached_tokens = trunk.cached_tokens
        return started

    def _asked(self, walk: _Walk) -> Measurement:
        root = self._nodes[0]
        return Measurement(
            [*walk.prompt, *root.path], "next", first=len(walk.prompt),
            targets=tuple(root.children), endings=self._endings(root),
        )  # fmt: skip

    @property
    def _longest(self) -> int:
        """Tokens that a branch of a prompt may have."""
        return self.depth - len(self._nodes[0].path)

    def _finish(self, branches: Branches, walks: Sequence[_Walk], rule: float | StopRule) -> None:
        """Rounds until nothing of any prompt is due. Where blocks are too few to keep what all of
        them begin, which would be computed again and again, some wait for the others."""
        waiting, width = walks, len(walks)
        while waiting:
            group = waiting[:width]
            while asked := self._due(branches, group, rule):
                self._drop(branches, walks)
                wanted = [self._branch(walk, node, share >= _LIKELY) for walk, node, share in asked]
                if len(group) > 1 and not branches.can_keep(wanted):
                    width = len(group) // 2
                    for walk in group[width:]:
                        walk.forget({})
                    break
                for (walk, node, _), found in zip(asked, branches.measure(wanted), strict=True):
                    self._take(walk, node, found)
            else:
                waiting = waiting[len(group) :]

    def _due(
        self, branches: Branches, walks: Sequence[_Walk], rule: float | StopRule
    ) -> list[tuple[_Walk, int, float]]:
        """Nodes of prompts to look into next, and their shares."""
        asked: list[tuple[_Walk, int, float]] = []
        for walk in walks:
            due = walk.due(rule)
            if branches.scarce or not due:
                walk.forget(due)
            asked += [(walk, node, share) for node, share in due.items()]
        return asked

    def _drop(self, branches: Branches, walks: Sequence[_Walk]) -> None:
        """Give back what none of the walks goes on from."""
        needed = {entry.base for walk in walks for entry in walk.open.values()}
        needed |= {walk.trunk for walk in walks}
        branches.drop([trunk for trunk in branches.trunks if trunk not in needed])

    def _branch(self, walk: _Walk, index: int, whole: bool) -> Branch:
        """The next tokens of a node, or all that are left, and what comes behind."""
        node, entry = self._nodes[index], walk.open[index]
        trunk = entry.base or walk.trunk
        assert trunk is not None
        done, path = len(entry.logprobs), node.path
        begun = trunk.length - len(walk.prompt)
        last = done + _STEP - 1
        if not whole and last < len(path):
            return Branch(trunk, path[begun:last], done - begun, (path[last],), keep=True)
        return Branch(
            trunk, path[begun:], done - begun, tuple(node.children), self._endings(node),
            keep=bool(node.children),
        )  # fmt: skip

    def _endings(self, node: _Node) -> tuple[int, ...]:
        return () if node.label is None else self.endings

    def _take(self, walk: _Walk, index: int, measured: Measured) -> None:
        """What is known once a node, or a token of it, is computed."""
        node, entry = self._nodes[index], walk.open[index]
        found = [float(number) for number in measured.numbers]
        scored = len(node.path) - len(entry.logprobs)
        walk.requests += 1
        path = [*entry.logprobs, *found[:scored]]
        if len(found) <= scored:  # not even what follows its last token
            walk.open[index] = _opened(path, measured.trunk)
            return
        del walk.open[index]
        for child, number in zip(node.children.values(), found[scored:], strict=False):
            walk.open[child] = _opened([*path, number], measured.trunk)
        if node.label is not None:
            total = _total([*path, found[-1]])
            walk.found[node.label] = walk.known[node.label] = total
            walk.best = max(walk.best, total)

    def _rule(self, precision: Precision) -> StopRule:
        return StopRule(precision, [self._labels_below(i) for i in range(len(self._nodes))])

    def _result(self, walk: _Walk, rule: float | StopRule) -> TrieScores:
        for index, entry in walk.open.items():
            labels, bound = self._labels_below(index), entry.bound
            if isinstance(rule, StopRule):
                bound = max(IMPOSSIBLE, bound - math.log(len(labels)))
            for label in labels:
                walk.found[label] = bound
        return TrieScores(tuple(walk.found), max(0, walk.cached_tokens), walk.requests)

    def _labels_below(self, index: int) -> list[int]:
        found: list[int] = []
        waiting = [index]
        while waiting:
            node = self._nodes[waiting.pop()]
            found += [] if node.label is None else [node.label]
            waiting += node.children.values()
        return found


def _instruction(prompts: Sequence[list[int]], longest: int) -> int:
    """Tokens that all prompts begin with, where they have little else in common and none has more
    than `longest` behind them; else 0."""
    if len(prompts) < 2:
        return 0
    order = sorted(prompts)
    shared = min(common_prefix(order[0], order[-1]), min(map(len, prompts)) - 1)
    if max(map(len, prompts)) - shared > longest:
        return 0
    more = slice(shared, shared + _ALIKE)
    alike = sum(a[more] == b[more] for a, b in pairwise(order) if len(a) > more.stop)
    return 0 if 4 * alike > len(prompts) else shared


def _total(logprobs: Sequence[float]) -> float:
    """In the way NumPy sums, as scoring one by one does."""
    return max(IMPOSSIBLE, float(np.asarray(logprobs, np.float32).sum(dtype=np.float64)))
