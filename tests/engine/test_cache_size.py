# SPDX-License-Identifier: Apache-2.0
"""How many blocks the cache gets, and which settings are refused."""

from __future__ import annotations

import math

import pytest
from hash_model import hash_engine
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold import backends
from freehold.config import EngineConfig
from freehold.engine.block_manager import BlockManager
from freehold.engine.kv_cache import (
    DEFAULT_CACHE_TOKENS,
    FREE_MEMORY_SHARE,
    block_bytes,
    check_config,
    count_blocks,
    longest_context,
    make_kv_cache,
    sequence_bytes,
)
from freehold.engine.kv_groups import KVGroup, first_kept, most_blocks
from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import KVLayerSpec, kv_groups
from freehold.types import SamplingParams

LAYERS = [KVLayerSpec(2, 64, 64), KVLayerSpec(4, 32, 96)]
WINDOWED = [KVLayerSpec(2, 64, 64), *[KVLayerSpec(2, 32, 32, 100)] * 2, KVLayerSpec(1, 8, 8, 3000)]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_block_bytes_are_what_a_backend_takes(backend, dtype):
    ops = backends.create(backend)
    cache = ops.alloc_kv(LAYERS, 8, 16, dtype)
    assert cache.nbytes == pytest.approx(8 * block_bytes(LAYERS, 16, dtype), rel=0.02, abs=4096)
    layers = [KVLayerSpec(2, 64, 64), KVLayerSpec(4, 32, 96, window=20)]
    cache = ops.alloc_kv(layers, (90, 15), 16, dtype)
    assert cache.num_blocks == (90, 15)
    bytes_ = [block_bytes([spec], 16, dtype) for spec in layers]
    assert cache.nbytes == pytest.approx(90 * bytes_[0] + 15 * bytes_[1], rel=0.02, abs=4096)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.integers(1, 5000), st.integers(1, 64), st.integers(1, 100), st.integers(0, 2**32),
    st.booleans(), st.sampled_from(["f16", "q8_0"]),
)  # fmt: skip
def test_blocks_hold_a_context_and_fit_the_budget(context, size, seqs, memory, explicit, dtype):
    config = EngineConfig(
        context_length=context, block_size=size, max_num_seqs=seqs, kv_dtype=dtype,
        kv_memory_bytes=memory if explicit else None,
    )  # fmt: skip
    per_block = block_bytes(LAYERS, size, dtype)
    budget = memory if explicit else int(memory * FREE_MEMORY_SHARE)
    per_context = math.ceil(context / size)
    if per_context * per_block > budget:
        with pytest.raises(CapacityError) as caught:
            count_blocks(LAYERS, config, available_bytes=memory)
        assert caught.value.hint
        return
    (blocks,) = count_blocks(LAYERS, config, available_bytes=memory)
    assert per_context <= blocks
    assert blocks * per_block <= budget
    if explicit:
        assert (blocks + 1) * per_block > budget
    else:  # no more than can ever be used, nor than the default
        assert blocks <= seqs * per_context
        assert blocks <= max(per_context, DEFAULT_CACHE_TOKENS // size)


def test_an_explicit_number_is_taken_and_shortens_sequences():
    config = EngineConfig(context_length=100, num_blocks=3, block_size=4)
    assert count_blocks(LAYERS, config) == (3,)
    assert count_blocks(WINDOWED, config) == (3, 3, 3)
    engine, _ = hash_engine(context_length=100, num_blocks=3, block_size=4)
    assert engine.max_length == 12
    engine, _ = hash_engine(context_length=10, num_blocks=3, block_size=4)
    assert engine.max_length == 10


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.integers(1, 200_000), st.sampled_from([1, 16, 64]), st.integers(1, 100),
    st.integers(0, 2**32), st.booleans(), st.integers(1, 2000),
)  # fmt: skip
def test_every_pool_holds_a_context_and_together_they_fit_the_budget(
    context, size, seqs, memory, explicit, chunk
):
    config = EngineConfig(
        context_length=context, block_size=size, max_num_seqs=seqs, max_num_batched_tokens=chunk,
        kv_memory_bytes=memory if explicit else None,
    )  # fmt: skip
    windows = (0, 100, 3000)
    least = [most_blocks(w, context, chunk, size) for w in windows]
    per_block = [block_bytes([WINDOWED[i]], size, "f16") for i in (0, 1, 3)]
    per_block[1] *= 2  # the window of two layers
    budget = memory if explicit else int(memory * FREE_MEMORY_SHARE)
    needed = sum(n * per for n, per in zip(least, per_block, strict=True))
    assert needed == sequence_bytes(WINDOWED, context, chunk, size, "f16")
    if needed > budget:
        with pytest.raises(CapacityError):
            count_blocks(WINDOWED, config, available_bytes=memory)
        return
    counts = count_blocks(WINDOWED, config, available_bytes=memory)
    assert all(count >= need for count, need in zip(counts, least, strict=True))
    assert sum(n * per for n, per in zip(counts, per_block, strict=True)) <= budget
    assert counts[0] == max(counts)  # nothing in a window that is not kept elsewhere too
    if not explicit:
        whole = -(-context // size)
        assert counts[0] <= max(whole, DEFAULT_CACHE_TOKENS // size)
        for count, need in zip(counts[1:], least[1:], strict=True):
            assert count <= max(need, DEFAULT_CACHE_TOKENS // size)


@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 40])
@pytest.mark.parametrize("size", [1, 4, 16])
@pytest.mark.parametrize("new", [1, 3, 16, 50])
def test_most_blocks_is_what_a_sequence_can_come_to_hold(window, size, new):
    most = 0
    for computed in range(300):
        last = (computed + new - 1) // size
        most = max(most, last + 1 - first_kept(window, computed, size))
    assert most == most_blocks(window, 10**6, new, size)
    assert KVGroup(BlockManager(1, size), window).steady == most_blocks(window, 10**6, 1, size)


def test_a_window_is_kept_back_from_the_last_full_block_and_no_further():
    for window, size, length in [(5, 4, 23), (4, 4, 20), (1, 4, 3), (64, 16, 1000)]:
        first = first_kept(window, length, size)
        seen = length // size * size - window + 1  # by the first query after the full blocks
        assert first * size <= max(seen, 0) < (first + 1) * size
    assert first_kept(0, 10**6, 16) == 0


def test_a_long_context_costs_layers_with_a_window_a_fixed_amount():
    """The shape of Gemma 3 4B: 34 layers, every sixth without a window."""
    layers = [KVLayerSpec(4, 256, 256, 0 if i % 6 == 5 else 1024) for i in range(34)]
    assert kv_groups(layers)[:7] == (0, 0, 0, 0, 0, 1, 0)
    per_token = 4 * 512 * 2
    small, large = (sequence_bytes(layers, n, 512, 16, "f16") for n in (8192, 131_072))
    assert large - small == 5 * (131_072 - 8192) * per_token  # the five others grow alone
    assert small == (5 * 8192 + 29 * 16 * (64 + 33)) * per_token  # 1023 before a block, 512 on
    free = 64 << 30
    windowed, whole = count_blocks(
        layers, EngineConfig(context_length=131_072), available_bytes=free
    )
    assert (windowed, whole) == (DEFAULT_CACHE_TOKENS // 16, 131_072 // 16)


def test_a_context_that_fits_counts_windows_once():
    layers = [KVLayerSpec(1, 8, 8, 64)] * 9 + [KVLayerSpec(1, 8, 8)]

    def needs(tokens):
        return sequence_bytes(layers, tokens, 32, 16, "f16")

    fits = longest_context(10**9, needs(4096), needs, 16)
    assert fits == 4096
    assert longest_context(100, 10**9, needs, 16) == 96
    assert longest_context(10**9, needs(16) - 1, needs, 16) == 0


def test_the_default_looks_at_the_machine():
    blocks = count_blocks(LAYERS, EngineConfig(context_length=64))
    assert blocks == (64 * 4,)  # 64 sequences of 4 blocks: little enough for any machine


def test_a_cache_beyond_any_memory_is_refused():
    config = EngineConfig(context_length=64, num_blocks=2**40)
    for backend in ("reference", "cpu"):
        with pytest.raises((CapacityError, InvalidParameterError)):
            make_kv_cache(backends.create(backend), LAYERS, config)


BAD = [
    *({name: value} for name in ("context_length", "max_num_seqs", "max_num_batched_tokens",
                                 "block_size")
      for value in (0, -1, 1.5, "8", None, True, float("nan"))),
    *({name: value} for name in ("num_blocks", "kv_memory_bytes")
      for value in (0, -1, 2.0, "8", False)),
    *({"speculative_tokens": value} for value in (-1, 0.5, "1", None)),
    *({"kv_dtype": value} for value in ("f8", "", None, 3)),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_settings_that_cannot_work_are_named(bad):
    name = next(iter(bad))
    with pytest.raises(InvalidParameterError, match=name):
        check_config(EngineConfig(**({"context_length": 64} | bad)))
    with pytest.raises(InvalidParameterError, match=name):
        hash_engine(**bad)


def test_absurd_limits_cost_no_memory():
    # Tables and lists are made for what the pool can hold, not for what was asked.
    engine, _ = hash_engine(
        max_num_seqs=10**12, max_num_batched_tokens=10**12, context_length=10**12, num_blocks=8
    )
    engine.add([1, 2], SamplingParams(temperature=0.0, max_tokens=2))
    while engine.has_unfinished():
        engine.step()
    assert engine.stats.decode_tokens == 2
