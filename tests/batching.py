# SPDX-License-Identifier: Apache-2.0
"""Paged batches for tests: what the engine does for real, in the plainest way.

Blocks are handed out in shuffled order, so that a device that ignores block tables fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from freehold.batch import ForwardBatch, KVTables
from freehold.models.base import CausalLM
from freehold.ops import KVDtype, Ops


def make_batch(
    token_ids: Sequence[Sequence[int]],
    past: Sequence[int],
    tables: Sequence[Sequence[int]],
    block_size: int,
    logits_rows: Sequence[int] | None = None,
    num_groups: int = 1,
) -> ForwardBatch:
    """New `token_ids` per sequence, each after `past` positions; all rows wanted by default.
    Every group of layers has the same tables."""
    counts = [len(ids) for ids in token_ids]
    positions = [np.arange(p, p + n) for p, n in zip(past, counts, strict=True)]
    slots = [
        np.asarray(table)[pos // block_size] * block_size + pos % block_size
        for table, pos in zip(tables, positions, strict=True)
    ]
    width = max(len(table) for table in tables)
    padded = [[*table, *([0] * (width - len(table)))] for table in tables]
    total = sum(counts)
    i32 = np.int32
    where = KVTables(np.concatenate(slots).astype(i32), np.array(padded, dtype=i32))
    return ForwardBatch(
        token_ids=np.array([i for ids in token_ids for i in ids], dtype=i32),
        positions=np.concatenate(positions).astype(i32),
        query_start_loc=np.array([0, *np.cumsum(counts)], dtype=i32),
        seq_lens=np.array([p + n for p, n in zip(past, counts, strict=True)], dtype=i32),
        tables=(where,) * num_groups,
        logits_rows=np.array(range(total) if logits_rows is None else logits_rows, dtype=i32),
    )


class PagedRunner:
    """Feeds tokens of named sequences through a model, in any chunks and company."""

    def __init__(
        self,
        model: CausalLM,
        ops: Ops,
        *,
        kv_dtype: KVDtype = "f32",
        block_size: int = 16,
        num_blocks: int = 64,
    ) -> None:
        self.model, self.ops, self.block_size = model, ops, block_size
        self.cache = ops.alloc_kv(model.kv_layers(), num_blocks, block_size, kv_dtype)
        self._free = list(np.random.default_rng(5).permutation(num_blocks))
        self._tables: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}

    def step(self, chunks: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
        """Append each chunk to its sequence; logits of all its tokens: [n, vocab]."""
        past = [self._lengths.get(name, 0) for name in chunks]
        for (name, ids), start in zip(chunks.items(), past, strict=True):
            table = self._tables.setdefault(name, [])
            while len(table) * self.block_size < start + len(ids):
                table.append(int(self._free.pop()))
            self._lengths[name] = start + len(ids)
        tables = [self._tables[name] for name in chunks]
        batch = make_batch(
            list(chunks.values()), past, tables, self.block_size,
            num_groups=len(self.cache.num_blocks),
        )  # fmt: skip
        hidden = self.model.forward(batch, self.cache, self.ops)
        logits = np.array(self.ops.to_numpy(self.model.logits(hidden, self.ops)))
        bounds = batch.query_start_loc
        return {name: logits[bounds[i] : bounds[i + 1]] for i, name in enumerate(chunks)}


def full_logits(model: CausalLM, ops: Ops, ids: Sequence[int], **options) -> np.ndarray:
    """Logits of every position, in one prefill: [len(ids), vocab]."""
    return PagedRunner(model, ops, **options).step({"only": ids})["only"]
