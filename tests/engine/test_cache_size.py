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
from freehold.engine.kv_cache import (
    DEFAULT_CACHE_TOKENS,
    FREE_MEMORY_SHARE,
    block_bytes,
    check_config,
    count_blocks,
    make_kv_cache,
)
from freehold.errors import CapacityError, InvalidParameterError
from freehold.ops import KVLayerSpec
from freehold.types import SamplingParams

LAYERS = [KVLayerSpec(2, 64, 64), KVLayerSpec(4, 32, 96)]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_block_bytes_are_what_a_backend_takes(backend, dtype):
    ops = backends.create(backend)
    cache = ops.alloc_kv(LAYERS, 8, 16, dtype)
    assert cache.nbytes == pytest.approx(8 * block_bytes(LAYERS, 16, dtype), rel=0.02, abs=4096)


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
    blocks = count_blocks(LAYERS, config, available_bytes=memory)
    assert per_context <= blocks
    assert blocks * per_block <= budget
    if explicit:
        assert (blocks + 1) * per_block > budget
    else:  # no more than can ever be used, nor than the default
        assert blocks <= seqs * per_context
        assert blocks <= max(per_context, DEFAULT_CACHE_TOKENS // size)


def test_an_explicit_number_is_taken_and_shortens_sequences():
    config = EngineConfig(context_length=100, num_blocks=3, block_size=4)
    assert count_blocks(LAYERS, config) == 3
    engine, _ = hash_engine(context_length=100, num_blocks=3, block_size=4)
    assert engine.max_length == 12
    engine, _ = hash_engine(context_length=10, num_blocks=3, block_size=4)
    assert engine.max_length == 10


def test_the_default_looks_at_the_machine():
    blocks = count_blocks(LAYERS, EngineConfig(context_length=64))
    assert blocks == 64 * 4  # 64 sequences of 4 blocks: little enough for any machine


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
