# SPDX-License-Identifier: Apache-2.0
"""Which tokens of which sequences the next step computes.

Continuous batching: every step may hold decoding sequences, pieces of prompts and new arrivals.
Decoding comes first and is never starved; prompts share what is left of the token budget in
order of arrival. Knows no model, samples nothing, reads no clock.

When blocks run out, the newest running sequence gives all of its blocks back and starts over
later (its known blocks stay cached while nobody else needs them). The oldest running sequence
is never the victim of another, and no sequence is taken that could not run alone, so every
request finishes.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from freehold.engine.block_manager import BlockManager
from freehold.engine.metrics import EngineStats
from freehold.engine.sequence import ROOT_HASH, SequenceState, SequenceStatus

# Blocks left free per running sequence when a new one is admitted, so that the next few decode
# steps do not throw it out again.
ADMISSION_MARGIN = 1


@dataclass(slots=True)
class ScheduledSequence:
    """One sequence's share of a step: its next `num_new` tokens, the drafts among them last."""

    seq: SequenceState
    num_new: int
    drafts: Sequence[int] = ()


@dataclass(slots=True)
class StepPlan:
    """What one forward pass computes."""

    items: list[ScheduledSequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)  # (source, target) blocks, first
    num_tokens: int = 0
    num_decoding: int = 0  # leading items that decode


