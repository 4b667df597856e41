# SPDX-License-Identifier: Apache-2.0
"""Layers with a window keep no more than their window, and nobody can tell."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hash_model import check_books, finish_all, greedy_answer, hash_engine, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from batching import make_batch
from devices import open_device
from freehold.config import EngineConfig
from freehold.engine.block_manager import BlockManager
from freehold.engine.engine import Engine
from freehold.engine.kv_groups import KVGroup, first_kept, longest_hit, most_blocks
from freehold.engine.sequence import ROOT_HASH
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.ops import KVLayerSpec, kv_groups
from freehold.types import SamplingParams

VOCAB = 4
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


def text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


def test_groups_are_numbered_as_their_windows_first_occur():
    layers = [KVLayerSpec(1, 8, 8, window) for window in (64, 64, 0, 64, 32, 0)]
    assert kv_groups(layers) == (0, 0, 1, 0, 2, 1)
    assert kv_groups([]) == ()


# -- how much is held ------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [2, 4, 6, 9])
@pytest.mark.parametrize("budget", [1, 3, 16])
def test_a_sequence_of_any_length_lives_in_the_blocks_of_its_window(window, budget):
    blocks = most_blocks(window, 10**6, budget, 4)
    engine, _ = hash_engine(
        VOCAB, (window,), num_blocks=blocks, context_length=700, max_num_batched_tokens=budget
    )
    assert engine.max_length == 700
    prompt = text(1, 400)
    request_id = engine.add(prompt, SamplingParams(temperature=0.0, max_tokens=60))
    answer = tokens_of(finish_all(engine)[request_id])
    assert answer == greedy_answer(prompt, 60, VOCAB, windows=(window,))
    assert engine.stats.steps == -(-400 // budget) + 59  # no piece of prompt was cut short


def test_pieces_of_a_prompt_are_cut_to_a_small_pool():
    engine, model = hash_engine(VOCAB, (6,), num_blocks=3, context_length=300)
    prompt = text(2, 200)
    request_id = engine.add(prompt, GREEDY)
    answer = tokens_of(finish_all(engine)[request_id])
    assert answer == greedy_answer(prompt, 12, VOCAB, windows=(6,))
    assert max(tokens for tokens, _ in model.batches) <= 12


def test_a_pool_smaller_than_the_window_shortens_sequences():
    engine, _ = hash_engine(VOCAB, (9, 0), num_blocks=2, context_length=300)
    assert engine.max_length == 8
    finish_all(engine)


def test_prompts_that_block_each_other_give_way_to_the_oldest():
    engine, _ = hash_engine(
        VOCAB, (13,), num_blocks=5, context_length=100, max_num_batched_tokens=4, max_num_seqs=4
    )
    prompts = [text(seed, 30) for seed in range(4)]
    short = SamplingParams(temperature=0.0, max_tokens=40)
    ids = [engine.add(prompt, short) for prompt in [*prompts, [1], [2], [3]]]
    outputs = finish_all(engine)
    for request_id, prompt in zip(ids, [*prompts, [1], [2], [3]], strict=True):
        want = greedy_answer(prompt, 40, VOCAB, windows=(13,))
        assert tokens_of(outputs[request_id]) == want


# -- prefixes --------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=3, unique=True),
    st.integers(1, 5),
    st.integers(0, 12),
    st.data(),
)
def test_a_hit_is_the_longest_that_every_group_can_serve(windows, size, length, data):
    hashes = [bytes([i]) for i in range(length)]
    groups, known = [], []
    for window in windows:
        pool = BlockManager(20, size)
        there = (
            data.draw(st.sets(st.integers(0, 11))) if data.draw(st.booleans()) else set(range(12))
        )
        blocks = pool.allocate(len(there))
        for index, block in zip(sorted(there), blocks, strict=True):
            tokens = np.full(size, index, np.int32)
            pool.register(block, bytes([index]), ROOT_HASH, tokens)
        groups.append(KVGroup(pool, window))
        known.append(dict(zip(sorted(there), blocks, strict=True)))

    def serves(depth: int) -> bool:
        return all(
            set(range(first_kept(w, depth * size, size), depth)) <= set(k)
            for w, k in zip(windows, known, strict=True)
        )

    depth, found = longest_hit(groups, hashes)
    assert depth == max(d for d in range(length + 1) if serves(d))
    for window, blocks, held in zip(windows, known, found, strict=True):
        first = first_kept(window, depth * size, size)
        assert held.num_dropped == first
        assert held.block_ids == [0] * first + [blocks[i] for i in range(first, depth)]


@pytest.mark.parametrize("windows", [(0, 6), (6, 0), (6,), (3, 10)])
def test_a_prompt_seen_before_is_found_though_its_beginning_was_given_back(windows):
    engine, _ = hash_engine(VOCAB, windows, context_length=200, max_num_batched_tokens=16)
    prompt = text(3, 90)
    engine.add(prompt, GREEDY)
    finish_all(engine)
    again = engine.add([*prompt, 1], GREEDY)
    outputs = finish_all(engine)[again]
    assert outputs[0].cached_tokens == 90
    assert tokens_of(outputs) == greedy_answer([*prompt, 1], 12, VOCAB, windows=windows)


def forget(pool: BlockManager, digest: bytes) -> None:
    """As if the free block had been needed for something else."""
    block = pool.find(digest)
    del pool._cached[block]
    pool._forget(block)
    pool._blank.append(block)


@pytest.mark.parametrize("missing", [0, 3, 10, 18, 19, 20, 21])
@pytest.mark.parametrize("group", [0, 1])
def test_a_missing_block_shortens_the_hit_and_changes_no_token(missing, group):
    windows = (0, 6)
    engine, _ = hash_engine(VOCAB, windows, context_length=200, prefix_caching=True)
    prompt = text(4, 90)
    engine.add(prompt, GREEDY)
    finish_all(engine)
    seq = engine._sequences[engine.add(prompt, GREEDY)]
    hashes = seq.hash_blocks(4, 90)
    forget(engine.pools[group], hashes[missing])
    outputs = finish_all(engine)[seq.request_id]
    assert tokens_of(outputs) == greedy_answer(prompt, 12, VOCAB, windows=windows)
    if group == 0 or missing >= first_kept(6, 88, 4):
        assert missing * 4 <= outputs[0].cached_tokens < (missing + 1) * 4
    else:
        assert outputs[0].cached_tokens == 89  # the windowed layers no longer need that block


# -- models ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    root = tmp_path_factory.mktemp("windows")

    @functools.cache
    def load(backend: str, kind: str):
        path = root / f"{kind}.gguf"
        if not path.exists():
            case = tiny_models.CASES[kind]
            wide = {"head_dim": 32, "sliding_window": 24, "max_position_embeddings": 256}
            tiny_models.write_gguf(tiny_models.build(case, **wide), path)
        ops = open_device((backend, {"threads": 1} if backend == "cpu" else {}))
        with open_checkpoint(path) as checkpoint:
            return load_model(checkpoint, ops), ops

    return load


class KeepsAll:
    """The model, but its cache keeps every position of every layer."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def kv_layers(self):
        return [dataclasses.replace(spec, window=0) for spec in self._model.kv_layers()]


