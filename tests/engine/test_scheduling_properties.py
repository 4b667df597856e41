# SPDX-License-Identifier: Apache-2.0
"""Whatever the workload, the pool and the limits: every request gets what it would get alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hash_model import (
    alone,
    check_books,
    check_empty,
    finish_all,
    greedy_answer,
    hash_engine,
    logits_of,
    states_of,
    tokens_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.types import SamplingParams

VOCAB = 4  # so small that texts repeat themselves and drafts are often right
SETTINGS = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@dataclass(frozen=True)
class Job:
    prompt: list[int]
    params: SamplingParams
    arrives: int
    aborted_after: int | None


@st.composite
def configs(draw):
    return {
        "num_blocks": draw(st.integers(4, 14)),
        "block_size": draw(st.integers(1, 5)),
        "context_length": draw(st.sampled_from([20, 40])),
        "max_num_seqs": draw(st.integers(1, 6)),
        "max_num_batched_tokens": draw(st.sampled_from([1, 2, 3, 5, 8, 40])),
        "prefix_caching": draw(st.booleans()),
        "speculative_tokens": draw(st.sampled_from([0, 0, 1, 3])),
        # Everything kept; nothing but windows; windows shorter and longer than blocks and pieces.
        "windows": draw(st.sampled_from([(0,), (0,), (1,), (5,), (9, 0), (0, 3), (4, 0, 11)])),
    }


@st.composite
def workloads(draw):
    config = draw(configs())
    longest = min(config["context_length"], config["num_blocks"] * config["block_size"])
    shared = draw(st.lists(st.integers(0, 1), min_size=longest, max_size=longest))
    jobs = []
    for _ in range(draw(st.integers(1, 8))):
        head = draw(st.integers(0, longest - 2))
        own = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4))
        params = SamplingParams(
            temperature=draw(st.sampled_from([0.0, 0.8])),
            seed=draw(st.integers(0, 3)),
            max_tokens=draw(st.integers(1, 12)),
            repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
            penalty_last_n=draw(st.sampled_from([-1, 3])),
            logprobs=draw(st.sampled_from([None, 2])),
            prompt_logprobs=draw(st.sampled_from([None, None, 0])),
        )
        prompt = (shared[:head] + own)[: longest - 1]
        ends = draw(st.sampled_from([None, None, None, 0, 2, 5]))
        jobs.append(Job(prompt, params, draw(st.integers(0, 6)), ends))
    return config, jobs


def expected(job: Job, config, longest: int) -> list:
    # Context, hence max_len, must be the same; all else is plentiful.
    return alone(
        job.prompt, job.params, vocab=VOCAB, context_length=longest, prefix_caching=False,
        windows=config["windows"],
    )  # fmt: skip


@SETTINGS
@given(workloads())
def test_any_workload_gives_what_each_request_gives_alone(workload):
    config, jobs = workload
    engine, model = hash_engine(VOCAB, **config)
    ids, outputs, aborted = {}, {}, set()
    for step in range(4000):
        for n, job in enumerate(jobs):
            if job.arrives == step:
                ids[n] = engine.add(job.prompt, job.params)
                outputs[ids[n]] = []
            if job.aborted_after is not None and job.arrives + job.aborted_after == step:
                if not (outputs[ids[n]] and outputs[ids[n]][-1].finished):
                    aborted.add(n)
                engine.abort(ids[n])
        check_books(engine)
        if not engine.has_unfinished() and len(ids) == len(jobs):
            break
        for output in engine.step():
            assert not (outputs[output.request_id] and outputs[output.request_id][-1].finished)
            outputs[output.request_id].append(output)
        check_books(engine)
    check_empty(engine)
    assert all(
        tokens <= config["max_num_batched_tokens"] and sequences <= config["max_num_seqs"]
        for tokens, sequences in model.batches
    )
    for n, job in enumerate(jobs):
        got, want = outputs[ids[n]], expected(job, config, engine.max_length)
        if n in aborted:
            assert tokens_of(got) == tokens_of(want)[: len(tokens_of(got))]
            continue
        assert tokens_of(got) == tokens_of(want)
        assert got[-1].finished == want[-1].finished == "length"
        assert got[-1].error is None
        assert logprobs_of(got) == logprobs_of(want)
        assert got[0].prompt_logprobs == want[0].prompt_logprobs
    s = engine.stats
    assert s.requests_added == len(jobs)
    assert s.requests_finished == len(jobs) - len(aborted)
    assert s.requests_aborted == len(aborted)


def logprobs_of(outputs) -> list:
    return [lp for output in outputs for lp in output.logprobs or ()]


@SETTINGS
@given(configs(), st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=19), max_size=6))
def test_scores_and_logits_beside_running_requests(config, texts):
    engine, _ = hash_engine(VOCAB, **config)
    texts = [ids[: engine.max_length] for ids in texts]
    prompts = [ids[: engine.max_length - 1] for ids in texts if len(ids) < engine.max_length]
    params = SamplingParams(temperature=0.0, max_tokens=6)
    ids = [engine.add(prompt, params) for prompt in prompts]
    for text in texts:
        states = np.array(states_of(text, config["windows"]), np.uint64)
        want = logits_of(states, VOCAB)
        np.testing.assert_array_equal(engine.logits(text), want)
        if len(text) > 1:
            first = 1 + len(text) // 3
            x = want.astype(np.float64)
            logp = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
            want_scores = [logp[i - 1, text[i]] for i in range(first, len(text))]
            np.testing.assert_allclose(engine.score(text, first), want_scores, atol=1e-6)
        hidden = states.astype(np.float32).astype(np.float64)
        np.testing.assert_allclose(engine.embed(text), hidden.mean(), rtol=1e-6)
        np.testing.assert_allclose(engine.embed(text, "last"), hidden[-1], rtol=1e-6)
        check_books(engine)
    outputs = finish_all(engine)
    for request_id, prompt in zip(ids, prompts, strict=True):
        room = engine.max_length - len(prompt)
        want = greedy_answer(prompt, min(6, room), VOCAB, windows=config["windows"])
        assert tokens_of(outputs[request_id]) == want


@pytest.mark.parametrize("budget", range(1, 20))
def test_chunks_of_every_size_compute_each_token_once(budget):
    prompt = [1, 2, 3, 0] * 4 + [2]
    engine, model = hash_engine(VOCAB, max_num_batched_tokens=budget)
    request_id = engine.add(prompt, SamplingParams(temperature=0.0, max_tokens=5))
    answer = tokens_of(finish_all(engine)[request_id])
    assert answer == greedy_answer(prompt, 5, VOCAB)
    assert engine.stats.prefill_tokens == 17
    assert [n for n, _ in model.batches[: -(-17 // budget)]] == [
        min(budget, 17 - at) for at in range(0, 17, budget)
    ]
    assert sum(n for n, _ in model.batches) == 17 + 4


def test_decoding_is_not_starved_by_prompts():
    engine, _ = hash_engine(VOCAB, max_num_batched_tokens=4, num_blocks=64)
    first = engine.add([1], SamplingParams(temperature=0.0, max_tokens=10))
    engine.step()
    for _ in range(3):
        engine.add([2] * 40, SamplingParams(temperature=0.0, max_tokens=1))
    for _ in range(9):
        assert first in {output.request_id for output in engine.step()}


def test_the_newest_gives_way_and_all_finish_in_a_pool_for_one():
    engine, _ = hash_engine(VOCAB, num_blocks=5, block_size=4, context_length=20)
    params = SamplingParams(temperature=0.0, max_tokens=17)
    prompts = [[i, 1, 2] for i in range(4)]
    ids = [engine.add(prompt, params) for prompt in prompts]
    outputs = finish_all(engine)
    for request_id, prompt in zip(ids, prompts, strict=True):
        assert tokens_of(outputs[request_id]) == greedy_answer(prompt, 17, VOCAB)
    assert engine.stats.preemptions > 0
    assert engine.stats.requests_finished == 4


def test_a_newcomer_waits_rather_than_throw_itself_out_at_once():
    engine, _ = hash_engine(VOCAB, num_blocks=2, block_size=4)
    ids = [engine.add(prompt, SamplingParams(temperature=0.0, max_tokens=3))
           for prompt in ([1, 2, 3, 0], [2, 2, 1])]  # fmt: skip
    outputs = finish_all(engine)
    assert tokens_of(outputs[ids[1]]) == greedy_answer([2, 2, 1], 3, VOCAB)
    # The first needs the last free block in its second step.
    assert engine.stats.preemptions == 0


@pytest.mark.parametrize("budget", [64, 512, 20_000])
def test_sixteen_arrivals_compute_their_shared_prefix_once(budget):
    engine, model = hash_engine(
        8, context_length=800, num_blocks=900, block_size=16, max_num_batched_tokens=budget
    )
    rng = np.random.default_rng(1)
    shared = rng.integers(0, 8, 700).tolist()
    prompts = [[*shared, *rng.integers(0, 8, 20).tolist(), n % 8, n // 8] for n in range(16)]
    ids = [engine.add(prompt, SamplingParams(temperature=0.0, max_tokens=3)) for prompt in prompts]
    outputs = finish_all(engine)
    # 43 full blocks of the prefix are shared for certain, its last 12 tokens by copying a block.
    computed = engine.stats.prefill_tokens
    assert computed + engine.stats.cached_tokens == 16 * 722
    assert computed <= 700 + 16 * (22 + 12)
    assert sum(n for n, _ in model.batches) == computed + 16 * 2
    for request_id, prompt in zip(ids, prompts, strict=True):
        assert tokens_of(outputs[request_id]) == greedy_answer(prompt, 3, 8)


@pytest.mark.parametrize("length", range(1, 14))
def test_a_whole_prompt_hit_computes_one_token_and_spares_the_source(length):
    engine, _ = hash_engine(VOCAB, block_size=4)
    prompt = [3, 1, 0, 2, 2, 1, 3, 0, 1, 1, 2, 0, 3][:length]
    # Long enough for the last block of the prompt to fill up, and so to become known.
    params = SamplingParams(temperature=0.0, max_tokens=6)
    first = engine.add(prompt, params)
    answer = tokens_of(finish_all(engine)[first])
    before = engine.stats.prefill_tokens
    second = engine.add(prompt, params)
    outputs = finish_all(engine)[second]
    assert engine.stats.prefill_tokens - before == 1
    assert outputs[0].cached_tokens == length - 1
    # Something that leaves the copied block's content half way, then the first once more.
    other = [*prompt[:-1], (prompt[-1] + 1) % VOCAB]
    third = engine.add(other, params)
    assert tokens_of(finish_all(engine)[third]) == greedy_answer(other, 6, VOCAB)
    fourth = engine.add([*prompt, *answer[:-1]], SamplingParams(temperature=0.0, max_tokens=1))
    assert tokens_of(finish_all(engine)[fourth]) == answer[-1:] == tokens_of(outputs)[-1:]


def test_aborting_the_one_all_wait_for_lets_the_others_go_on():
    engine, _ = hash_engine(VOCAB, max_num_batched_tokens=2)
    prompt = [1, 0, 2, 3] * 5
    params = SamplingParams(temperature=0.0, max_tokens=2)
    ids = [engine.add([*prompt, n], params) for n in range(4)]
    engine.step()
    engine.step()
    assert [seq.request_id for seq in engine._scheduler.running] == ids[:1]
    engine.abort(ids[0])
    outputs = finish_all(engine)
    for n in (1, 2, 3):
        assert tokens_of(outputs[ids[n]]) == greedy_answer([*prompt, n], 2, VOCAB)


def test_the_cache_survives_requests_and_forgetting_it_is_safe():
    engine, _ = hash_engine(VOCAB)
    prompt, params = [1, 2, 3, 0] * 5, SamplingParams(temperature=0.0, max_tokens=8)
    engine.add(prompt, params)
    engine.step()
    engine.pools[0].forget_all()  # while a sequence holds blocks of known content
    check_books(engine)
    finish_all(engine)
    engine.pools[0].forget_all()
    assert engine.pools[0].num_cached == 0
    again = engine.add(prompt, params)
    outputs = finish_all(engine)[again]
    assert outputs[0].cached_tokens == 0
    assert tokens_of(outputs) == greedy_answer(prompt, 8, VOCAB)
