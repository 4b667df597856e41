# SPDX-License-Identifier: Apache-2.0
"""From a step plan to hidden states: the only place that builds a `ForwardBatch`.

On the decode path, hence mostly whole-array arithmetic. Knows no policy and samples nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from freehold.batch import ForwardBatch, IntArray, KVTables
from freehold.engine.scheduler import ScheduledSequence, StepPlan
from freehold.engine.sequence import HeldBlocks
from freehold.models.adapted_ops import adapted_ops
from freehold.models.adapters import Adapter
from freehold.models.base import CausalLM
from freehold.ops import Array, FloatArray, KVCache, Ops


@dataclass(slots=True)
class RowSpan:
    """Which output rows of the step belong to one sequence.

    Output row ``start + i`` is the one at position ``position + i``.
    """

    item: ScheduledSequence
    start: int
    count: int
    position: int

    @property
    def num_prompt_rows(self) -> int:
        """How many leading rows are for prompt log-probabilities only."""
        if self.item.seq.want == "next":
            return 0
        before_last = self.item.seq.prompt_len - 1 - self.position
        return min(max(0, before_last), self.count)


class ModelRunner:
    """Runs plans over one model and one cache; keeps the block tables."""

    def __init__(self, model: CausalLM, ops: Ops, cache: KVCache, max_num_seqs: int) -> None:
        self.model = model
        self.ops = ops
        self.cache = cache
        # Per group of layers, one row per running sequence; only changes are written. They grow
        # with the longest sequence: a window lets contexts be longer than any pool.
        self._tables = [np.zeros((max_num_seqs, 64), np.int32) for _ in cache.num_blocks]
        self._block_size = cache.block_size

    def build(self, plan: StepPlan) -> tuple[ForwardBatch, list[RowSpan]]:
        """The plan as arrays, and where each sequence's output rows will be."""
        items = plan.items
        count = len(items)
        rows = np.empty(count, np.int32)
        new = np.empty(count, np.int32)
        starts = np.empty(count, np.int32)
        ids = np.empty(plan.num_tokens, np.int32)
        wanted: list[int] = []
        spans: list[RowSpan] = []
        at = 0
        for i, item in enumerate(items):
            seq = item.seq
            for group, held in enumerate(seq.blocks):
                if held.table_len != len(held.block_ids) or held.table_dropped != held.num_dropped:
                    self._write_table(group, seq.table_row, held)
            num_new, begin = item.num_new, seq.num_computed
            rows[i], new[i], starts[i] = seq.table_row, num_new, begin
            known = num_new - len(item.drafts)
            ids[at : at + known] = seq.tokens[begin : begin + known]
            if item.drafts:
                ids[at + known : at + num_new] = item.drafts
            skip = max(0, seq.next_wanted_row - begin)
            if skip < num_new:
                spans.append(RowSpan(item, len(wanted), num_new - skip, begin + skip))
                wanted.extend(range(at + skip, at + num_new))
            at += num_new
        return self._batch(ids, rows, new, starts, wanted), spans

    def _write_table(self, group: int, row: int, held: HeldBlocks) -> None:
        table, size = self._tables[group], len(held.block_ids)
        if size > table.shape[1]:
            wider = np.zeros((len(table), max(size, 2 * table.shape[1])), np.int32)
            wider[:, : table.shape[1]] = table
            self._tables[group] = table = wider
        table[row, held.table_len : size] = held.block_ids[held.table_len :]
        table[row, held.table_dropped : held.num_dropped] = 0
        held.table_len, held.table_dropped = size, held.num_dropped

    def _batch(
        self,
        ids: IntArray,
        rows: IntArray,
        new: IntArray,
        starts: IntArray,
        wanted: list[int],
    ) -> ForwardBatch:
        size = self._block_size
        query_start_loc = np.zeros(len(new) + 1, np.int32)
        np.cumsum(new, out=query_start_loc[1:])
        if len(ids) == len(new):  # one token each: pure decode
            positions, owner = starts, rows
        else:
            offsets = starts - query_start_loc[:-1]
            positions = np.arange(len(ids), dtype=np.int32) + np.repeat(offsets, new)
            owner = np.repeat(rows, new)
        seq_lens = starts + new
        width = -(-int(seq_lens.max()) // size)
        block, inside = positions // size, positions % size
        return ForwardBatch(
            token_ids=ids,
            positions=positions,
            query_start_loc=query_start_loc,
            seq_lens=seq_lens,
            tables=tuple(
                KVTables(table[owner, block] * size + inside, table[rows, :width])
                for table in self._tables
            ),
            logits_rows=np.array(wanted, np.int32),
        )

    def run(self, plan: StepPlan) -> tuple[Array, list[RowSpan]]:
        """Copy blocks, run the model. Hidden states of all output rows: [R, hidden_size]."""
        for group, copies in enumerate(plan.copies):
            if copies:
                pairs = np.array(copies, np.int32)
                self.ops.copy_blocks(self.cache, group, pairs[:, 0].copy(), pairs[:, 1].copy())
        batch, spans = self.build(plan)
        return self.forward(batch, [item.seq.adapter for item in plan.items]), spans

    def forward(self, batch: ForwardBatch, adapters: Sequence[Adapter | None]) -> Array:
        """Run the model over a batch, each sequence under its adapter: [R, hidden_size]."""
        return self.model.forward(batch, self.cache, adapted_ops(self.ops, batch, adapters))

    def logits(self, hidden: Array) -> FloatArray:
        """Logits of hidden rows, on the host: [R, vocab_size] float32."""
        return self.ops.to_numpy(self.model.logits(hidden, self.ops))

    def take(self, hidden: Array, rows: list[int]) -> Array:
        """Some of the hidden rows, in the order given."""
        return self.ops.take_rows(hidden, np.array(rows, np.int32))

    def to_host(self, hidden: Array) -> FloatArray:
        """Hidden rows on the host: [R, hidden_size] float32."""
        return self.ops.to_numpy(hidden)
