# SPDX-License-Identifier: Apache-2.0
"""Small models through the engine: nothing but the tokens before decides about a token.

Grouped queries, three layers, prompts longer than a chunk and a block. On `cpu` everything must
agree to the last bit, for the backend computes each row alike in any company; the reference is
held to its rounding.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tiny_gemma
import tiny_giants
import tiny_models
import tiny_moe
from devices import open_device
from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.logprobs import token_logprob
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.loader import load_model
from freehold.types import SamplingParams

KV_DTYPES = ["f32", "f16", "bf16", "q8_0"]
VOCAB = tiny_models.VOCAB


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    root = tmp_path_factory.mktemp("bits")

    # Heads of 32, the least a q8_0 cache takes.
    @functools.cache
    def load(backend, qtype, case="llama-wide-heads"):
        path = root / f"{case}.{qtype}.gguf"
        if not path.exists():
            if case in tiny_gemma.CASES:
                tiny_gemma.write_gguf(tiny_gemma.build(case), path, qtype)
            elif case in tiny_giants.CASES:
                tiny_giants.write_gguf(tiny_giants.build(case), case, path, qtype)
            else:
                maker = tiny_moe if case in tiny_moe.CASES else tiny_models
                maker.write_gguf(tiny_models.build(maker.CASES[case]), path, qtype)
        ops = open_device((backend, {"threads": 1} if backend == "cpu" else {}))
        with open_checkpoint(path) as checkpoint:
            return load_model(checkpoint, ops), ops

    return load


@pytest.fixture(
    params=[
        ("cpu", "F32"),
        ("cpu", "Q8_0"),
        ("reference", "F32"),
        ("cpu", "F32", "gemma2"),
        ("cpu", "Q8_0", "qwen3moe"),
        ("cpu", "F32", "gemma4-small"),
        ("cpu", "Q8_0", "gemma3n"),
        ("cpu", "F32", "llama4"),
        ("cpu", "Q8_0", "gpt-oss"),
        ("cpu", "F32", "muse-glimmer"),
    ],
    ids="-".join,
)
def device(request):
    return request.param


@pytest.fixture
def make(load, device):
    def make(**config):
        model, ops = load(*device)
        settings = {"context_length": 320, "num_blocks": 200, "kv_dtype": "f16"}
        return Engine(model, ops, EngineConfig(**(settings | config)))

    return make


def same(got, want, device):
    if device[0] == "cpu":
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def only_few(ids, logits):
    """Leaves five tokens, so that texts repeat themselves and drafts are often right."""
    logits[5:] = -np.inf
    return logits


def jobs():
    """(prompt, params, processor): lengths around blocks and chunks, shared beginnings."""
    shared = tiny_models.prompt(seed=1, length=70)
    prompts = [
        tiny_models.prompt(seed=2, length=1), tiny_models.prompt(seed=3, length=16), shared,
        shared[:48], [*shared, 9], [*shared[:60], 8, 9], tiny_models.prompt(seed=4, length=130),
    ]  # fmt: skip
    settings = [
        {"temperature": 0.0, "logprobs": 3},
        {"temperature": 0.8, "top_p": 0.9, "seed": 5, "logprobs": 1},
        {"temperature": 1.2, "seed": 6, "logprobs": 0, "frequency_penalty": 0.3,
         "xtc_probability": 0.4, "xtc_threshold": 0.01},
        {"temperature": 0.0, "logprobs": 0, "prompt_logprobs": 1},
    ]  # fmt: skip
    return [
        (prompt, SamplingParams(max_tokens=24, **settings[i % 4]), only_few if i % 2 else None)
        for i, prompt in enumerate(prompts)
    ]


def run(engine, some_jobs):
    """Tokens, log-probabilities and prompt log-probabilities of each job."""
    ids = [engine.add(p, params, logits_processor=f) for p, params, f in some_jobs]
    outputs = {request_id: [] for request_id in ids}
    while engine.has_unfinished():
        for output in engine.step():
            assert output.error is None
            outputs[output.request_id].append(output)
        engine.pools[0].check()
    assert engine.pools[0].num_free == engine.pools[0].num_blocks
    return [
        (
            [t for output in outputs[i] for t in output.new_token_ids],
            [lp for output in outputs[i] for lp in output.logprobs],
            outputs[i][0].prompt_logprobs,
        )
        for i in ids
    ]


def numbers(logprobs):
    return [v for lp in logprobs or () if lp for v in (lp.logprob, *(p for _, p in lp.top))]


def equal(got, want, device):
    for (tokens, logprobs, prompt), (tokens1, logprobs1, prompt1) in zip(got, want, strict=True):
        assert tokens == tokens1
        assert len(tokens) == 24
        if device[0] == "cpu":
            assert logprobs == logprobs1
            assert prompt == prompt1
        else:
            same(numbers(logprobs), numbers(logprobs1), device)
            same(numbers(prompt), numbers(prompt1), device)


@pytest.fixture
def singles(make):
    """Each job alone, its prompt in one piece, nothing cached, nothing drafted."""

    def singles(kv_dtype):
        results = []
        for job in jobs():
            results += run(make(kv_dtype=kv_dtype, prefix_caching=False), [job])
        return results

    return singles


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_company_chunks_prefixes_preemption_and_drafts_change_nothing(
    kv_dtype, make, singles, device
):
    want = singles(kv_dtype)
    equal(run(make(kv_dtype=kv_dtype), jobs()), want, device)

    engine = make(kv_dtype=kv_dtype, max_num_batched_tokens=9)
    equal(run(engine, jobs()), want, device)
    first_time = engine.stats.cached_tokens
    equal(run(engine, jobs()), want, device)  # all prompts are known now
    assert engine.stats.cached_tokens - first_time >= sum(len(p) - 1 for p, _, _ in jobs()[4:])

    engine = make(kv_dtype=kv_dtype, num_blocks=10, context_length=160)
    equal(run(engine, jobs()), want, device)
    assert engine.stats.preemptions > 0

    engine = make(kv_dtype=kv_dtype, speculative_tokens=4)
    equal(run(engine, jobs()), want, device)
    assert engine.stats.drafts_accepted > 0

    engine = make(
        kv_dtype=kv_dtype, speculative_tokens=3, num_blocks=10, context_length=160,
        max_num_batched_tokens=60,
    )  # fmt: skip
    equal(run(engine, jobs()), want, device)
    if device[2:] != ("gemma2",):  # its drafts are so often right that nothing has to wait
        assert engine.stats.preemptions > 0


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_logits_scores_and_answers_are_one_set_of_numbers(kv_dtype, make, device):
    prompt = tiny_models.prompt(seed=9, length=90)
    params = SamplingParams(temperature=0.0, max_tokens=40, logprobs=4, prompt_logprobs=2)
    tokens, logprobs, prompt_logprobs = run(make(kv_dtype=kv_dtype), [(prompt, params, None)])[0]
    text = prompt + tokens
    whole = make(kv_dtype=kv_dtype).logits(text)
    assert whole.shape == (130, VOCAB)
    for budget in (1, 16, 37):
        same(make(kv_dtype=kv_dtype, max_num_batched_tokens=budget).logits(text), whole, device)
    # What was generated token by token, and what the prompt brought, from that one prefill.
    for got, position in zip([*prompt_logprobs[1:], *logprobs], range(129), strict=True):
        want = token_logprob(whole[position], text[position + 1], len(got.top))
        assert (got.token_id, got.rank) == (want.token_id, want.rank)
        assert [t for t, _ in got.top] == [t for t, _ in want.top]
        same(numbers([got]), numbers([want]), device)
    x = whole.astype(np.float64)
    log_softmax = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    want = log_softmax[np.arange(129), text[1:]]
    np.testing.assert_allclose([lp.logprob for lp in (*prompt_logprobs[1:], *logprobs)], want,
                               atol=1e-5)  # fmt: skip
    engine = make(kv_dtype=kv_dtype, max_num_batched_tokens=16)
    scores = engine.score(text)
    np.testing.assert_allclose(scores, want, atol=1e-5)
    computed = engine.stats.prefill_tokens
    same(engine.score(text, 100), scores[99:], device)
    assert engine.stats.prefill_tokens - computed == 129 - 99  # all before is known


def test_embeddings_are_means_of_hidden_states_however_cut(make, load, device):
    from batching import PagedRunner, make_batch

    ids = tiny_models.prompt(seed=5, length=75)
    model, ops = load(*device)
    runner = PagedRunner(model, ops, kv_dtype="f16")
    hidden = ops.to_numpy(
        model.forward(
            make_batch([ids], [0], [[4, 9, 2, 7, 5]], 16, num_groups=len(runner.cache.num_blocks)),
            runner.cache,
            ops,
        )
    ).astype(np.float64)
    whole = make()
    np.testing.assert_allclose(whole.embed(ids), hidden.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(whole.embed(ids, "last"), hidden[-1], atol=1e-5)
    for budget in (1, 10, 64):
        cut = make(max_num_batched_tokens=budget)
        same(cut.embed(ids), whole.embed(ids), device)
        same(cut.embed(ids, "last"), whole.embed(ids, "last"), device)
        same(cut.embed(ids), whole.embed(ids), device)  # with everything cached
