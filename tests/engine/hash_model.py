# SPDX-License-Identifier: Apache-2.0
"""A model whose answer gives away any mistake in the cache, in microseconds.

It has one layer per group of the cache. The "key" that a layer without a window stores for a
position is a 64-bit hash of all tokens up to there, made from the one stored at the position
before. A layer with a window stores a hash of the position's token and of what the layer below
says, and says a hash of all it stored within the window. Logits are pseudo-random numbers keyed by
what the last layer says. A block that was shared wrongly, overwritten, given back too early,
copied late or never computed therefore changes tokens. The cache starts full of garbage, and
blocks that nobody holds or knows become garbage again. `forward` also checks the batch against the
definitions in `freehold.batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from freehold.config import EngineConfig
from freehold.engine.block_manager import BlockManager
from freehold.engine.engine import Engine
from freehold.engine.kv_groups import first_kept, most_blocks
from freehold.engine.sequence import StepOutput
from freehold.ops import KVLayerSpec, blocks_per_group
from freehold.types import SamplingParams

_MASK = 2**64 - 1


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def next_state(state: int, token: int) -> int:
    """Hash of a prefix and one more token."""
    return _mix((state * 0x9E3779B97F4A7C15 + token + 1) & _MASK)


def window_state(stored: Sequence[int]) -> int:
    """What a layer with a window says of the keys in it, the oldest first."""
    state = 1
    for key in stored:
        state = _mix((state * 0x9E3779B97F4A7C15 + key) & _MASK)
    return state


def states_of(tokens: Sequence[int], windows: Sequence[int] = (0,)) -> list[int]:
    """What the last layer says of every position."""
    said = [0] * len(tokens)
    for window in windows:
        if window == 0:
            state, following = 0, []
            for token, below in zip(tokens, said, strict=True):
                state = next_state(state, token + below)
                following.append(state)
        else:
            keys = [next_state(below, token) for token, below in zip(tokens, said, strict=True)]
            following = [
                window_state(keys[max(0, p - window + 1) : p + 1]) for p in range(len(keys))
            ]
        said = following
    return said


def state_of(tokens: Sequence[int], windows: Sequence[int] = (0,)) -> int:
    """What the last layer says of the last token."""
    return states_of(tokens, windows)[-1]


def logits_of(states: np.ndarray, vocab: int) -> np.ndarray:
    """Numbers in [-4, 4) for each state: float32 [len(states), vocab]."""
    x = states.astype(np.uint64)[:, None] + np.arange(1, vocab + 1, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x >> np.uint64(40)).astype(np.float32) / 2**24 * 8 - 4).astype(np.float32)


def greedy_answer(
    prompt: Sequence[int],
    count: int,
    vocab: int,
    ends: Sequence[int] = (),
    windows: Sequence[int] = (0,),
) -> list:
    """What a greedy run must give, by definition."""
    answer: list[int] = []
    while len(answer) < count:
        states = np.array([state_of([*prompt, *answer], windows)], np.uint64)
        answer.append(int(logits_of(states, vocab)[0].argmax()))
        if answer[-1] in ends:
            break
    return answer


@dataclass
class HashCache:
    num_blocks: tuple[int, ...]
    block_size: int
    dtype: str
    states: list[np.ndarray]  # of each group: [slots]
    nbytes: int = 0


class HashOps:
    """The few ops the engine itself calls."""

    name = "hash"

    def __init__(self) -> None:
        self.cache: HashCache | None = None

    def alloc_kv(self, layers: Any, num_blocks: Any, block_size: int, dtype: str) -> HashCache:
        counts = blocks_per_group(layers, num_blocks)
        rng = np.random.default_rng(0)
        states = [rng.integers(0, 2**63, n * block_size).astype(np.uint64) for n in counts]
        self.cache = HashCache(counts, block_size, dtype, states)
        return self.cache

    def copy_blocks(self, cache: HashCache, group: int, src: np.ndarray, dst: np.ndarray) -> None:
        view = cache.states[group].reshape(-1, cache.block_size)
        for s, d in zip(src.tolist(), dst.tolist(), strict=True):
            view[d] = view[s]

    def take_rows(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return x[rows]

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x, np.float32)


class HashModel:
    """`CausalLM` over `HashOps`."""

    def __init__(self, vocab: int, windows: Sequence[int] = (0,)) -> None:
        self.config = SimpleNamespace(vocab_size=vocab)
        self.vocab = vocab
        self.windows = tuple(windows)
        self.batches: list[tuple[int, int]] = []  # (tokens, sequences) of every step

    def kv_layers(self) -> list[KVLayerSpec]:
        return [KVLayerSpec(1, 1, 1, window) for window in self.windows]

    def weight_bytes(self) -> int:
        return 0

    def forward(self, batch: Any, cache: HashCache, ops: Any) -> np.ndarray:
        self.batches.append((batch.num_tokens, batch.num_seqs))
        assert len(batch.tables) == len(self.windows)
        said = [0] * batch.num_tokens
        for group, window in enumerate(self.windows):
            said = self._layer(batch, cache, group, window, said)
        return np.array(said, np.uint64)[batch.logits_rows][:, None]

    def logits(self, hidden: np.ndarray, ops: Any) -> np.ndarray:
        return logits_of(hidden[:, 0], self.vocab)

    def _layer(
        self, batch: Any, cache: HashCache, group: int, window: int, below: list[int]
    ) -> list[int]:
        tables, size = batch.tables[group], cache.block_size
        keys, slots = cache.states[group], tables.slot_mapping
        assert len(set(slots.tolist())) == batch.num_tokens, "a slot is written twice"
        said = [0] * batch.num_tokens
        for s in range(batch.num_seqs):
            begin, end = batch.query_start_loc[s], batch.query_start_loc[s + 1]
            length = int(batch.seq_lens[s])
            assert 0 < end - begin <= length
            start = length - (end - begin)
            gone = first_kept(window, start, size)
            assert not tables.block_tables[s, :gone].any(), "a block outlives its window"

            def slot(position: int, s: int = s) -> int:
                block = int(tables.block_tables[s, position // size])
                return block * size + position % size

            for r in range(begin, end):
                position = length - (end - r)
                assert batch.positions[r] == position
                assert slots[r] == slot(position)
                token = int(batch.token_ids[r])
                if window == 0:
                    before = int(keys[slot(position - 1)]) if position else 0
                    said[r] = next_state(before, token + below[r])
                    keys[slots[r]] = said[r]
                else:
                    keys[slots[r]] = next_state(below[r], token)
                    seen = range(max(0, position - window + 1), position + 1)
                    said[r] = window_state([int(keys[slot(p)]) for p in seen])
        return said


def hash_engine(
    vocab: int = 5, windows: Sequence[int] = (0,), **config: Any
) -> tuple[Engine, HashModel]:
    model = HashModel(vocab, windows)
    engine_options = {k: config.pop(k) for k in ("eos_token_ids", "token_bytes") if k in config}
    settings: dict[str, Any] = {"context_length": 64, "num_blocks": 64, "block_size": 4}
    engine = Engine(model, HashOps(), EngineConfig(**(settings | config)), **engine_options)
    return engine, model


def check_books(engine: Engine) -> None:
    """Every count that must balance between two steps. Spoils what is free."""
    scheduler = engine._scheduler
    for index, group in enumerate(scheduler.groups):
        _check_pool(engine, index, group.pool, group.window)
    assert not any(seq.blocks for seq in scheduler.waiting)
    rows = [seq.table_row for seq in scheduler.running] + scheduler._free_rows
    assert sorted(rows) == list(range(scheduler.max_num_seqs))
    pending = sum(scheduler._pending.values())
    assert pending == sum(max(0, s.num_pending - s.num_registered) for s in scheduler.running)
    assert set(engine._sequences.values()) == {*scheduler.running, *scheduler.waiting}


def _check_pool(engine: Engine, index: int, pool: BlockManager, window: int) -> None:
    scheduler, size = engine._scheduler, pool.block_size
    pool.check()
    held = [b for seq in scheduler.running for b in seq.blocks[index].held]
    for block in range(pool.num_blocks):
        assert pool.references(block) == held.count(block)
    for seq in scheduler.running:
        blocks = seq.blocks[index]
        assert len(set(blocks.held)) == len(blocks.held)
        assert not any(blocks.block_ids[: blocks.num_dropped])
        assert blocks.num_dropped == first_kept(window, seq.num_computed, size)
        assert seq.num_computed <= min(seq.num_tokens, len(blocks.block_ids) * size)
        if window:  # whatever the length
            budget = scheduler.max_num_batched_tokens
            assert len(blocks.held) <= most_blocks(window, 10**9, budget, size)
        # What is about to be written belongs to this sequence alone and has no name yet.
        for block in blocks.block_ids[seq.num_computed // size :]:
            assert pool.references(block) == 1
    cache = engine._runner.cache
    if isinstance(cache, HashCache):
        view = cache.states[index].reshape(-1, size)
        view[[b for b in pool._blank if not pool.is_held(b)]] = _mix(engine.stats.steps + 77)


def check_empty(engine: Engine) -> None:
    """Nothing is left behind by the requests that are over."""
    check_books(engine)
    for pool in engine.pools:
        assert pool.num_free == pool.num_blocks
    assert not engine._scheduler._pending
    assert engine.num_unfinished == 0


def finish_all(engine: Engine, limit: int = 5000) -> dict[str, list[StepOutput]]:
    """Step to the end, checking the books after each; outputs by request."""
    outputs: dict[str, list[StepOutput]] = {}
    for _ in range(limit):
        if not engine.has_unfinished():
            check_empty(engine)
            return outputs
        for output in engine.step():
            seen = outputs.setdefault(output.request_id, [])
            assert not (seen and seen[-1].finished), "an output after the last one"
            seen.append(output)
        check_books(engine)
    raise AssertionError("the engine does not come to an end")


def tokens_of(outputs: Sequence[StepOutput]) -> list[int]:
    return [token for output in outputs for token in output.new_token_ids]


def alone(prompt: Sequence[int], params: SamplingParams, **config: Any) -> list[StepOutput]:
    """The outputs of one request in an engine of its own with room for everything."""
    engine, _ = hash_engine(**config)
    request_id = engine.add(prompt, params)
    return finish_all(engine)[request_id]
