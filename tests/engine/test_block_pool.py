# SPDX-License-Identifier: Apache-2.0
"""The block pool as a state machine: references, free lists and the prefix index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from freehold.engine.block_manager import MAX_SIBLINGS, BlockManager
from freehold.engine.sequence import ROOT_HASH, hash_block
from freehold.errors import CapacityError, EngineError

SIZE = 3


def hashes_of(tokens: list[int]) -> list[bytes]:
    hashes, parent = [], ROOT_HASH
    for at in range(0, len(tokens) - SIZE + 1, SIZE):
        parent = hash_block(parent, np.array(tokens[at : at + SIZE], "<i4").tobytes())
        hashes.append(parent)
    return hashes


class Pool(RuleBasedStateMachine):
    """Holders take matching blocks, allocate the rest, register them and let go.

    The model beside it: the content every block was last given a name for."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockManager(7, SIZE)
        self.holders: list[tuple[list[int], list[int]]] = []  # (tokens, blocks)
        self.content: dict[int, tuple[int, ...]] = {}  # block -> all tokens up to its end

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=15))
    def take(self, tokens: list[int]) -> None:
        found = self.pool.match(hashes_of(tokens))
        for i, block in enumerate(found):
            assert self.content[block] == tuple(tokens[: (i + 1) * SIZE])
        need = -(-len(tokens) // SIZE) - len(found)
        free = self.pool.num_free - sum(not self.pool.is_held(b) for b in found)
        self.pool.acquire(found)
        if need > free:
            with pytest.raises(CapacityError):
                self.pool.allocate(need)
            self.pool.release(found)
            return
        new = self.pool.allocate(need)
        assert len(set(new)) == need
        assert not set(new) & {b for _, blocks in self.holders for b in blocks}
        for block in new:
            self.content.pop(block, None)
            assert self.pool.references(block) == 1
        self.holders.append((tokens, found + new))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def register(self, data: st.DataObject) -> None:
        tokens, blocks = data.draw(st.sampled_from(self.holders))
        hashes = hashes_of(tokens)
        known = set(self.content.values())
        for i, digest in enumerate(hashes[: data.draw(st.integers(0, len(hashes)))]):
            upto = tuple(tokens[: (i + 1) * SIZE])
            parent = hashes[i - 1] if i else ROOT_HASH
            self.pool.register(blocks[i], digest, parent, np.array(upto[-SIZE:], np.int32))
            if upto not in known and blocks[i] not in self.content:
                self.content[blocks[i]] = upto
                known.add(upto)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.holders) - 1))
        _, blocks = self.holders.pop(at)
        self.pool.release(blocks)

    @rule()
    def forget(self) -> None:
        self.pool.forget_all()
        self.content.clear()
        assert self.pool.num_cached == 0

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9))
    def match_partial(self, tokens: list[int]) -> None:
        depth = (len(tokens) - 1) // SIZE
        hashes = hashes_of(tokens)
        head, rest = tuple(tokens[: depth * SIZE]), tokens[depth * SIZE :]
        block, shared = self.pool.match_partial(
            hashes[depth - 1] if depth else ROOT_HASH, np.array(rest, np.int32)
        )
        agreements = {
            b: next((i for i, (x, y) in enumerate(zip(c[-SIZE:], rest, strict=False)) if x != y),
                    len(rest))
            for b, c in self.content.items()
            if c[:-SIZE] == head
        }  # fmt: skip
        assert shared == max(agreements.values(), default=0)
        assert block == -1 if shared == 0 else agreements[block] == shared

    @invariant()
    def books_balance(self) -> None:
        self.pool.check()
        held = [b for _, blocks in self.holders for b in blocks]
        for block in range(self.pool.num_blocks):
            assert self.pool.references(block) == held.count(block)
            assert self.pool.is_held(block) == (block in held)
        assert self.pool.num_free == self.pool.num_blocks - len(set(held))
        assert self.pool.num_cached == len(self.content)


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)


def test_a_second_release_is_refused():
    pool = BlockManager(2, SIZE)
    taken = pool.allocate(1)
    pool.release(taken)
    with pytest.raises(EngineError, match="released twice"):
        pool.release(taken)


def test_check_notices_a_leak_and_a_wrong_index():
    pool = BlockManager(3, SIZE)
    pool.allocate(1)
    pool.check()
    pool._references[0] = 0  # whoever held it is gone and it never came back
    with pytest.raises(EngineError, match="neither free nor held"):
        pool.check()
    pool = BlockManager(3, SIZE)
    block = pool.allocate(1)[0]
    pool.register(block, b"x", ROOT_HASH, np.zeros(SIZE, np.int32))
    pool._by_hash[b"x"] = 2
    with pytest.raises(EngineError, match="wrong block"):
        pool.check()


def test_least_recently_used_content_goes_first_and_tails_before_heads():
    pool = BlockManager(4, SIZE)
    chains = [[0] * 6, [1] * 6]
    for tokens in chains:
        blocks, hashes = pool.allocate(2), hashes_of(tokens)
        for i, digest in enumerate(hashes):
            pool.register(
                blocks[i], digest, hashes[i - 1] if i else ROOT_HASH,
                np.array(tokens[i * SIZE : (i + 1) * SIZE], np.int32),
            )  # fmt: skip
        pool.release(blocks)
    first, second = (hashes_of(tokens) for tokens in chains)
    used_again = pool.match(first)
    pool.acquire(used_again)
    pool.release(used_again)
    lengths = []
    for _ in range(4):
        lengths.append((len(pool.match(first)), len(pool.match(second))))
        pool.allocate(1)
    assert lengths == [(2, 2), (2, 1), (2, 0), (1, 0)]


def test_without_prefix_caching_nothing_is_remembered():
    pool = BlockManager(2, SIZE, prefix_caching=False)
    block = pool.allocate(1)[0]
    pool.register(block, b"x", ROOT_HASH, np.zeros(SIZE, np.int32))
    assert pool.match([b"x"]) == []
    pool.release([block])
    pool.check()


def test_a_crowd_of_siblings_costs_a_bounded_search():
    pool = BlockManager(3 * MAX_SIBLINGS, SIZE)
    for i in range(2 * MAX_SIBLINGS):
        tokens = np.array([7, 7, i], np.int32) if i else np.array([7, 8, 9], np.int32)
        pool.register(pool.allocate(1)[0], bytes([i]), ROOT_HASH, tokens)
    # The oldest sibling would match best, but only the newest are looked at.
    assert pool.match_partial(ROOT_HASH, np.array([7, 8, 9], np.int32))[1] == 1


def test_hashes_depend_on_every_token_before():
    a, b = hashes_of([1, 2, 3, 4, 5, 6]), hashes_of([0, 2, 3, 4, 5, 6])
    assert a[0] != b[0]
    assert a[1] != b[1]
    assert hashes_of([1, 2, 3, 4, 5, 6, 7])[:2] == a
