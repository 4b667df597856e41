# SPDX-License-Identifier: Apache-2.0
"""A model whose answer gives away any mistake in the cache, in microseconds.

The "key" it stores for a position is a 64-bit hash of all tokens up to there, made from the one
stored at the position before. Logits are pseudo-random numbers keyed by that hash. A block that
was shared wrongly, overwritten, copied late or never computed therefore changes every later
token. The cache starts full of garbage. `forward` also checks the batch against the definitions
in `freehold.batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.sequence import StepOutput
from freehold.types import SamplingParams

_MASK = 2**64 - 1


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def next_state(state: int, token: int) -> int:
    """Hash of a prefix and one more token."""
    return _mix((state * 0x9E3779B97F4A7C15 + token + 1) & _MASK)


def state_of(tokens: Sequence[int]) -> int:
    state = 0
    for token in tokens:
        state = next_state(state, token)
    return state


def logits_of(states: np.ndarray, vocab: int) -> np.ndarray:
    """Numbers in [-4, 4) for each state: float32 [len(states), vocab]."""
    x = states.astype(np.uint64)[:, None] + np.arange(1, vocab + 1, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x >> np.uint64(40)).astype(np.float32) / 2**24 * 8 - 4).astype(np.float32)


def greedy_answer(prompt: Sequence[int], count: int, vocab: int, ends: Sequence[int] = ()) -> list:
    """What a greedy run must give, by definition."""
    answer: list[int] = []
    while len(answer) < count:
        states = np.array([state_of([*prompt, *answer])], np.uint64)
        answer.append(int(logits_of(states, vocab)[0].argmax()))
        if answer[-1] in ends:
            break
    return answer


@dataclass
class HashCache:
    num_blocks: tuple[int, ...]
    block_size: int
    dtype: str
    states: np.ndarray
    nbytes: int = 0


class HashOps:
    """The few ops the engine itself calls."""

    name = "hash"

    def alloc_kv(self, layers: Any, num_blocks: int, block_size: int, dtype: str) -> HashCache:
        garbage = np.random.default_rng(0).integers(0, 2**63, num_blocks * block_size)
        return HashCache((num_blocks,), block_size, dtype, garbage.astype(np.uint64))

    def copy_blocks(self, cache: HashCache, group: int, src: np.ndarray, dst: np.ndarray) -> None:
        view = cache.states.reshape(cache.num_blocks[0], cache.block_size)
        for s, d in zip(src.tolist(), dst.tolist(), strict=True):
            view[d] = view[s]

    def take_rows(self, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return x[rows]

    def to_numpy(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x, np.float32)


class HashModel:
    """`CausalLM` over `HashOps`."""

    def __init__(self, vocab: int) -> None:
        self.config = SimpleNamespace(vocab_size=vocab)
        self.vocab = vocab
        self.batches: list[tuple[int, int]] = []  # (tokens, sequences) of every step

    def kv_layers(self) -> list[Any]:
        return []

    def weight_bytes(self) -> int:
        return 0

    def forward(self, batch: Any, cache: HashCache, ops: Any) -> np.ndarray:
        size = cache.block_size
        self.batches.append((batch.num_tokens, batch.num_seqs))
        slots = batch.tables[0].slot_mapping
        assert len(set(slots.tolist())) == batch.num_tokens, "a slot is written twice"
        states = np.zeros(batch.num_tokens, np.uint64)
        for s in range(batch.num_seqs):
            begin, end = batch.query_start_loc[s], batch.query_start_loc[s + 1]
            length = int(batch.seq_lens[s])
            assert 0 < end - begin <= length
            for r in range(begin, end):
                position = length - (end - r)
                assert batch.positions[r] == position
                slot = self._slot(batch, s, position, size)
                assert slots[r] == slot
                before = (
                    int(cache.states[self._slot(batch, s, position - 1, size)]) if position else 0
                )
                states[r] = next_state(before, int(batch.token_ids[r]))
                cache.states[slot] = states[r]
        return states[batch.logits_rows][:, None]

    def logits(self, hidden: np.ndarray, ops: Any) -> np.ndarray:
        return logits_of(hidden[:, 0], self.vocab)

    @staticmethod
    def _slot(batch: Any, s: int, position: int, size: int) -> int:
        return int(batch.tables[0].block_tables[s, position // size]) * size + position % size


def hash_engine(vocab: int = 5, **config: Any) -> tuple[Engine, HashModel]:
    model = HashModel(vocab)
    engine_options = {k: config.pop(k) for k in ("eos_token_ids", "token_bytes") if k in config}
    settings: dict[str, Any] = {"context_length": 64, "num_blocks": 64, "block_size": 4}
    engine = Engine(model, HashOps(), EngineConfig(**(settings | config)), **engine_options)
    return engine, model


def check_books(engine: Engine) -> None:
    """Every count that must balance between two steps."""
    blocks, scheduler = engine.blocks, engine._scheduler
    blocks.check()
    held = [b for seq in scheduler.running for b in seq.block_ids]
    for block in range(blocks.num_blocks):
        assert blocks.references(block) == held.count(block)
    for seq in scheduler.running:
        assert len(set(seq.block_ids)) == len(seq.block_ids)
        assert seq.num_computed <= min(seq.num_tokens, len(seq.block_ids) * blocks.block_size)
        # What is about to be written belongs to this sequence alone and has no name yet.
        for block in seq.block_ids[seq.num_computed // blocks.block_size :]:
            assert blocks.references(block) == 1
    assert not any(seq.block_ids for seq in scheduler.waiting)
    rows = [seq.table_row for seq in scheduler.running] + scheduler._free_rows
    assert sorted(rows) == list(range(scheduler.max_num_seqs))
    pending = sum(scheduler._pending.values())
    assert pending == sum(max(0, s.num_pending - s.num_registered) for s in scheduler.running)
    assert set(engine._sequences.values()) == {*scheduler.running, *scheduler.waiting}


def check_empty(engine: Engine) -> None:
    """Nothing is left behind by the requests that are over."""
    check_books(engine)
    assert engine.blocks.num_free == engine.blocks.num_blocks
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
