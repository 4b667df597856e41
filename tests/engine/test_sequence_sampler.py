# SPDX-License-Identifier: Apache-2.0
"""One sequence's choices: greedy, bias, end tokens, processors, seeds, windows, breakers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.engine.sampler import BreakerMasks, SequenceSampler, TokenCounts, uses_dry
from freehold.errors import EngineError, InvalidParameterError
from freehold.types import SamplingParams

CONTEXT = np.array([1, 2, 3], np.int32)
ROW = np.array([0.5, 3.0, 2.0, -1.0, 2.5], np.float32)


def choose(params, row=ROW, context=CONTEXT, output_ids=(), **options):
    sampler = SequenceSampler(params, context, len(row), **options)
    return sampler.choose(np.asarray(row, np.float32), context, list(output_ids))


def greedy(**options):
    return SamplingParams(temperature=0.0, **options)


def test_greedy_takes_the_largest_and_the_lowest_id_of_equals():
    assert choose(greedy()) == 1
    assert choose(greedy(), [1.0, 4.0, 4.0]) == 1
    assert choose(greedy(logit_bias={0: 0.5}), [3.5, 4.0, 4.0]) == 0


def test_greedy_heeds_bias_penalties_and_dry_and_nothing_that_truncates():
    assert choose(greedy(logit_bias={3: 10.0})) == 3
    assert choose(greedy(logit_bias={1: float("-inf")})) == 4
    assert choose(greedy(presence_penalty=1.0)) == 4
    repeated = np.array([0, 1, 2, 0], np.int32)
    assert choose(greedy(dry_multiplier=9.0, dry_allowed_length=1), context=repeated) == 4
    truncating = greedy(top_k=1, top_p=0.1, typical_p=0.1, min_p=1.0, xtc_probability=1.0,
                        xtc_threshold=0.0, top_n_sigma=0.1)  # fmt: skip
    assert choose(truncating) == 1
    assert choose(greedy(xtc_probability=1.0, xtc_threshold=0.01, presence_penalty=1.0)) == 4


def test_end_tokens_are_forbidden_until_enough_tokens_are_there():
    params = greedy(min_tokens=2)
    ends = {1, 4}
    assert choose(params, output_ids=[], end_token_ids=ends) == 2
    assert choose(params, output_ids=[2], end_token_ids=ends) == 2
    assert choose(params, output_ids=[2, 2], end_token_ids=ends) == 1
    with pytest.raises(InvalidParameterError, match="no token is possible"):
        choose(params, output_ids=[], end_token_ids=range(5))


def test_a_bias_against_all_is_refused():
    forbidden = {i: float("-inf") for i in range(5)}
    for params in (greedy(logit_bias=forbidden), SamplingParams(logit_bias=forbidden)):
        with pytest.raises(InvalidParameterError, match="no token is possible"):
            choose(params)


@pytest.mark.parametrize("params", [greedy(), greedy(presence_penalty=1.0), SamplingParams()])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_the_models_fault(params, bad):
    rows = (
        [np.full(5, bad)] if bad == -np.inf else [np.full(5, bad), np.where(ROW == 2.0, bad, ROW)]
    )
    for row in rows:
        with pytest.raises(EngineError, match="broken"):
            choose(params, row)


def test_a_processor_sees_the_answer_and_may_change_its_copy():
    seen = []

    def forbid_best(ids, logits):
        seen.append(list(ids))
        logits[int(logits.argmax())] = -np.inf
        return logits

    row = ROW.copy()
    assert choose(greedy(), row, output_ids=[7, 8], logits_processor=forbid_best) == 4
    assert seen == [[7, 8]]
    np.testing.assert_array_equal(row, ROW)
    # Bias comes first: the processor has the last word.
    assert choose(greedy(logit_bias={3: 99.0}), logits_processor=forbid_best) == 1


@pytest.mark.parametrize(
    "result",
    [None, 1.0, [], [1.0] * 4, [[1.0] * 5], ["a"] * 5, [np.nan] * 5, [0, 0, 0, 0, np.nan],
     [0, np.inf, 0, 0, 0], [1e300] * 5, [-np.inf] * 5, "not numbers"],
    ids=str,
)  # fmt: skip
def test_what_a_processor_returns_is_checked(result):
    for params in (greedy(), SamplingParams(seed=1)):
        with pytest.raises(InvalidParameterError):
            choose(params, logits_processor=lambda ids, logits: result)


def test_a_processor_that_raises_is_named():
    def fail(ids, logits):
        raise KeyError("x")

    with pytest.raises(InvalidParameterError, match="KeyError"):
        choose(greedy(), logits_processor=fail)


def stream(params, count=40, seed_row=0, offset=0.0):
    rng = np.random.default_rng(seed_row)
    sampler, context, answer = SequenceSampler(params, CONTEXT, 9), CONTEXT, []
    for _ in range(count):
        row = (rng.standard_normal(9) + offset).astype(np.float32)
        token = sampler.choose(row, context, answer)
        context = np.append(context, np.int32(token))
        sampler.accept(token, context)
        answer.append(token)
    return answer


def test_a_seed_fixes_every_choice_and_another_gives_another():
    for options in ({}, {"xtc_probability": 0.5}, {"top_k": 4, "temperature": 2.0}):
        first = stream(SamplingParams(seed=7, **options))
        assert stream(SamplingParams(seed=7, **options)) == first
        assert stream(SamplingParams(seed=8, **options)) != first
    assert stream(SamplingParams(seed=2**64 - 1)) != stream(SamplingParams(seed=2**32 - 1))


def test_xtc_acts_in_its_share_of_the_steps():
    row = np.array([4.0, 3.0, -9.0], np.float32)
    params = SamplingParams(xtc_probability=0.3, xtc_threshold=0.05, temperature=0.01, seed=5)
    sampler = SequenceSampler(params, CONTEXT, 3)
    seen = np.bincount([sampler.choose(row, CONTEXT, []) for _ in range(4000)], minlength=3)
    assert seen[2] == 0
    assert abs(seen[1] / 4000 - 0.3) < 0.024  # 3.3 standard deviations


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), max_size=15),
    st.sampled_from([-1, 0, 1, 2, 4, 9, 100]),
)
def test_counts_kept_up_to_date_equal_counts_made_afresh(prompt, answer, last_n):
    context = np.array(prompt, np.int32)
    counts = TokenCounts(context, 6, last_n)
    for token in answer:
        context = np.append(context, np.int32(token))
        leaving = int(context[-last_n - 1]) if 0 <= last_n < len(context) else None
        counts.append(token, leaving)
    ids, amounts = counts.table()
    window = context if last_n < 0 else context[max(0, len(context) - last_n) :]
    want = np.bincount(window, minlength=6)
    got = np.zeros(6, np.int64)
    got[ids] = amounts
    np.testing.assert_array_equal(got, want)
    assert (amounts > 0).all()


@pytest.mark.parametrize("last_n", [-1, 1, 3, 50])
def test_a_penalty_window_moves_with_the_answer(last_n):
    """Step by step, the sampler equals a fresh one that is given the whole text as prompt."""
    params = greedy(frequency_penalty=0.7, repetition_penalty=1.2, penalty_last_n=last_n)
    sampler, context, answer = SequenceSampler(params, CONTEXT, 5), CONTEXT, []
    for _ in range(30):
        token = sampler.choose(ROW, context, answer)
        assert token == choose(params, context=context)
        context = np.append(context, np.int32(token))
        sampler.accept(token, context)
        answer.append(token)
    assert len(set(answer)) > 1


def test_breakers_are_found_inside_pieces_and_kept():
    pieces = [b"a\n", b"b", b": c", b"\xe2", b""]
    calls = []

    def token_bytes(i):
        calls.append(i)
        return pieces[i]

    masks = BreakerMasks(5, token_bytes)
    assert masks.get(("\n", ":")).tolist() == [True, False, True, False, False]
    assert masks.get(("b",)).tolist() == [False, True, False, False, False]
    assert masks.get(()) is None
    assert calls == list(range(5))  # the vocabulary is read once
    for i in range(100):  # callers choose the sets
        masks.get((f"needle {i}",))
    assert len(masks._masks) <= 32
    with pytest.raises(InvalidParameterError, match="tokenizer"):
        BreakerMasks(5, None).get(("\n",))


def test_dry_is_asked_for_only_when_it_runs():
    assert uses_dry(SamplingParams(dry_multiplier=1.0))
    assert not uses_dry(SamplingParams())
    assert not uses_dry(SamplingParams(dry_multiplier=1.0, dry_penalty_last_n=0))
    assert not uses_dry(SamplingParams(dry_multiplier=1.0, sampler_order=("top_k",)))