def poison(engine: Engine) -> None:
    """Not-a-number into every block that nobody holds and whose content is not known."""
    runner, layers = engine._runner, engine._runner.model.kv_layers()
    for layer, group in enumerate(kv_groups(layers)):
        pool, spec = engine.pools[group], layers[layer]
        if blocks := list(pool._blank):
            rows = len(blocks) * pool.block_size
            batch = make_batch([[0] * rows], [0], [blocks], pool.block_size,
                               num_groups=len(engine.pools))  # fmt: skip
            k = np.full((rows, spec.num_kv_heads * spec.key_dim), np.nan, np.float32)
            v = np.full((rows, spec.num_kv_heads * spec.value_dim), np.nan, np.float32)
            runner.ops.write_kv(runner.cache, layer, k, v, batch)


def answers(engine: Engine, prompts, poisoned: bool = True):
    params = SamplingParams(temperature=0.0, max_tokens=20, logprobs=2, prompt_logprobs=0)
    ids = [engine.add(prompt, params) for prompt in prompts]
    outputs = {request_id: [] for request_id in ids}
    while engine.has_unfinished():
        if poisoned:
            poison(engine)
        for output in engine.step():
            assert output.error is None
            outputs[output.request_id].append(output)
        check_books(engine)
    return [
        (tokens_of(outputs[i]), [lp for o in outputs[i] for lp in o.logprobs],
         outputs[i][0].prompt_logprobs)
        for i in ids
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["gemma3", "mistral-window"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_engine_invariants_with_a_bounded_cache(load, backend, kind):
    model, ops = load(backend, kind)
    shared = tiny_models.prompt(seed=1, length=110)
    prompts = [shared, tiny_models.prompt(seed=2, length=7), [*shared[:100], 9, 8],
               tiny_models.prompt(seed=3, length=60)]  # fmt: skip

    def make(it=model, **config):
        return Engine(it, ops, EngineConfig(**({"context_length": 200, "num_blocks": 60} | config)))

    def same(got, want):
        if backend == "cpu":
            assert got == want
            return
        for (tokens, logprobs, prompt), (tokens1, logprobs1, prompt1) in zip(
            got, want, strict=True
        ):
            assert tokens == tokens1
            for one, other in ((logprobs, logprobs1), (prompt or (), prompt1 or ())):
                np.testing.assert_allclose([lp.logprob for lp in one if lp],
                                           [lp.logprob for lp in other if lp],
                                           rtol=1e-5, atol=1e-5)  # fmt: skip

    # Each alone, its prompt in one piece, everything kept: how it was without windows.
    want = []
    for prompt in prompts:
        want += answers(make(KeepsAll(model), prefix_caching=False), [prompt], poisoned=False)

    # Pieces longer and shorter than the window of 24.
    for budget in (512, 40, 9) if backend == "cpu" else (40,):
        engine = make(max_num_batched_tokens=budget)
        same(answers(engine, prompts), want)
        same(answers(engine, prompts), want)  # with everything known
    small = make(max_num_batched_tokens=16, num_blocks=11)
    same(answers(small, prompts), want)
    same(answers(make(speculative_tokens=3, prefix_caching=False), prompts), want)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_hit_is_used_by_windowed_models(load, backend):
    for kind in ("gemma3", "mistral-window"):
        model, ops = load(backend, kind)
        engine = Engine(model, ops, EngineConfig(context_length=250, num_blocks=60))
        prompt = tiny_models.prompt(seed=5, length=150)
        first = engine.add(prompt, GREEDY)
        outputs = finish_all(engine)[first]
        again = engine.add(prompt, GREEDY)
        second = finish_all(engine)[again]
        assert second[0].cached_tokens >= 144
        assert tokens_of(second) == tokens_of(outputs)


def test_the_memory_of_a_long_context_is_that_of_the_window(load):
    model, ops = load("cpu", "mistral-window")
    config = EngineConfig(context_length=250, max_num_seqs=1, max_num_batched_tokens=32)
    windowed = Engine(model, ops, config).kv_bytes
    whole = Engine(KeepsAll(model), ops, config).kv_bytes
    assert windowed == whole  # so short that keeping all costs nothing worth saving
    budget = dataclasses.replace(config, kv_memory_bytes=whole // 2)
    engine = Engine(model, ops, budget)
    assert engine.kv_bytes <= whole // 2 + 4096
    prompt = tiny_models.prompt(seed=6, length=200)
    request_id = engine.add(prompt, GREEDY)
    assert len(tokens_of(finish_all(engine)[request_id])) == 12
