# SPDX-License-Identifier: Apache-2.0
"""Between the prefix cache and the disk: which blocks are kept, and how they come back.

The full blocks of a prompt are kept once it is computed, if it is long enough to be worth it; of
layers with a window those that the window still holds. Before a prompt is looked up in the prefix
cache, blocks that only the disk knows are put into free ones and made known. Whether they make a
hit is decided as ever. Prompts under an adapter are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from freehold.engine.kv_groups import KVGroup, first_kept
from freehold.engine.kv_snapshot import Block, SnapshotStore
from freehold.engine.sequence import SequenceState
from freehold.ops import KVCache, Ops

MIN_TOKENS = 256  # a shorter prefix is computed about as fast as it is read


class PrefixSnapshots:
    """Moves blocks of one cache; belongs to the engine's thread."""

    def __init__(self, store: SnapshotStore, ops: Ops, cache: KVCache) -> None:
        self._store, self._ops, self._cache = store, ops, cache
        none = np.zeros(1, np.int32)
        self._sizes = [
            ops.read_blocks(cache, g, none).shape[1] for g in range(len(cache.num_blocks))
        ]

    def keep(self, seq: SequenceState, groups: Sequence[KVGroup]) -> None:
        """Save the blocks of a prompt that has just been computed."""
        size = groups[0].pool.block_size
        full = seq.prompt_len // size
        if full * size < MIN_TOKENS:
            return
        hashes = seq.hash_blocks(size, full * size)
        if not hashes or seq.adapter is not None:  # the fingerprint does not stand for adapters
            return
        for index, (group, held) in enumerate(zip(groups, seq.blocks, strict=True)):
            first = max(held.num_dropped, first_kept(group.window, full * size, size))
            for i in range(first, full):
                if self._store.has(index, hashes[i]):
                    continue
                data = self._ops.read_blocks(
                    self._cache, index, np.array([held.block_ids[i]], np.int32)
                )
                parent = hashes[i - 1] if i else seq.root_hash
                if not self._store.save(
                    Block(index, hashes[i], parent, _tokens(seq, i, size), data.tobytes())
                ):
                    return

    def restore(self, seq: SequenceState, count: int, groups: Sequence[KVGroup]) -> None:
        """Bring back those of the sequence's first `count` blocks that only the disk knows."""
        size = groups[0].pool.block_size
        hashes = seq.hash_blocks(size, count * size)[:count]
        if not hashes or seq.adapter is not None:  # the fingerprint does not stand for adapters
            return
        depth = count
        for index, group in enumerate(groups):
            if not group.window:
                depth = self._reach(index, group, hashes[:depth])
        if depth * size < MIN_TOKENS:
            return
        for index, group in enumerate(groups):
            first = first_kept(group.window, depth * size, size)
            self._restore_group(index, group, seq, hashes, first, depth)

    def _reach(self, index: int, group: KVGroup, hashes: Sequence[bytes]) -> int:
        for i, digest in enumerate(hashes):
            if group.pool.find(digest) < 0 and not self._store.has(index, digest):
                return i
        return len(hashes)

    def _restore_group(
        self, index: int, group: KVGroup, seq: SequenceState, hashes: Sequence[bytes],
        first: int, depth: int,
    ) -> None:  # fmt: skip
        pool, size = group.pool, group.pool.block_size
        held: list[int] = []  # kept from being given away while room is made for the others
        try:
            for digest in hashes[first:depth]:
                if (block := pool.find(digest)) >= 0:
                    pool.acquire([block])
                    held.append(block)
            for i in range(first, depth):
                if pool.find(hashes[i]) >= 0:
                    continue
                if pool.num_free <= 1:
                    return
                parent, tokens = hashes[i - 1] if i else seq.root_hash, _tokens(seq, i, size)
                data = self._store.load(index, hashes[i], parent, tokens, self._sizes[index])
                if data is None:
                    if group.window:
                        continue
                    return  # what follows would be of no use
                (block,) = pool.allocate(1)
                held.append(block)
                row = np.frombuffer(data, np.uint8).reshape(1, -1)
                self._ops.write_blocks(self._cache, index, np.array([block], np.int32), row)
                pool.register(block, hashes[i], parent, seq.tokens[i * size : (i + 1) * size])
        finally:
            pool.release(held)


def _tokens(seq: SequenceState, block: int, size: int) -> bytes:
    return seq.tokens[block * size : (block + 1) * size].astype("<i4").tobytes()
