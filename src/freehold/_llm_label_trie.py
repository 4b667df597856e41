# SPDX-License-Identifier: Apache-2.0
"""All labels of a prompt as one trie of tokens, walked by what the model would say next.

What labels have in common is computed once: one row of logits tells the chance of every branch at
a node, so a label of one token costs nothing beyond the prompt. Nothing is decoded. Each round
asks, of all prompts at once, for the nodes that may still matter; the prompts' keys and values are
in the prefix cache by then.

A label is never likelier than its beginning. Branches whose beginning is out of reach of the best
whole label are left where they are: what such a label gets is the chance of that beginning, which
is an upper bound and further below the best than the margin. All others get the very numbers, to
the bit, that scoring them one by one gives. Knows token ids and an engine; what is made of the
numbers is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from freehold._llm_inputs import common_prefix
from freehold._llm_labels import checked_labels, spelled
from freehold.engine.measuring import Measurement
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.llm import LLM
    from freehold.models.adapters import Adapter

MARGIN = 25.0  # nats: one in 10^11
IMPOSSIBLE = -1e6  # stands for the logarithm of nothing, which no file can hold
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
    requests: int  # to the engine


class _Walk:
    """How far one prompt has come in the trie."""

    def __init__(self, prompt: Sequence[int], num_labels: int) -> None:
        self.prompt = list(prompt)
        self.found: list[float] = [IMPOSSIBLE] * num_labels
        self.open: dict[int, list[float]] = {0: []}  # node -> log-probabilities of its path
        self.best = -np.inf  # of whole labels
        self.cached_tokens = -1
        self.requests = 0

    def due(self, margin: float) -> list[int]:
        """Nodes to look at next; none when no open one can matter."""
        bounds = {node: _total(path) for node, path in self.open.items()}
        if not bounds or max(bounds.values()) < self.best - margin:
            return []
        # Those far behind the likeliest beginning wait: it may yet come to nothing.
        reach = max(self.best, *bounds.values()) - margin
        return [node for node, bound in bounds.items() if bound >= reach]


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
        margin: float = MARGIN,
    ) -> list[TrieScores]:  # fmt: skip
        """Scores of each prompt, all of them token ids."""
        walks = [_Walk(prompt, self.num_labels) for prompt in prompts]
        for start in range(0, len(walks), _AT_ONCE):
            group = walks[start : start + _AT_ONCE]
            while self._round(engine, group, adapter, margin):
                pass
        return [self._result(walk) for walk in walks]

    def _round(
        self, engine: Engine, walks: Sequence[_Walk], adapter: Adapter | None, margin: float
    ) -> bool:
        """Look at what is due of every prompt; False when nothing was."""
        asked = [(walk, node) for walk in walks for node in walk.due(margin)]
        if not asked:
            return False
        wanted = [
            Measurement(
                [*walk.prompt, *self._nodes[node].path], "next",
                first=len(walk.prompt) + self._nodes[node].known,
                targets=tuple(self._nodes[node].children),
                endings=() if self._nodes[node].label is None else self.endings,
            )
            for walk, node in asked
        ]  # fmt: skip
        outputs = engine.measure_outputs(wanted, adapter=adapter)
        for (walk, index), output in zip(asked, outputs, strict=True):
            assert output.numbers is not None
            node, path = self._nodes[index], walk.open.pop(index)
            walk.requests += 1
            if walk.cached_tokens < 0:
                walk.cached_tokens = output.cached_tokens
            numbers = [float(number) for number in output.numbers]
            scored = len(node.path) - node.known
            path = [*path, *numbers[:scored]]
            for child, number in zip(node.children.values(), numbers[scored:], strict=False):
                walk.open[child] = [*path, number]
            if node.label is not None:
                walk.found[node.label] = _total([*path, numbers[-1]])
                walk.best = max(walk.best, walk.found[node.label])
        return True

    def _result(self, walk: _Walk) -> TrieScores:
        for index, path in walk.open.items():
            bound = _total(path)
            for label in self._labels_below(index):
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


def _total(logprobs: Sequence[float]) -> float:
    """In the way NumPy sums, as scoring one by one does."""
    return max(IMPOSSIBLE, float(np.asarray(logprobs, np.float32).sum(dtype=np.float64)))
