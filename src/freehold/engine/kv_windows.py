# SPDX-License-Identifier: Apache-2.0
"""Which blocks a window keeps: arithmetic of positions, for whoever plans and whoever keeps.

Knows windows and sizes of blocks; knows no pool and no sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from freehold.ops import KVLayerSpec


def group_windows(layers: Sequence[KVLayerSpec]) -> tuple[int, ...]:
    """The window of each group, in the order of `ops.kv_groups`; 0 = keeps everything."""
    return tuple(dict.fromkeys(spec.window for spec in layers))


def first_kept(window: int, length: int, block_size: int) -> int:
    """The first block of a sequence that is still needed when `length` tokens are computed.

    Counted from the last full block and not from `length`, so that another prompt which shares all
    full blocks finds the whole window before their end.
    """
    if window == 0:
        return 0
    return max(0, length // block_size * block_size - window + 1) // block_size


def most_blocks(window: int, tokens: int, new: int, block_size: int) -> int:
    """The most blocks a sequence of `tokens` tokens ever holds while it computes `new` at a time.

    A window reaches over ``window - 1`` positions before the last full block.
    """
    whole = -(-tokens // block_size)
    if window == 0:
        return whole
    before = -(-(window - 1) // block_size)
    return min(whole, before + (new + block_size - 2) // block_size + 1)
