# SPDX-License-Identifier: Apache-2.0
"""The batch of the last rows of its sequences, which is all the last layer's attention needs."""

from __future__ import annotations

import numpy as np

from freehold.batch import ForwardBatch, KVTables


def batch(new: list[int], past: list[int]) -> ForwardBatch:
    """Sequences with so many new tokens behind so many."""
    starts = np.concatenate([[0], np.cumsum(new)]).astype(np.int32)
    total = int(starts[-1])
    lengths = np.array(new, np.int32) + np.array(past, np.int32)
    tables = np.arange(len(new) * 4, dtype=np.int32).reshape(-1, 4)
    return ForwardBatch(
        token_ids=np.arange(100, 100 + total, dtype=np.int32),
        positions=np.concatenate([np.arange(p, p + n) for n, p in zip(new, past, strict=True)]),
        query_start_loc=starts, seq_lens=lengths,
        tables=(KVTables(np.arange(500, 500 + total, dtype=np.int32), tables),),
        logits_rows=np.array([], np.int32),
    )  # fmt: skip


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def test_last_rows_are_a_batch_of_their_own():
    whole = batch([3, 1, 4], [10, 0, 7])
    part = whole.of_last_rows(rows(2, 6, 7))
    assert part is not None
    assert part.token_ids.tolist() == [102, 106, 107]
    assert part.positions.tolist() == [12, 9, 10]
    assert part.query_start_loc.tolist() == [0, 1, 3]
    assert part.seq_lens.tolist() == [13, 11]  # nothing is wanted of the second
    assert part.tables[0].block_tables.tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert part.tables[0].slot_mapping.tolist() == [502, 506, 507]
    assert part.query_start_loc.dtype == part.seq_lens.dtype == np.int32


def test_all_rows_are_last_rows():
    whole = batch([2, 2], [0, 5])
    part = whole.of_last_rows(rows(0, 1, 2, 3))
    assert part is not None
    assert part.query_start_loc.tolist() == whole.query_start_loc.tolist()


def test_other_rows_are_not():
    whole = batch([3, 3], [1, 1])
    for others in (rows(0), rows(0, 2), rows(2, 3), rows(4, 5, 1), rows(2, 2)):
        assert whole.of_last_rows(others) is None
