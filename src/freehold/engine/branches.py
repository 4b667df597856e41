# SPDX-License-Identifier: Apache-2.0
"""Many short continuations of few prompts: their numbers, in few and large forward passes.

A prompt is computed like any other, in the steps of the engine, and keeps its blocks: it is a
*trunk*. A *branch* is tokens behind a trunk. In a pass each branch is a sequence of its own that
shares the trunk's full blocks; of the last, partial one it has a copy, in a block that is given
back right after the pass, unless the branch is to be a trunk of more branches. A pass is a handful
of arrays: no branch is a request, none is hashed, queued or made known to the prefix cache.

Where blocks are short, fewer trunks are kept at a time and fewer branches share a pass. Where
there is not even a block for a copy, one branch writes behind its trunk, in the trunk's own: what
lies there is nobody's. Numbers are those of `Measurement`, to the bit. Knows no text and no labels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from freehold.batch import ForwardBatch, IntArray, KVTables
from freehold.engine.kv_groups import KVGroup
from freehold.engine.measuring import Measurement, numbers_of
from freehold.engine.model_runner import ModelRunner
from freehold.engine.results import ROWS_PER_SLICE
from freehold.engine.selection import log_sum_exp, log_sum_exps
from freehold.engine.sequence import HeldBlocks, StepOutput
from freehold.errors import CapacityError, EngineError, InvalidParameterError
from freehold.ops import FloatArray

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.models.adapters import Adapter

_IDLE = 3  # steps without a token after which others, or we, hold what the rest waits for
_RESERVE = 64  # branches there should be blocks for beside the trunks...
_RESERVE_SHARE = 4  # ...out of at most one part in so many of a pool


@dataclass(frozen=True, slots=True, eq=False)
class Trunk:
    """A prompt whose keys and values are in the cache, and stay there until it is dropped."""

    length: int
    numbers: FloatArray  # of the measurement that it was
    cached_tokens: int
    blocks: tuple[HeldBlocks, ...]  # one per group of layers


@dataclass(frozen=True, slots=True)
class Branch:
    """Tokens behind a trunk, at least one, and what is wanted of them.

    The log-probability of each token of `path` after the first `known` (at least one: the trunk
    tells the first), then of each of `targets` coming after the last, then of any of `endings`,
    where there are some.
    """

    trunk: Trunk
    path: Sequence[int]
    known: int = 1
    targets: Sequence[int] = ()
    endings: Sequence[int] = ()
    keep: bool = False  # as a trunk, where there are blocks to spare


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of a branch: float32 [len(path) - known + len(targets) (+ 1)], and the branch as a
    trunk that its own does not need to outlive."""

    numbers: FloatArray
    trunk: Trunk | None = None