class Scheduler:
    """Owns the queues and decides; see the module docstring for the policy."""

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        stats: EngineStats | None = None,
    ) -> None:
        # One token a step for each decoding sequence must fit the budget, and each running
        # sequence holds a block.
        self.max_num_seqs = min(max_num_seqs, max_num_batched_tokens, blocks.num_blocks)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.blocks = blocks
        self.stats = stats if stats is not None else EngineStats()
        self.waiting: list[SequenceState] = []  # both lists are in order of arrival
        self.running: list[SequenceState] = []
        self._free_rows = list(range(self.max_num_seqs - 1, -1, -1))
        # Hashes of the prompt blocks that admitted sequences are going to compute.
        self._pending: Counter[bytes] = Counter()

    # -- queue ---------------------------------------------------------------------------------
    def add(self, seq: SequenceState) -> None:
        """Queue a sequence."""
        bisect.insort(self.waiting, seq, key=_arrival)

    def remove(self, seq: SequenceState) -> None:
        """Take a sequence out for good and free what it holds."""
        if seq.status is SequenceStatus.RUNNING:
            self._release(seq)
            self.running.remove(seq)
        elif seq.status is SequenceStatus.WAITING:
            self.waiting.remove(seq)
        seq.status = SequenceStatus.FINISHED

    def has_unfinished(self) -> bool:
        """Whether anything is queued or running."""
        return bool(self.waiting or self.running)

    # -- the step ------------------------------------------------------------------------------
    def schedule(self) -> StepPlan:
        """Plan the next step and allocate its blocks."""
        plan = StepPlan()
        preempted = self._schedule_decodes(plan)
        budget = self.max_num_batched_tokens - plan.num_tokens
        for seq in self.running:
            if budget == 0:
                break
            if seq.num_remaining > 1:
                budget -= self._take(plan, seq, min(seq.num_remaining, budget))
        if not preempted:
            self._admit(plan, budget)
        return plan

    def grant_drafts(self, item: ScheduledSequence, plan: StepPlan, drafts: Sequence[int]) -> None:
        """Add draft tokens to a decoding item, as many as budget, length and free blocks allow."""
        seq = item.seq
        room = min(
            len(drafts),
            self.max_num_batched_tokens - plan.num_tokens,
            seq.max_len - seq.num_tokens - 1,
        )
        while room > 0 and not self._extend(seq, seq.num_tokens + room):
            room -= 1
        if room > 0:
            item.drafts = drafts[:room]
            item.num_new += room
            plan.num_tokens += room

    def commit(self, seq: SequenceState, num_computed: int) -> None:
        """Record that the cache now holds the first `num_computed` tokens, all of them final.

        Blocks become known to the prefix cache here and not earlier: what a step was going to
        compute is worth nothing if the step failed.
        """
        seq.num_computed = num_computed
        if not self.blocks.prefix_caching:
            return
        size = self.blocks.block_size
        full = num_computed // size
        if full == seq.num_registered:
            return
        hashes = seq.hash_blocks(size, num_computed)
        for i in range(seq.num_registered, full):
            parent = hashes[i - 1] if i else ROOT_HASH
            tokens = seq.tokens[i * size : (i + 1) * size]
            self.blocks.register(seq.block_ids[i], hashes[i], parent, tokens)
        self._drop_pending(seq, full)
        seq.num_registered = full

    # -- parts of a step -------------------------------------------------------------------------
    def _schedule_decodes(self, plan: StepPlan) -> bool:
        """One token for each decoding sequence, oldest first; whether anyone was thrown out.

        The victim is always newer than the sequence in hand, hence not yet in the plan.
        """
        preempted = False
        for seq in list(self.running):
            if seq.status is not SequenceStatus.RUNNING or seq.num_remaining != 1:
                continue
            while not self._extend(seq, seq.num_tokens):
                preempted = True
                victim = self.running[-1]
                self._preempt(victim)
                if victim is seq:
                    break
            if seq.status is SequenceStatus.RUNNING:
                self._take(plan, seq, 1)
        plan.num_decoding = len(plan.items)
        return preempted

    def _admit(self, plan: StepPlan, budget: int) -> None:
        """Start waiting sequences in order of arrival.

        One that shares a beginning with a prompt under way steps aside for it, and others may
        pass; one that lacks blocks holds everyone behind it back, or it might wait forever.
        """
        admitted: list[SequenceState] = []
        for seq in self.waiting:
            if budget == 0 or len(self.running) + len(admitted) == self.max_num_seqs:
                break
            if seq.waits_for is not None:
                if self._pending[seq.waits_for] > 0:
                    continue
                seq.waits_for = None
            outcome = self._try_start(seq, plan, len(self.running) + len(admitted))
            if outcome is None:
                continue
            if not outcome:
                break
            admitted.append(seq)
            budget -= self._take(plan, seq, min(seq.num_remaining, budget))
        for seq in admitted:
            self.waiting.remove(seq)
            bisect.insort(self.running, seq, key=_arrival)

    def _try_start(self, seq: SequenceState, plan: StepPlan, num_running: int) -> bool | None:
        """Find the cached prefix, allocate. None = wait for another's blocks; False = no room."""
        blocks, size = self.blocks, self.blocks.block_size
        found: list[int] = []
        source, shared = -1, 0
        if blocks.prefix_caching:
            # The last token is always computed: its output is what we are here for.
            usable = min(seq.next_wanted_row, seq.num_tokens - 1)
            hashes = seq.hash_blocks(size, seq.num_tokens)
            usable_blocks = usable // size
            found = blocks.match(hashes[:usable_blocks])
            depth = len(found)
            if depth < usable_blocks and self._pending[hashes[depth]] > 0:
                seq.waits_for = hashes[depth]
                return None
            parent = hashes[depth - 1] if depth else ROOT_HASH
            rest = seq.tokens[depth * size : min(usable, (depth + 1) * size)]
            if len(rest):
                source, shared = blocks.match_partial(parent, rest)
        need = -(-seq.num_tokens // size) - len(found)
        revived = sum(not blocks.is_held(block) for block in found)
        margin = ADMISSION_MARGIN * num_running
        if need + revived + margin > blocks.num_free:
            return False
        blocks.acquire(found)
        seq.block_ids = found + blocks.allocate(need)
        seq.num_registered = len(found)
        seq.num_computed = len(found) * size
        if shared:
            plan.copies.append((source, seq.block_ids[len(found)]))
            seq.num_computed += shared
        if blocks.prefix_caching:
            seq.num_pending = len(seq.block_hashes)
            self._pending.update(seq.block_hashes[len(found) :])
        if seq.cached_tokens < 0:
            seq.cached_tokens = seq.num_computed
            self.stats.cached_tokens += seq.num_computed
        seq.table_row = self._free_rows.pop()
        seq.table_len = 0
        seq.status = SequenceStatus.RUNNING
        return True

    def _take(self, plan: StepPlan, seq: SequenceState, count: int) -> int:
        plan.items.append(ScheduledSequence(seq, count))
        plan.num_tokens += count
        return count

    def _extend(self, seq: SequenceState, length: int) -> bool:
        """Make sure the sequence has blocks for `length` tokens; False when there are none left."""
        need = -(-length // self.blocks.block_size) - len(seq.block_ids)
        if need > 0:
            if need > self.blocks.num_free:
                return False
            seq.block_ids.extend(self.blocks.allocate(need))
        return True

    def _preempt(self, seq: SequenceState) -> None:
        self._release(seq)
        self.running.remove(seq)
        seq.status = SequenceStatus.WAITING
        self.stats.preemptions += 1
        self.add(seq)

    def _release(self, seq: SequenceState) -> None:
        self._drop_pending(seq, seq.num_pending)
        seq.num_pending = 0
        self.blocks.release(seq.block_ids)
        seq.block_ids = []
        seq.num_registered = seq.num_computed = 0
        self._free_rows.append(seq.table_row)
        seq.table_row = -1

    def _drop_pending(self, seq: SequenceState, upto: int) -> None:
        """The sequence's blocks before `upto` are no longer under way."""
        for digest in seq.block_hashes[seq.num_registered : min(upto, seq.num_pending)]:
            self._pending[digest] -= 1
            if self._pending[digest] == 0:
                del self._pending[digest]


def _arrival(seq: SequenceState) -> int:
    return seq.arrival
