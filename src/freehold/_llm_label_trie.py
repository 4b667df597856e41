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

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np

from freehold._llm_inputs import common_prefix
from freehold._llm_label_rule import EXACT, Doubles, MarginRule, Precision, Rule, StopRule
from freehold._llm_labels import checked_labels, spelled
from freehold.batch import IntArray
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
_AT_ONCE = 96  # prompts whose rounds are shared; more would push each other out of the cache


@dataclass(slots=True)
class _Node:
    path: tuple[int, ...]  # tokens from the prompt to here
    known: int  # of the path, those whose chance the node before tells: one behind it
    parent: int  # the node before; of the root itself
    place: int  # among the children of that
    first: int  # of the labels that begin like this, which are one behind the other in their order
    end: int  # behind the last of them
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
class _Reached:
    """A node that was computed, as far as it was."""

    logprobs: list[float]  # of the tokens of its path
    children: list[float]  # log-probability of each child's first token; none before it is whole
    trunk: Trunk | None  # to go on from; None = the prompt's


class _Walk:
    """How far one prompt has come in the trie."""

    def __init__(self, prompt: Sequence[int], row: int) -> None:
        self.prompt = list(prompt)
        self.row = row
        self.reached: dict[int, _Reached] = {}  # by node
        self.trunk: Trunk | None = None
        self.cached_tokens = -1
        self.requests = 0

    def entry(self, index: int, node: _Node) -> _Reached:
        """What is known of a node that is not computed whole."""
        if (found := self.reached.get(index)) is not None:
            return found
        if not node.known:
            return _Reached([], [], None)
        before = self.reached[node.parent]
        return _Reached([*before.logprobs, before.children[node.place]], [], before.trunk)

    def forget(self, nodes: Sequence[_Node] = (), due: Sequence[int] = ()) -> None:
        """All but the nodes that are due is computed again from the prompt on, should it ever be:
        those, and those before them, keep what they go on from."""
        needed = {*due, *(nodes[index].parent for index in due)}
        for index, entry in self.reached.items():
            if index not in needed:
                entry.trunk = None


class _Rows:
    """What is known of the labels of some prompts: arrays with a row for each."""

    def __init__(self, num_prompts: int, num_nodes: int, num_labels: int) -> None:
        self.bounds: Doubles = np.full((num_prompts, num_nodes), -np.inf)  # of open nodes
        self.bounds[:, 0] = 0.0
        self.known: Doubles = np.full((num_prompts, num_labels), -np.inf)  # as labels were given


