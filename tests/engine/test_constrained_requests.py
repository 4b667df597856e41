# SPDX-License-Identifier: Apache-2.0
"""Requests whose answers have a form, among others, in any pool: each gets what it would alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hash_model import check_books, finish_all, hash_engine, logits_of, state_of, tokens_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_grammars import EOS, PIECES, allowed_after, languages, text_of, vocabulary

from freehold.engine.structured import Grammar
from freehold.errors import ConstraintError, InvalidParameterError
from freehold.types import SamplingParams

VOCABULARY = vocabulary()
VOCAB = EOS + 1
SETTINGS = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
LETTERS = (b"a", b"b", b"c")  # tokens with which any text has one spelling


def grammar(pattern: str, tokens=VOCABULARY) -> Grammar:
    return tokens.compile(f'{{"grammars": [{{"lark_grammar": "start: /{pattern}/"}}]}}')


def engine_for(**config):
    return hash_engine(VOCAB, eos_token_ids=[EOS], **config)[0]


@dataclass(frozen=True)
class Job:
    prompt: list[int]
    params: SamplingParams
    language: object  # None: free
    arrives: int


@st.composite
def configs(draw):
    return {
        "num_blocks": draw(st.integers(5, 14)),
        "block_size": draw(st.integers(1, 5)),
        "context_length": 40,
        "max_num_seqs": draw(st.integers(1, 6)),
        "max_num_batched_tokens": draw(st.sampled_from([1, 2, 3, 5, 8, 40])),
        "prefix_caching": draw(st.booleans()),
        "speculative_tokens": draw(st.sampled_from([0, 0, 2])),
        "windows": draw(st.sampled_from([(0,), (0,), (1,), (5,), (9, 0), (0, 3)])),
        "forced_tokens": draw(st.sampled_from([True, True, False])),
    }


@st.composite
def workloads(draw):
    config = draw(configs())
    longest = min(config["context_length"], config["num_blocks"] * config["block_size"])
    shared = draw(st.lists(st.integers(0, 1), min_size=longest, max_size=longest))
    jobs = []
    for _ in range(draw(st.integers(1, 6))):
        head = draw(st.integers(0, max(0, longest - 8)))
        own = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=3))
        params = SamplingParams(
            temperature=draw(st.sampled_from([0.0, 1.5])),
            seed=draw(st.integers(0, 3)),
            max_tokens=draw(st.integers(1, 12)),
            repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
            logprobs=draw(st.sampled_from([None, None, 2])),
            ignore_eos=draw(st.booleans()),
            min_tokens=draw(st.sampled_from([0, 0, 4])),
        )
        language = draw(st.none() | languages())
        jobs.append(
            Job((shared[:head] + own)[: longest - 1], params, language, draw(st.integers(0, 4)))
        )
    return config, jobs


def add(engine, job: Job) -> str:
    constraint = None if job.language is None else grammar(job.language.pattern).start()
    return engine.add(job.prompt, job.params, constraint=constraint)


@SETTINGS
@given(workloads())
def test_any_workload_gives_what_each_request_gives_alone(workload):
    config, jobs = workload
    engine = engine_for(**config)
    ids, outputs = {}, {}
    for step in range(4000):
        for n, job in enumerate(jobs):
            if job.arrives == step:
                ids[n] = add(engine, job)
                outputs[ids[n]] = []
        if not engine.has_unfinished() and len(ids) == len(jobs):
            break
        for output in engine.step():
            outputs[output.request_id].append(output)
        check_books(engine)
    for n, job in enumerate(jobs):
        got = outputs[ids[n]]
        calm = engine_for(
            context_length=engine.max_length, prefix_caching=False, windows=config["windows"],
            forced_tokens=config["forced_tokens"],
        )  # fmt: skip
        name = add(calm, job)
        want = finish_all(calm)[name]
        assert tokens_of(got) == tokens_of(want)
        assert (got[-1].finished, got[-1].error) == (want[-1].finished, None)
        assert logprobs_of(got) == logprobs_of(want)
        if job.language is not None:
            check_answer(job, tokens_of(got), got[-1].finished)


def logprobs_of(outputs) -> list:
    return [lp for output in outputs for lp in output.logprobs or ()]


def check_answer(job: Job, tokens: list[int], finished: str) -> None:
    """Every token was allowed; an answer that was not cut is a word."""
    for i, token in enumerate(tokens):
        text = text_of(tokens[:i])
        assert token in allowed_after(text, job.language.words, PIECES)
    text = text_of(tokens)
    assert (text in job.language.words) if finished == "stop" else len(tokens) >= 1
    rests = [w for w in job.language.words if w.startswith(text) and w != text]
    if finished == "stop" and tokens[-1] != EOS:
        assert not rests  # whoever could go on is asked


@pytest.mark.parametrize("speculative", [0, 3])
def test_log_probabilities_change_no_token_and_are_those_of_the_free_model(speculative):
    form = grammar("abcab(a|b)cc[ab]c{0,2}", vocabulary(LETTERS))
    results = []
    for logprobs in (None, 2):
        engine = hash_engine(4, eos_token_ids=[3], speculative_tokens=speculative)[0]
        params = SamplingParams(temperature=1.5, seed=7, logprobs=logprobs)
        name = engine.add([0, 1], params, constraint=form.start())
        results.append(finish_all(engine)[name])
    plain, told = results
    tokens = tokens_of(plain)
    assert tokens_of(told) == tokens
    assert len(plain) < len(tokens)  # forced ones took no step of their own
    entries = logprobs_of(told)
    assert len(entries) == len(tokens)
    for i, entry in enumerate(entries):
        raw = logits_of(np.array([state_of([0, 1, *tokens[:i]])], np.uint64), 4)[0].astype(float)
        expected = raw - np.log(np.exp(raw).sum())
        assert entry.token_id == tokens[i]
        assert entry.logprob == pytest.approx(expected[tokens[i]], abs=1e-5)
        assert [t for t, _ in entry.top] == list(np.argsort(-raw, kind="stable")[:2])


@pytest.mark.parametrize("windows", [(0,), (3,), (4, 0)])
@pytest.mark.parametrize("pieces", [LETTERS, PIECES])
def test_forcing_changes_no_token(windows, pieces):
    form = grammar("abcabcab(a|b)ccc(ab|bca|c)abc", vocabulary(pieces))
    size = len(pieces) + 1
    answers, steps = [], []
    for forced in (True, False):
        engine = hash_engine(
            size,
            windows,
            eos_token_ids=[size - 1],
            forced_tokens=forced,
            max_num_batched_tokens=5,
        )[0]
        names = [
            engine.add([i, 1, i], SamplingParams(temperature=0.0), constraint=form.start())
            for i in range(3)
        ]
        outputs = finish_all(engine)
        answers.append([tokens_of(outputs[name]) for name in names])
        steps.append(engine.stats.steps)
        assert (engine.stats.forced_tokens > 0) == forced
    assert answers[0] == answers[1]
    assert steps[0] < steps[1]


def test_a_preempted_sequence_goes_on_where_it_was():
    form = grammar("(abc|bca)(cab|bac)(aab|bba)(abc|bca)", vocabulary(LETTERS))
    engine = hash_engine(
        4, eos_token_ids=[3], num_blocks=6, block_size=3, context_length=18,
        prefix_caching=False,
    )[0]  # fmt: skip
    params = SamplingParams(temperature=1.5, seed=1)
    names = [engine.add([i, 2], params, constraint=form.start()) for i in range(3)]
    outputs = finish_all(engine)
    assert engine.stats.preemptions > 0
    for i, name in enumerate(names):
        calm = hash_engine(4, eos_token_ids=[3], context_length=18, prefix_caching=False)[0]
        own = calm.add([i, 2], params, constraint=form.start())
        assert tokens_of(outputs[name]) == tokens_of(finish_all(calm)[own])
        assert len(tokens_of(outputs[name])) == 12


@pytest.mark.parametrize("limit", range(1, 8))
def test_max_tokens_cuts_within_forced_tokens(limit):
    engine = hash_engine(4, eos_token_ids=[3])[0]
    form = grammar("abcabcab", vocabulary(LETTERS))
    name = engine.add([0], SamplingParams(max_tokens=limit), constraint=form.start())
    outputs = finish_all(engine)[name]
    assert tokens_of(outputs) == [0, 1, 2, 0, 1, 2, 0, 1][:limit]
    assert outputs[-1].finished == "length"


def test_an_answer_that_is_whole_with_the_last_token_allowed_is_a_stop():
    engine = hash_engine(4, eos_token_ids=[3])[0]
    form = grammar("abc", vocabulary(LETTERS))
    name = engine.add([0], SamplingParams(max_tokens=3), constraint=form.start())
    assert finish_all(engine)[name][-1].finished == "stop"


def test_a_stop_token_ends_an_answer_even_where_it_is_forced():
    engine = hash_engine(4, eos_token_ids=[3])[0]
    form = grammar("abcab", vocabulary(LETTERS))
    name = engine.add([0], SamplingParams(stop_token_ids=(2,)), constraint=form.start())
    outputs = finish_all(engine)[name]
    assert tokens_of(outputs) == [0, 1, 2]
    assert (outputs[-1].finished, outputs[-1].stop_reason) == ("stop", 2)


@pytest.mark.parametrize("drafts", [0, 3])
def test_ignore_eos_goes_on_as_long_as_the_form_allows(drafts):
    engine = engine_for(speculative_tokens=drafts)
    params = SamplingParams(ignore_eos=True, temperature=1.5, seed=3)
    name = engine.add([0], params, constraint=grammar("a{1,9}").start())
    outputs = finish_all(engine)[name]
    assert text_of(tokens_of(outputs)) == b"a" * 9
    assert outputs[-1].finished == "stop"


def test_what_bias_and_form_forbid_together_ends_that_request_alone():
    engine = engine_for()
    free = engine.add([0], SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True))
    bias = {0: -np.inf, 3: -np.inf, 5: -np.inf, 6: -np.inf}
    stuck = engine.add(
        [0], SamplingParams(logit_bias=bias), constraint=grammar("a[bc]|aa[bc]").start()
    )
    outputs = finish_all(engine)
    assert isinstance(outputs[stuck][-1].error, InvalidParameterError)
    assert len(tokens_of(outputs[free])) == 5


def test_a_grammar_that_turns_out_too_hard_ends_that_request_alone():
    engine = engine_for()
    constraint = grammar("[ab]{3,9}").start()

    def give_up() -> np.ndarray:
        raise ConstraintError("no answer of this form can be made: too complex")

    constraint.mask = give_up  # type: ignore[method-assign]
    free = engine.add([0], SamplingParams(max_tokens=5, temperature=0.0, ignore_eos=True))
    hard = engine.add([0], SamplingParams(), constraint=constraint)
    outputs = finish_all(engine)
    assert isinstance(outputs[hard][-1].error, ConstraintError)
    assert outputs[hard][-1].finished == "abort"
    assert len(tokens_of(outputs[free])) == 5
    assert engine.stats.requests_aborted == 1