class Branches:
    """Trunks of one engine and passes over their branches; closing gives all blocks back."""

    def __init__(
        self, engine: Engine, groups: Sequence[KVGroup], runner: ModelRunner,
        adapter: Adapter | None, salt: bytes,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._groups = tuple(groups)
        self._runner = runner
        self._adapter, self._salt = adapter, salt
        self._size = groups[0].pool.block_size
        self._trunks: dict[Trunk, None] = {}
        self._longest = 0  # tokens a branch of a grown trunk may have

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop(list(self._trunks))

    # -- trunks --------------------------------------------------------------------------------
    def grow(self, wanted: Sequence[Measurement], longest: int) -> list[Trunk | None]:
        """Trunks of ``next`` measurements, whose branches have up to `longest` tokens. None for
        those there was no room for beside the others; one at least is made.

        Raises what `Engine.measure_outputs` raises.
        """
        self._longest = max(longest, self._longest)
        ids: list[str] = []
        found: dict[str, Trunk] = {}
        others: list[StepOutput] = []
        idle = 0
        try:
            for each in wanted:
                each = replace(each, keeps_blocks=True)
                ids.append(
                    self._engine.add_measurement(each, adapter=self._adapter, salt=self._salt)
                )
            lengths = {name: len(each.ids) for name, each in zip(ids, wanted, strict=True)}
            while len(found) < len(ids) and (idle < _IDLE or not found):
                before = self._engine.stats.steps
                outputs = self._engine.step()
                idle = 0 if outputs or self._engine.stats.steps > before else idle + 1
                others += [output for output in outputs if output.request_id not in lengths]
                mine = [output for output in outputs if output.request_id in lengths]
                if error := next((output.error for output in mine if output.error), None):
                    self._give_back(mine)
                    raise error
                for output in mine:
                    found[output.request_id] = self._keep(output, lengths[output.request_id])
        finally:
            self._give_back(self._engine.reclaim(ids, others))
        kept = list(found.values())
        while len(kept) > 1 and not self._has_reserve(longest, kept[-1].length):
            self.drop([kept.pop()])
        return [found.get(name) if found.get(name) in self._trunks else None for name in ids]

    @property
    def trunks(self) -> tuple[Trunk, ...]:
        """Those that are held."""
        return tuple(self._trunks)

    @property
    def pass_tokens(self) -> int:
        """Tokens of one pass; a branch of more has one of its own."""
        return self._engine.config.max_num_batched_tokens

    @property
    def scarce(self) -> bool:
        """Whether blocks are too few to keep branches."""
        return not self.can_keep(())

    def can_keep(self, wanted: Sequence[Branch]) -> bool:
        """Whether there are blocks to keep those of some branches that are to be kept."""
        least = 2 + self._longest // self._size  # any other branch still has its blocks
        blocks = sum(
            self._blocks_for(branch.trunk.length, len(branch.path))
            for branch in wanted
            if branch.keep
        )
        return all(
            group.pool.num_free - blocks >= max(least, group.pool.num_blocks // _RESERVE_SHARE)
            for group in self._groups
        )

    def drop(self, trunks: Sequence[Trunk]) -> None:
        """Give the blocks of some trunks back; their full ones stay known to the prefix cache."""
        for trunk in trunks:
            del self._trunks[trunk]
            self._release(trunk.blocks)

    def _keep(self, output: StepOutput, length: int) -> Trunk:
        trunk = Trunk(length, numbers_of(output), output.cached_tokens, output.blocks)
        self._trunks[trunk] = None
        return trunk

    def _give_back(self, outputs: Sequence[StepOutput]) -> None:
        for output in outputs:
            self._release(output.blocks)

    def _release(self, blocks: Sequence[HeldBlocks]) -> None:
        for group, held in zip(self._groups, blocks, strict=False):
            group.pool.release(held.held)

    def _has_reserve(self, longest: int, length: int) -> bool:
        each = self._blocks_for(length, longest)
        return all(
            group.pool.num_free
            >= max(each, min(_RESERVE * each, group.pool.num_blocks // _RESERVE_SHARE))
            for group in self._groups
        )

    def _blocks_for(self, length: int, tokens: int) -> int:
        """Blocks of its own that a branch of so many tokens needs behind so many."""
        return -(-(length + tokens) // self._size) - length // self._size

    # -- branches ------------------------------------------------------------------------------
    def measure(self, wanted: Sequence[Branch]) -> list[Measured]:
        """What is wanted of branches of trunks that were not dropped.

        Raises CapacityError where others hold the blocks that a single one needs, EngineError for
        what is no number.
        """
        for branch in wanted:
            if branch.trunk not in self._trunks:
                raise InvalidParameterError("a branch needs a trunk that was not dropped")
            if not 1 <= branch.known <= len(branch.path):
                raise InvalidParameterError("a branch has at least one token, which its trunk told")
        found: list[Measured] = []
        at = 0
        while at < len(wanted):
            count = self._that_fit(wanted, at)
            if not count:
                self._let_others_go_on(wanted[at])
            found += self._pass(wanted[at : at + max(1, count)], in_place=count == 0)
            at += max(1, count)
        return found

    def _let_others_go_on(self, branch: Branch) -> None:
        """Step the requests of others until they leave the blocks that this one needs, at worst
        those behind its trunk's own; or until they do not move."""
        length, idle = branch.trunk.length, 0
        need = -(-(length + len(branch.path)) // self._size) - -(-length // self._size)
        others: list[StepOutput] = []
        engine = self._engine
        try:
            while idle < _IDLE and any(group.pool.num_free < need for group in self._groups):
                before = engine.stats.steps
                others += engine.step()
                idle = 0 if engine.stats.steps > before else idle + 1
        finally:
            engine.reclaim((), others)

    def _that_fit(self, wanted: Sequence[Branch], start: int) -> int:
        """How many from `start` on make a pass: as budget and free blocks allow."""
        blocks = min(group.pool.num_free for group in self._groups)
        tokens = self._engine.config.max_num_batched_tokens
        for count, branch in enumerate(wanted[start:]):
            size = len(branch.path)
            blocks -= self._blocks_for(branch.trunk.length, size)
            tokens -= size
            if blocks < 0 or (tokens < 0 and count):
                return count
        return len(wanted) - start

    def _pass(self, branches: Sequence[Branch], *, in_place: bool) -> list[Measured]:
        """One forward pass, and the output head over its rows."""
        began = time.perf_counter()
        stats, runner = self._engine.stats, self._runner
        sizes = np.array([len(branch.path) for branch in branches], np.int32)
        starts = np.array([branch.trunk.length for branch in branches], np.int32)
        taken: list[list[int]] = []
        try:
            tables = self._tables(branches, starts, sizes, taken, in_place=in_place)
            batch = self._batch(branches, starts, sizes, tables)
            hidden = runner.forward(batch, [self._adapter] * len(branches))
            numbers = self._numbers(branches, runner, hidden)
            kept: Sequence[Trunk | None] = [None] * len(branches)
            if not in_place and any(branch.keep for branch in branches) and not self.scarce:
                kept = [
                    self._kept(branch, [table[i] for table in tables]) if branch.keep else None
                    for i, branch in enumerate(branches)
                ]
            found = [Measured(*each) for each in zip(numbers, kept, strict=True)]
        finally:
            for group, blocks in zip(self._groups, taken, strict=False):
                group.pool.release(blocks)
        stats.steps += 1
        stats.prefill_tokens += batch.num_tokens
        spent = time.perf_counter() - began
        stats.model_seconds += spent
        stats.step_seconds += spent
        return found

    def _kept(self, branch: Branch, rows: Sequence[IntArray]) -> Trunk:
        """The branch as a trunk; it holds whatever it needs by itself."""
        length = branch.trunk.length + len(branch.path)
        blocks = []
        for group, row, held in zip(self._groups, rows, branch.trunk.blocks, strict=True):
            ids = row[: -(-length // self._size)].tolist()
            blocks.append(HeldBlocks(ids, held.num_dropped))
            group.pool.acquire(ids[held.num_dropped :])
        none = np.empty(0, np.float32)
        trunk = Trunk(length, none, branch.trunk.cached_tokens, tuple(blocks))
        self._trunks[trunk] = None
        return trunk

    def _tables(
        self, branches: Sequence[Branch], starts: IntArray, sizes: IntArray,
        taken: list[list[int]], *, in_place: bool,
    ) -> list[IntArray]:  # fmt: skip
        """Of each group the blocks of each branch [S, width], copies made. What is allocated is
        noted in `taken`."""
        full = starts // self._size
        first = -(-starts // self._size) if in_place else full  # block of its own
        need = -(-(starts + sizes) // self._size) - first
        width = int((first + need).max())
        trunks = list(dict.fromkeys(branch.trunk for branch in branches))
        place = {trunk: i for i, trunk in enumerate(trunks)}
        owner = np.array([place[branch.trunk] for branch in branches], np.intp)
        partial = np.flatnonzero((starts % self._size > 0) & (first == full))
        branch_of = np.repeat(np.arange(len(branches)), need)
        columns = np.arange(len(branch_of)) + np.repeat(first - (np.cumsum(need) - need), need)
        found = []
        for index, group in enumerate(self._groups):
            rows = np.zeros((len(trunks), width), np.int32)
            for row, trunk in zip(rows, trunks, strict=True):
                blocks = trunk.blocks[index].block_ids[:width]
                row[: len(blocks)] = blocks
            table: IntArray = rows[owner]
            if len(branch_of) > group.pool.num_free:
                raise CapacityError(
                    f"a continuation needs {len(branch_of)} cache blocks and "
                    f"{group.pool.num_free} are free",
                    hint="ask again when other requests are over, or give the cache more memory",
                )
            taken.append(group.pool.allocate(len(branch_of)))
            table[branch_of, columns] = taken[-1]
            if len(partial):
                source = rows[owner[partial], full[partial]]
                target = table[partial, full[partial]]
                self._runner.ops.copy_blocks(self._runner.cache, index, source, target)
            found.append(table)
        return found

    def _batch(
        self, branches: Sequence[Branch], starts: IntArray, sizes: IntArray,
        tables: Sequence[IntArray],
    ) -> ForwardBatch:  # fmt: skip
        ends = np.cumsum(sizes)
        begins = ends - sizes
        total = int(ends[-1])
        within = np.arange(total) - np.repeat(begins, sizes)
        owner = np.repeat(np.arange(len(branches)), sizes)
        positions = (within + starts[owner]).astype(np.int32)
        block, inside = positions // self._size, positions % self._size
        known = np.array([branch.known for branch in branches])
        return ForwardBatch(
            token_ids=np.concatenate([np.asarray(b.path, np.int32) for b in branches]),
            positions=positions,
            query_start_loc=np.concatenate([[0], ends]).astype(np.int32),
            seq_lens=(starts + sizes).astype(np.int32),
            tables=tuple(
                KVTables((table[owner, block] * self._size + inside).astype(np.int32), table)
                for table in tables
            ),
            logits_rows=np.flatnonzero(within >= known[owner] - 1).astype(np.int32),
        )

    def _numbers(
        self, branches: Sequence[Branch], runner: ModelRunner, hidden: npt.NDArray[np.float32]
    ) -> list[FloatArray]:
        """What is wanted of each branch, some rows of logits in memory at a time."""
        rows: list[int] = []  # of each number the output row it is read from...
        tokens: list[int] = []  # ...and the token, or any one where it is of all endings
        ends: list[tuple[int, Branch]] = []  # ...which these numbers are
        row, starts = 0, [0]
        for branch in branches:
            for token in branch.path[branch.known :]:
                rows.append(row)
                tokens.append(token)
                row += 1
            rows += [row] * len(branch.targets)
            tokens += branch.targets
            if len(branch.endings):
                ends.append((len(rows), branch))
                rows.append(row)
                tokens.append(0)
            row += 1
            starts.append(len(rows))
        numbers = np.empty(len(rows), np.float32)
        where, which = np.array(rows, np.intp), np.array(tokens, np.intp)
        for at in range(0, len(hidden), ROWS_PER_SLICE):
            logits = runner.logits(hidden[at : at + ROWS_PER_SLICE])
            low, high = np.searchsorted(where, (at, at + len(logits)))
            here = where[low:high] - at
            found = logits[here, which[low:high]].astype(np.float64)
            for place, branch in ends:
                if low <= place < high:
                    row = rows[place] - at
                    found[place - low] = log_sum_exp(logits[row][np.asarray(branch.endings)])
            numbers[low:high] = found - log_sum_exps(logits, overwrite=True)[here]
        if np.isnan(numbers).any():
            raise EngineError("a score is not a number: the model's weights are broken")
        return [numbers[a:b] for a, b in itertools.pairwise(starts)]
