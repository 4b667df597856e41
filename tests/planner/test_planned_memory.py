# SPDX-License-Identifier: Apache-2.0
"""Planned caches against those the engine makes; budgets and what makes a plan fit."""

from __future__ import annotations

import pytest

import tiny_gemma
from freehold.config import EngineConfig
from freehold.engine.kv_cache import cache_need
from freehold.llm import LLM
from freehold.planner.memory import longest_fit, need, usable
from freehold.planner.sizes import sizes_of
from freehold.types import SamplingParams


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """A model in which some layers have a window."""
    folder = tmp_path_factory.mktemp("gemma") / "model"
    tiny_gemma.build("gemma4-plain").save_pretrained(folder)
    return folder


def _ends(layers, groups):
    """A store keeps a line of 64 bytes or two at the end of each part of a layer, and ends with a
    page."""
    return layers * 4 * 128 + groups * 4096


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize(("context", "parallel"), [(64, 1), (100, 3), (256, 1)])
def test_the_engine_makes_the_cache_that_was_planned(kv_dtype, context, parallel):
    settings = {"context_length": context, "max_num_seqs": parallel, "kv_dtype": kv_dtype}
    with LLM("seedling", **settings) as plain:
        planned = need(
            sizes_of(plain.checkpoint), context, parallel=parallel, kv_dtype=kv_dtype
        ).kv_cache
    with LLM("seedling", kv_memory_bytes=planned, **settings) as llm:
        assert planned <= llm.engine.kv_bytes <= planned + _ends(layers=5, groups=1)
        # All of them at once, to the last position.
        prompts = [[7 + index] * (context - 2) for index in range(parallel)]
        llm.generate(prompts, SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True))
        assert llm.engine.stats.preemptions == 0


def test_windows_are_counted_as_the_engine_keeps_them(windowed):
    with LLM(windowed, skip_tokenizer_init=True, context_length=96, max_num_seqs=1) as llm:
        sizes = sizes_of(llm.checkpoint)
        planned = need(sizes, 96).kv_cache
        layers = sum(count for _, count in sizes.caches)
        assert planned <= llm.engine.kv_bytes <= planned + _ends(layers, groups=2)
        assert any(spec.window for spec, _ in sizes.caches)


def test_a_long_context_of_windows_costs_less_than_one_of_full_layers(windowed):
    with LLM(windowed, skip_tokenizer_init=True, context_length=96) as llm:
        sizes = sizes_of(llm.checkpoint)
    short, long = (need(sizes, n).kv_cache for n in (32_768, 65_536))
    assert long < 2 * short
    least, full = cache_need(sizes.kv_layers, EngineConfig(65_536, max_num_seqs=1))
    assert least <= long <= full


def test_the_longest_context_that_fits_fits_and_the_next_does_not():
    with LLM("seedling", context_length=64) as llm:
        sizes = sizes_of(llm.checkpoint)
    budget = need(sizes, 500, parallel=4).total
    longest = longest_fit(sizes, budget, parallel=4)
    assert need(sizes, longest, parallel=4).total <= budget
    assert need(sizes, longest + 16, parallel=4).total > budget
    assert longest_fit(sizes, need(sizes, 16).weights) == 0
    assert longest_fit(sizes, 1 << 50) == sizes.context_length // 16 * 16


def test_some_memory_is_left_for_everything_else():
    assert usable(100 << 20) == 0
    assert usable(1 << 30) == (1 << 30) - (256 << 20)
    assert usable(100 << 30) == pytest.approx(95 << 30)


def test_every_sequence_costs_its_cache():
    with LLM("seedling", context_length=64) as llm:
        sizes = sizes_of(llm.checkpoint)
    one, four = need(sizes, 512), need(sizes, 512, parallel=4)
    assert four.kv_cache == 4 * one.kv_cache
    assert four.weights == one.weights
    assert four.total == sum((four.weights, four.kv_cache, four.buffers, four.process))