class LabelTrie:
    """The tokens of some labels. `endings` are the tokens that end an answer."""

    def __init__(self, labels: Sequence[Sequence[int]], endings: Sequence[int]) -> None:
        if len({tuple(ids) for ids in labels}) < len(labels) or not all(labels):
            raise InvalidParameterError("two labels are spelled with the same tokens")
        self.num_labels = len(labels)
        self.endings = tuple(endings)
        self.depth = max(map(len, labels)) + 1
        self._nodes: list[_Node] = []
        order = sorted((tuple(ids), index) for index, ids in enumerate(labels))
        self._order = [index for _, index in order]  # of the labels in the trie
        self._grow([ids for ids, _ in order])
        self._below: IntArray = np.array([(n.first, n.end) for n in self._nodes], np.int32)

    def _grow(self, labels: list[tuple[int, ...]]) -> None:
        """Nodes for sorted labels, each before those behind it, in their order. One stands wherever
        some labels part or one ends; the tokens in between belong to the node behind them."""
        waiting = [(0, len(labels), 0, 0)]
        while waiting:
            start, end, known, parent = waiting.pop()
            first, here = labels[start], len(self._nodes)
            shared = common_prefix(first, labels[end - 1]) if here else 0
            siblings = self._nodes[parent].children if here else {}
            node = _Node(first[:shared], known, parent, len(siblings), start, end)
            if here:
                siblings[first[known - 1]] = here
            if len(first) == shared:
                node.label, start = self._order[start], start + 1
            self._nodes.append(node)
            groups = []
            for _, group in groupby(range(start, end), key=lambda i: labels[i][shared]):
                found = list(group)
                groups.append((found[0], found[-1] + 1, shared + 1, here))
            waiting += reversed(groups)

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
        rule: Rule = self._rule(precision) if precision.tolerance else MarginRule(margin)
        scores: dict[int, TrieScores] = {}
        while waiting := [i for i in range(len(prompts)) if i not in scores]:
            some = waiting[:_AT_ONCE]
            walks = [_Walk(prompts[i], row) for row, i in enumerate(some)]
            rows = _Rows(len(walks), len(self._nodes), self.num_labels)
            with engine.branches(adapter, salt=salt) as branches:
                started = self._start(branches, walks, rows)
                self._finish(branches, started, rows, rule)
            found = self._results(started, rows, shared=isinstance(rule, StopRule))
            scores |= {some[walk.row]: each for walk, each in zip(started, found, strict=True)}
        return [scores[i] for i in range(len(prompts))]

    def _start(self, branches: Branches, walks: Sequence[_Walk], rows: _Rows) -> list[_Walk]:
        """Compute prompts, and with them what all labels begin with; those there was room for."""
        if started := self._start_as_branches(branches, walks, rows):
            return started
        grown = branches.grow([self._asked(walk) for walk in walks], self._longest)
        for walk, trunk in zip(walks, grown, strict=True):
            if trunk is not None:
                walk.trunk, walk.cached_tokens = trunk, trunk.cached_tokens
                self._take(walk, rows, 0, Measured(trunk.numbers))
        return [walk for walk in walks if walk.trunk is not None]

    def _start_as_branches(
        self, branches: Branches, walks: Sequence[_Walk], rows: _Rows
    ) -> list[_Walk]:
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
                self._take(walk, rows, 0, found)
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

    def _finish(self, branches: Branches, walks: Sequence[_Walk], rows: _Rows, rule: Rule) -> None:
        """Rounds until nothing of any prompt is due. Where blocks are too few to keep what all of
        them begin, which would be computed again and again, some wait for the others."""
        waiting, width = walks, len(walks)
        while waiting:
            group = waiting[:width]
            while asked := self._due(branches, group, rows, rule):
                self._drop(branches, walks)
                wanted = [self._branch(*each) for each in asked]
                if len(group) > 1 and not branches.can_keep(wanted):
                    width = len(group) // 2
                    for walk in group[width:]:
                        walk.forget()
                    break
                for (walk, node, _), found in zip(asked, branches.measure(wanted), strict=True):
                    self._take(walk, rows, node, found)
            else:
                waiting = waiting[len(group) :]

    def _due(
        self, branches: Branches, walks: Sequence[_Walk], rows: _Rows, rule: Rule
    ) -> list[tuple[_Walk, int, bool]]:
        """Nodes of prompts to look into next, and whether each of them likely matters."""
        some = [walk.row for walk in walks]
        shares = rule.due(rows.bounds[some], rows.known[some])
        due: list[list[int]] = [[] for _ in walks]
        asked: list[tuple[_Walk, int, bool]] = []
        for i, node in zip(*(each.tolist() for each in shares.nonzero()), strict=True):
            due[i].append(node)
            asked.append((walks[i], node, bool(shares[i, node] >= _LIKELY)))
        scarce = branches.scarce
        for walk, nodes in zip(walks, due, strict=True):
            if scarce or not nodes:
                walk.forget(self._nodes, nodes)
        return asked

    def _drop(self, branches: Branches, walks: Sequence[_Walk]) -> None:
        """Give back what none of the walks goes on from."""
        needed = {entry.trunk for walk in walks for entry in walk.reached.values()}
        needed |= {walk.trunk for walk in walks}
        branches.drop([trunk for trunk in branches.trunks if trunk not in needed])

    def _branch(self, walk: _Walk, index: int, whole: bool) -> Branch:
        """The next tokens of a node, or all that are left, and what comes behind."""
        node = self._nodes[index]
        entry = walk.entry(index, node)
        trunk = entry.trunk or walk.trunk
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

    def _take(self, walk: _Walk, rows: _Rows, index: int, measured: Measured) -> None:
        """What is known once a node, or a token of it, is computed."""
        node, found = self._nodes[index], measured.numbers.tolist()
        before = walk.entry(index, node).logprobs
        scored = len(node.path) - len(before)
        walk.requests += 1
        path = before + found[:scored]
        bounds = rows.bounds[walk.row]
        total = _total(path)
        if len(found) <= scored:  # not even what follows its last token
            walk.reached[index] = _Reached(path, [], measured.trunk)
            bounds[index] = total
            return
        bounds[index] = -np.inf
        children = found[scored : scored + len(node.children)]
        walk.reached[index] = _Reached(path, children, measured.trunk)
        if children:
            bounds[list(node.children.values())] = np.maximum(
                total + np.array(children), IMPOSSIBLE
            )
        if node.label is not None:
            rows.known[walk.row, node.label] = _total([*path, found[-1]])

    def _rule(self, precision: Precision) -> StopRule:
        below = [self._order[first:end] for first, end in self._below.tolist()]
        return StopRule(precision, below)

    def _results(self, walks: Sequence[_Walk], rows: _Rows, *, shared: bool) -> list[TrieScores]:
        """What was found; a label that was not computed has the chance of its beginning, or where
        it is `shared` its part of that."""
        found: list[TrieScores] = []
        for walk in walks:
            (left,) = np.nonzero(rows.bounds[walk.row] > -np.inf)  # in the order of their labels
            counts = self._below[left, 1] - self._below[left, 0]
            chances = rows.bounds[walk.row, left]
            if shared:
                chances = np.maximum(chances - np.log(counts), IMPOSSIBLE)
            logprobs = rows.known[walk.row, self._order]
            logprobs[logprobs == -np.inf] = np.repeat(chances, counts)
            scores = np.empty(self.num_labels)
            scores[self._order] = logprobs
            cached = max(0, walk.cached_tokens)
            found.append(TrieScores(tuple(scores.tolist()), cached, walk.requests))
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
