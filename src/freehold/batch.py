# SPDX-License-Identifier: Apache-2.0
"""`ForwardBatch`: everything one forward pass needs to know, and nothing else.

It is built by the engine, read by models and backends. It holds no weights and no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KVTables:
    """Where one group of layers keeps the keys and values of a batch (`ops.kv_groups`).

    Position p of sequence s lives in slot
    ``block_tables[s, p // block_size] * block_size + p % block_size``. In a group with a window
    the blocks that no query can see any more are given back: their entries are 0 and mean
    nothing, as do entries past the end of a sequence. Nothing may be read through either.
    """

    slot_mapping: IntArray  # [T] slot that receives the row's key and value
    block_tables: IntArray  # [S, max_blocks]


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """T new tokens of S sequences, laid end to end.

    Sequence s owns rows ``query_start_loc[s]:query_start_loc[s+1]``. Its keys and values, the
    new ones included, cover positions ``0 .. seq_lens[s]-1``; the tables of its layer's group say
    where. The new tokens are the last ones of the sequence: row r of sequence s has position
    ``seq_lens[s] - (query_start_loc[s+1] - r)``.
    """

    token_ids: IntArray  # [T]
    positions: IntArray  # [T]
    query_start_loc: IntArray  # [S + 1]
    seq_lens: IntArray  # [S] context length after this step
    tables: tuple[KVTables, ...]  # one per group of layers
    logits_rows: IntArray  # [R] rows whose logits are wanted

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_seqs(self) -> int:
        return len(self.seq_lens)

    def of_last_rows(self, rows: IntArray) -> ForwardBatch | None:
        """The batch of these rows alone, ascending, where those of each sequence are its last ones;
        None where they are not. Keys and values of the others are in the cache already."""
        ends = self.query_start_loc[1:]
        counts = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=len(ends))
        last = np.repeat(ends - np.cumsum(counts), counts) + np.arange(len(rows))
        if not np.array_equal(rows, last):
            return None
        asked = counts > 0
        return ForwardBatch(
            token_ids=self.token_ids[rows],
            positions=self.positions[rows],
            query_start_loc=np.concatenate([[0], np.cumsum(counts[asked])]).astype(np.int32),
            seq_lens=self.seq_lens[asked],
            tables=tuple(
                KVTables(each.slot_mapping[rows], each.block_tables[asked]) for each in self.tables
            ),
            logits_rows=np.arange(len(rows), dtype=np.int32),
        )
