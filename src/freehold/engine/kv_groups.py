# SPDX-License-Identifier: Apache-2.0
"""Groups of layers that keep the same positions, each over a pool of blocks of its own.

A layer with a sliding window never looks back further than the window, so its group gives blocks
back as a sequence advances, and a known prefix is of use to it when the blocks of the window before
its end are known. Knows windows and pools; knows neither queues nor devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from freehold.engine.block_manager import BlockManager
from freehold.engine.kv_windows import first_kept, group_windows, most_blocks
from freehold.engine.sequence import HeldBlocks
from freehold.ops import KVCache, KVLayerSpec

__all__ = ["KVGroup", "first_kept", "longest_hit", "make_groups", "most_blocks"]


@dataclass(frozen=True, slots=True)
class KVGroup:
    """One pool, and how far back its layers look."""

    pool: BlockManager
    window: int  # 0 = to the beginning

    @property
    def steady(self) -> int:
        """Blocks with which a sequence of any length can go on, a token at a time; 0 = none can."""
        size = self.pool.block_size
        return -(-(self.window - 1) // size) + 1 if self.window else 0

    def longest(self, context: int) -> int:
        """The longest sequence, up to `context`, that the whole pool carries."""
        if self.window and self.pool.num_blocks >= self.steady:
            return context
        return min(context, self.pool.num_blocks * self.pool.block_size)

    def still_to_take(self, num_tokens: int, held: HeldBlocks) -> int:
        """Blocks that a sequence of so many tokens will ask for before it only replaces what it
        gives back, the next one included."""
        ahead = -(-num_tokens // self.pool.block_size) + 1 - held.num_dropped
        return max(0, min(self.steady, ahead) - (len(held.block_ids) - held.num_dropped))

    def drop_passed(self, held: HeldBlocks, num_computed: int) -> None:
        """Give back the blocks that no coming query can see."""
        first = first_kept(self.window, num_computed, self.pool.block_size)
        passed = held.block_ids[held.num_dropped : first]
        if passed:
            # `release` ages the last first; here the block furthest back is the least useful.
            self.pool.release(passed[::-1])
            held.block_ids[held.num_dropped : first] = [0] * len(passed)
            held.num_dropped = first


def make_groups(
    layers: Sequence[KVLayerSpec], cache: KVCache, prefix_caching: bool
) -> tuple[KVGroup, ...]:
    """A pool for each group of the cache."""
    return tuple(
        KVGroup(BlockManager(count, cache.block_size, prefix_caching=prefix_caching), window)
        for count, window in zip(cache.num_blocks, group_windows(layers), strict=True)
    )


def longest_hit(groups: Sequence[KVGroup], hashes: Sequence[bytes]) -> tuple[int, list[HeldBlocks]]:
    """How many leading blocks of the chain `hashes` need not be computed, and for each group the
    blocks that make it so; takes no references.

    A group without a window must know the whole chain. One with a window must know the blocks
    that the first query after the hit sees: where one of them is missing, the hit ends before it.
    """
    depth = len(hashes)
    chains: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        if group.window == 0:
            chains[index] = group.pool.match(hashes[:depth])
            depth = len(chains[index])
    known_from = [depth] * len(groups)  # blocks from here to `depth` are known
    again = True
    while again:
        again = False
        for index, group in enumerate(groups):
            if group.window == 0:
                continue
            size = group.pool.block_size
            at = min(known_from[index], depth)
            first = first_kept(group.window, depth * size, size)
            while at > first and group.pool.find(hashes[at - 1]) >= 0:
                at -= 1
            if at > first:  # any longer hit would need block at - 1 too
                at = depth = at - 1
                again = True
            known_from[index] = at
    found = []
    for index, group in enumerate(groups):
        if group.window == 0:
            found.append(HeldBlocks(chains[index][:depth]))
            continue
        first = first_kept(group.window, depth * group.pool.block_size, group.pool.block_size)
        blocks = [group.pool.find(digest) for digest in hashes[first:depth]]
        found.append(HeldBlocks([0] * first + blocks, first))
    return depth, found
