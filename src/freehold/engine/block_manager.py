# SPDX-License-Identifier: Apache-2.0
"""Who holds which cache block, and which blocks hold known content.

Counts references, hands out free blocks and remembers full blocks by hash, so that a later
prompt with the same beginning finds them. Knows neither sequences nor devices: moving bytes is
the runner's work.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from freehold.engine.sequence import ROOT_HASH
from freehold.errors import CapacityError, EngineError

# How many siblings of a block are compared for a shared beginning; a hot parent (the system
# prompt) may have thousands, and the newest are the likeliest.
MAX_SIBLINGS = 16


class BlockManager:
    """Reference-counted pool of `num_blocks` blocks with a prefix cache.

    A block is *held* (references > 0), *cached* (no references, content known by hash) or
    *blank*. Cached blocks are free too: they are given away, least recently used first, once no
    blank one is left.
    """

    def __init__(self, num_blocks: int, block_size: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        # A stack: recently freed blocks are reused first, so untouched memory stays untouched.
        self._blank = list(range(num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # oldest first
        self._references = [0] * num_blocks
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._by_hash: dict[bytes, int] = {}
        self._parent_of: list[bytes] = [ROOT_HASH] * num_blocks
        self._tokens_of: list[npt.NDArray[np.int32] | None] = [None] * num_blocks
        self._children: dict[bytes, OrderedDict[int, None]] = {}  # parent hash -> blocks

    @property
    def num_free(self) -> int:
        """Blocks nobody holds."""
        return len(self._blank) + len(self._cached)

    @property
    def num_held(self) -> int:
        """Blocks somebody holds."""
        return self.num_blocks - self.num_free

    @property
    def num_idle(self) -> int:
        """Free blocks with known content."""
        return len(self._cached)

    @property
    def num_cached(self) -> int:
        """Blocks with known content, held or not."""
        return len(self._by_hash)

    def references(self, block: int) -> int:
        """How many sequences hold the block."""
        return self._references[block]

    def is_held(self, block: int) -> bool:
        """Whether anybody holds the block."""
        return self._references[block] > 0

    def find(self, digest: bytes) -> int:
        """The block of this content, or -1; takes no reference."""
        return self._by_hash.get(digest, -1)

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Blocks of the longest known chain at the start of `hashes`; takes no references."""
        found = []
        for digest in hashes:
            block = self._by_hash.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def match_partial(self, parent: bytes, tokens: npt.NDArray[np.int32]) -> tuple[int, int]:
        """The known block after `parent` that shares most leading tokens: (block, how many).

        (-1, 0) when there is none. `tokens` are the ones the caller wants, at most a block.
        """
        best, best_len = -1, 0
        for tried, block in enumerate(reversed(self._children.get(parent, ()))):
            if tried == MAX_SIBLINGS:
                break
            stored = self._tokens_of[block]
            assert stored is not None
            differs = np.flatnonzero(stored[: len(tokens)] != tokens)
            shared = int(differs[0]) if len(differs) else len(tokens)
            if shared > best_len:
                best, best_len = block, shared
        return best, best_len

    def acquire(self, blocks: Iterable[int]) -> None:
        """Take a reference to each of some known blocks."""
        for block in blocks:
            if self._references[block] == 0:
                del self._cached[block]
            self._references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """`count` blocks of unknown content, each with one reference. All or nothing."""
        if count > self.num_free:
            raise CapacityError(f"{count} cache blocks are needed and {self.num_free} are free")
        taken = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _none = self._cached.popitem(last=False)
                self._forget(block)
            self._references[block] = 1
            taken.append(block)
        return taken

    def release(self, blocks: Sequence[int]) -> None:
        """Give one reference to each block back.

        Later blocks of a chain become the older ones: a chain without its tail is still of use,
        a tail without its head is not.
        """
        for block in reversed(blocks):
            if self._references[block] <= 0:
                raise EngineError(f"cache block {block} was released twice")
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._hash_of[block] is None:
                    self._blank.append(block)
                else:
                    self._cached[block] = None

    def register(
        self, block: int, digest: bytes, parent: bytes, tokens: npt.NDArray[np.int32]
    ) -> None:
        """Make the content of a full, held block known. A second block of equal content stays
        private, so that a hash always names one block."""
        if not self.prefix_caching or digest in self._by_hash or self._hash_of[block] is not None:
            return
        self._by_hash[digest] = block
        self._hash_of[block] = digest
        self._parent_of[block] = parent
        self._tokens_of[block] = tokens.copy()
        self._children.setdefault(parent, OrderedDict())[block] = None

    def forget_all(self) -> None:
        """Drop all known content; held blocks stay held."""
        for block in list(self._by_hash.values()):
            self._forget(block)
        self._blank.extend(reversed(self._cached))
        self._cached.clear()

    def _forget(self, block: int) -> None:
        digest = self._hash_of[block]
        assert digest is not None
        del self._by_hash[digest]
        self._hash_of[block] = None
        self._tokens_of[block] = None
        siblings = self._children[self._parent_of[block]]
        del siblings[block]
        if not siblings:
            del self._children[self._parent_of[block]]

    def check(self) -> None:
        """Raise EngineError if the books do not balance; for tests and debugging."""
        free = [*self._blank, *self._cached]
        held = [b for b in range(self.num_blocks) if self._references[b] > 0]
        if sorted(free + held) != list(range(self.num_blocks)):
            raise EngineError("a cache block is neither free nor held, or it is both")
        if any(self._hash_of[b] is not None for b in self._blank):
            raise EngineError("a blank cache block has a hash")
        if any(self._hash_of[b] is None for b in self._cached):
            raise EngineError("a cached block has no hash")
        if any(self._hash_of[b] != h for h, b in self._by_hash.items()):
            raise EngineError("the hash index names the wrong block")
        named = sum(h is not None for h in self._hash_of)
        children = sum(len(c) for c in self._children.values())
        if not named == len(self._by_hash) == children:
            raise EngineError("a hashed block is missing from an index")
