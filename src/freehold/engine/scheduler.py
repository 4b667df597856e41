# SPDX-License-Identifier: Apache-2.0
"""Which tokens of which sequences the next step computes.

Continuous batching: every step may hold decoding sequences, pieces of prompts and new arrivals.
Decoding comes first and is never starved; prompts share what is left of the token budget in
order of arrival. Knows no model, samples nothing, reads no clock.

When blocks run out, the newest running sequence gives all of its blocks back and starts over
later (its known blocks stay cached while nobody else needs them). The oldest running sequence
is never the victim of another, and no sequence is taken that could not run alone, so every
request finishes.

Groups of layers have pools of their own (`kv_groups`). A sequence gets the blocks of its whole
prompt at once from a pool that keeps everything; from the pool of a window it gets them piece by
piece and gives those back that lie behind, so there a piece of prompt may be cut short.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from freehold.engine.kv_groups import KVGroup, longest_hit
from freehold.engine.metrics import EngineStats
from freehold.engine.prefix_snapshots import PrefixSnapshots
from freehold.engine.sequence import HeldBlocks, SequenceState, SequenceStatus

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
    # (source, target) blocks of each group, to be copied before anything is computed
    copies: list[list[tuple[int, int]]] = field(default_factory=list)
    num_tokens: int = 0
    num_decoding: int = 0  # leading items that decode


class Scheduler:
    """Owns the queues and decides; see the module docstring for the policy."""

    def __init__(
        self,
        groups: Sequence[KVGroup],
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        stats: EngineStats | None = None,
        snapshots: PrefixSnapshots | None = None,
    ) -> None:
        # One token a step for each decoding sequence must fit the budget, and each running
        # sequence holds a block.
        least = min(group.pool.num_blocks for group in groups)
        self.max_num_seqs = min(max_num_seqs, max_num_batched_tokens, least)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.groups = tuple(groups)
        self._windowed = [i for i, group in enumerate(self.groups) if group.window]
        self._size = groups[0].pool.block_size
        self._snapshots = snapshots if groups[0].pool.prefix_caching else None
        self._prefix_caching = groups[0].pool.prefix_caching
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
        """Take a sequence out for good and free what it holds, unless it is to keep its blocks."""
        if seq.status is SequenceStatus.RUNNING:
            self._release(seq, keep=seq.keeps_blocks and seq.num_remaining == 0)
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
        plan = StepPlan(copies=[[] for _ in self.groups])
        short = self._schedule_decodes(plan)
        short |= self._schedule_prompts(plan)
        while short and not plan.items and len(self.running) > 1:
            self._preempt(self.running[-1])  # each waits for blocks that another holds
            self._schedule_prompts(plan)
        if not short:
            self._admit(plan)
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
        before, seq.num_computed = seq.num_computed, num_computed
        full = num_computed // self._size
        if self._prefix_caching and full != seq.num_registered:
            self._register(seq, full)
        if self._snapshots and before < seq.prompt_len <= num_computed:
            self._snapshots.keep(seq, self.groups)
        for index in self._windowed:  # after they have got their names
            self.groups[index].drop_passed(seq.blocks[index], num_computed)

    def _register(self, seq: SequenceState, full: int) -> None:
        size = self._size
        hashes = seq.hash_blocks(size, full * size)
        for i in range(seq.num_registered, full):
            parent = hashes[i - 1] if i else seq.root_hash
            tokens = seq.tokens[i * size : (i + 1) * size]
            for group, held in zip(self.groups, seq.blocks, strict=True):
                group.pool.register(held.block_ids[i], hashes[i], parent, tokens)
        self._drop_pending(seq, full)
        seq.num_registered = full

    # -- parts of a step -------------------------------------------------------------------------
    def _schedule_decodes(self, plan: StepPlan) -> bool:
        """What each decoding sequence is due, oldest first; whether anyone was thrown out.

        The victim is always newer than the sequence in hand, hence not yet in the plan.
        """
        preempted = False
        order = list(self.running)
        for index, seq in enumerate(order):
            if seq.status is not SequenceStatus.RUNNING or not seq.is_decoding:
                continue
            # Forced tokens come along where budget and blocks allow; each sequence gets one.
            spare = self.max_num_batched_tokens - plan.num_tokens - (len(order) - index)
            count = 1 + max(0, min(seq.num_remaining - 1, spare))
            while count > 1 and not self._extend(seq, seq.num_computed + count):
                count -= 1
            while not self._extend(seq, seq.num_computed + count):
                preempted = True
                victim = self.running[-1]
                self._preempt(victim)
                if victim is seq:
                    break
            if seq.status is SequenceStatus.RUNNING:
                self._take(plan, seq, count)
        plan.num_decoding = len(plan.items)
        return preempted

    def _schedule_prompts(self, plan: StepPlan) -> bool:
        """A piece of each prompt under way, oldest first; whether blocks cut one short."""
        short = False
        for seq in self.running:
            wanted = min(seq.num_remaining, self.max_num_batched_tokens - plan.num_tokens)
            if wanted == 0:
                break
            if not seq.is_decoding:
                short |= self._take_prompt(plan, seq, wanted) < wanted
        return short

    def _admit(self, plan: StepPlan) -> None:
        """Start waiting sequences in order of arrival.

        One that shares a beginning with a prompt under way steps aside for it, and others may
        pass; one that lacks blocks holds everyone behind it back, or it might wait forever.
        """
        admitted: list[SequenceState] = []
        for seq in self.waiting:
            budget = self.max_num_batched_tokens - plan.num_tokens
            if budget == 0 or len(self.running) + len(admitted) == self.max_num_seqs:
                break
            if seq.waits_for is not None:
                if self._pending[seq.waits_for] > 0:
                    continue
                seq.waits_for = None
            outcome = self._try_start(seq, plan, [*self.running, *admitted])
            if outcome is None:
                continue
            if not outcome:
                break
            admitted.append(seq)
            self._take_prompt(plan, seq, min(seq.num_remaining, budget))
        for seq in admitted:
            self.waiting.remove(seq)
            bisect.insort(self.running, seq, key=_arrival)

    def _try_start(
        self, seq: SequenceState, plan: StepPlan, running: Sequence[SequenceState]
    ) -> bool | None:
        """Find the cached prefix, allocate. None = wait for another's blocks; False = no room."""
        size, depth = self._size, 0
        found = [HeldBlocks() for _ in self.groups]
        sources, shared = [-1] * len(self.groups), 0
        if self._prefix_caching:
            # The last token is always computed: its output is what we are here for.
            usable = min(seq.next_wanted_row, seq.num_tokens - 1)
            hashes = seq.hash_blocks(size, seq.num_tokens)
            usable_blocks = usable // size
            if self._snapshots and seq.cached_tokens < 0 and self._may_look(hashes[:usable_blocks]):
                self._snapshots.restore(seq, usable_blocks, self.groups)
            depth, found = longest_hit(self.groups, hashes[:usable_blocks])
            if depth < usable_blocks and self._pending[hashes[depth]] > 0:
                seq.waits_for = hashes[depth]
                return None
            parent = hashes[depth - 1] if depth else seq.root_hash
            rest = seq.tokens[depth * size : min(usable, (depth + 1) * size)]
            if len(rest):
                matches = [group.pool.match_partial(parent, rest) for group in self.groups]
                sources, shared = [block for block, _ in matches], min(n for _, n in matches)
        whole = -(-seq.num_tokens // size) - depth
        if not all(
            self._has_room(index, held, whole, seq, running) for index, held in enumerate(found)
        ):
            return False
        for group, held in zip(self.groups, found, strict=True):
            group.pool.acquire(held.held)
            # From a window's pool only the next block; the rest comes with each piece of prompt.
            held.block_ids.extend(group.pool.allocate(1 if group.window else whole))
        seq.blocks = found
        seq.num_registered = depth
        seq.num_computed = depth * size + shared
        if shared:
            for copies, source, held in zip(plan.copies, sources, found, strict=True):
                copies.append((source, held.block_ids[depth]))
        if self._prefix_caching:
            seq.num_pending = len(seq.block_hashes)
            self._pending.update(seq.block_hashes[depth:])
        if seq.cached_tokens < 0:
            seq.cached_tokens = seq.num_computed
            self.stats.cached_tokens += seq.num_computed
        seq.table_row = self._free_rows.pop()
        seq.status = SequenceStatus.RUNNING
        return True

    def _may_look(self, hashes: Sequence[bytes]) -> bool:
        """Whether nobody is computing a block of this prompt anyway."""
        return not any(self._pending[digest] > 0 for digest in hashes)

    def _has_room(
        self,
        index: int,
        found: HeldBlocks,
        whole: int,
        seq: SequenceState,
        running: Sequence[SequenceState],
    ) -> bool:
        """Whether a sequence that lacks `whole` blocks can start beside those that run."""
        group = self.groups[index]
        revived = sum(not group.pool.is_held(block) for block in found.held)
        if group.window:
            need = max(1, min(whole, group.steady - len(found.held)))
            margin = sum(group.still_to_take(s.num_tokens, s.blocks[index]) for s in running)
        else:
            need, margin = whole, ADMISSION_MARGIN * len(running)
        return need + revived + margin <= group.pool.num_free

    def _take(self, plan: StepPlan, seq: SequenceState, count: int) -> None:
        plan.items.append(ScheduledSequence(seq, count))
        plan.num_tokens += count

    def _take_prompt(self, plan: StepPlan, seq: SequenceState, count: int) -> int:
        """Up to `count` tokens of a prompt, as many as there are blocks for."""
        for index in self._windowed:
            pool, held = self.groups[index].pool, seq.blocks[index]
            blocks = len(held.block_ids) + pool.num_free
            count = min(count, blocks * self._size - seq.num_computed)
        if count > 0:
            if self._windowed:
                self._extend(seq, seq.num_computed + count)
            self._take(plan, seq, count)
        return count

    def _extend(self, seq: SequenceState, length: int) -> bool:
        """Make sure the sequence has blocks for `length` tokens; False when there are none left."""
        blocks = -(-length // self._size)
        for group, held in zip(self.groups, seq.blocks, strict=True):
            if blocks - len(held.block_ids) > group.pool.num_free:
                return False
        for group, held in zip(self.groups, seq.blocks, strict=True):
            if (need := blocks - len(held.block_ids)) > 0:
                held.block_ids.extend(group.pool.allocate(need))
        return True

    def _preempt(self, seq: SequenceState) -> None:
        self._release(seq)
        self.running.remove(seq)
        seq.status = SequenceStatus.WAITING
        self.stats.preemptions += 1
        self.add(seq)

    def _release(self, seq: SequenceState, *, keep: bool = False) -> None:
        self._drop_pending(seq, seq.num_pending)
        seq.num_pending = 0
        if not keep:
            for group, held in zip(self.groups, seq.blocks, strict=True):
                group.pool.release(held.held)
            seq.blocks = []
            seq.num_registered = seq.num_computed = seq.num_ahead = 0
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
