# SPDX-License-Identifier: Apache-2.0
"""Drafts by prompt lookup, and the decision whether they pay."""

from __future__ import annotations

import numpy as np
import pytest
from hash_model import HashModel, HashOps, alone, finish_all, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.speculative import DraftControl, StepCost, propose
from freehold.types import SamplingParams


def slow_propose(context, count):
    for n in (4, 3, 2):
        tail = context[len(context) - n :]
        for start in range(len(context) - n - 1, -1, -1):
            if n < len(context) and context[start : start + n] == tail:
                # Continue the text with itself, as long as asked for.
                text = list(context)
                for _ in range(count):
                    text.append(text[start + n + len(text) - len(context)])
                return text[len(context) :]
    return []


@settings(deadline=None, max_examples=400, derandomize=True)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=14), st.integers(1, 6))
def test_propose_equals_a_plain_search(context, count):
    assert propose(np.array(context, np.int32), count) == slow_propose(context, count)


def test_propose_prefers_long_tails_then_recent_ones_and_follows_loops():
    assert propose(np.array([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], np.int32), 2) == [9, 2]
    assert propose(np.array([2, 3, 9, 2, 3, 8, 2, 3], np.int32), 1) == [8]
    assert propose(np.array([5, 5, 5], np.int32), 4) == [5, 5, 5, 5]
    assert propose(np.array([1, 2, 1, 2, 1], np.int32), 3) == [2, 1, 2]
    assert propose(np.array([1, 2, 3], np.int32), 3) == []


def test_cost_is_the_line_through_the_steps():
    cost = StepCost()
    for _ in range(20):
        for rows in (1, 3, 6):
            cost.observe(rows, 0.010 + 0.002 * rows)
    assert cost.line() == pytest.approx((0.010, 0.002))


def test_cost_forgets_and_says_nothing_before_rows_have_varied():
    cost = StepCost()
    assert cost.line() is None
    for _ in range(50):
        cost.observe(4, 0.01)
    assert cost.line() is None
    for seconds in (0.5, 0.1):  # a slow machine becomes a fast one
        for _ in range(200):
            for rows in (1, 5):
                cost.observe(rows, seconds * (1 + rows))
    assert cost.line() == pytest.approx((0.1, 0.1), rel=0.01)


def test_cost_is_never_negative():
    cost = StepCost()
    for _ in range(20):
        cost.observe(1, 0.02)
        cost.observe(9, 0.01)  # noise: more rows took less
    base, per_row = cost.line()
    assert per_row == 0.0
    assert base > 0.0


LOOP = np.array([1, 2, 3, 4] * 5, np.int32)


def line(base, per_row):
    cost = StepCost()
    for _ in range(20):
        for rows in (1, 4):
            cost.observe(rows, base + per_row * rows)
    return cost


def drafting_steps(control, cost, accepted, steps, num_decoding=1):
    """Steps in which drafts were made, each judged by `accepted`."""
    made = []
    for step in range(steps):
        drafts = control.drafts(LOOP, num_decoding, cost)
        if drafts:
            made.append(step)
            control.judge(len(drafts), accepted(len(drafts)))
    return made


def test_drafts_that_are_always_wrong_pause_ever_longer_and_are_tried_again():
    made = drafting_steps(DraftControl(4), line(0.010, 0.004), lambda n: 0, 3000)
    gaps = np.diff(made)
    pauses = gaps[gaps > 1].tolist()
    # The step that decides makes no draft either, and the first after the pause is one later.
    assert pauses[:5] == [p + 2 for p in (16, 32, 64, 128, 256)]
    assert set(pauses[5:]) == {514}  # 512 and no more: there is always another try
    assert len(made) < 60


def test_drafts_that_are_right_never_pause():
    made = drafting_steps(DraftControl(4), line(0.010, 0.001), lambda n: n, 300)
    assert made == list(range(300))


def test_what_pays_alone_does_not_pay_in_a_crowd():
    cost = line(0.010, 0.001)  # a row costs a tenth of a step
    half_right = lambda n: n // 2  # noqa: E731
    assert len(drafting_steps(DraftControl(4), cost, half_right, 200, num_decoding=1)) == 200
    assert len(drafting_steps(DraftControl(4), cost, half_right, 200, num_decoding=64)) < 40


def test_rows_that_cost_nothing_are_worth_any_hit():
    made = drafting_steps(DraftControl(4), line(0.010, 0.0), lambda n: 1, 100)
    assert len(made) == 100


class Looping(HashModel):
    """Greedy text counts 0, 1, … 4, 0, …: every draft made from a loop is right."""

    def logits(self, hidden, ops):
        return self.next_rows

    def forward(self, batch, cache, ops):
        hidden = super().forward(batch, cache, ops)
        ids = batch.token_ids[batch.logits_rows]
        self.next_rows = np.eye(self.vocab, dtype=np.float32)[(ids + 1) % self.vocab]
        return hidden


def test_right_drafts_save_steps_and_are_counted():
    model = Looping(5)
    engine = Engine(
        model, HashOps(), EngineConfig(context_length=200, num_blocks=99, speculative_tokens=4)
    )
    request_id = engine.add([0, 1, 2, 3, 4] * 2, SamplingParams(temperature=0.0, max_tokens=100))
    outputs = finish_all(engine)[request_id]
    assert tokens_of(outputs) == [n % 5 for n in range(100)]
    s = engine.stats
    assert s.steps < 40
    assert s.drafts_accepted == 100 - s.steps
    assert s.drafts_accepted <= s.drafts_proposed
    assert max(len(output.new_token_ids) for output in outputs) == 5


def test_wrong_drafts_are_counted_and_cost_no_token():
    params = SamplingParams(seed=3, max_tokens=100, logprobs=1)
    prompt = [0, 1, 0, 1, 0, 1, 0]
    plain = alone(prompt, params, vocab=3, context_length=200, num_blocks=99)
    engine = Engine(
        HashModel(3), HashOps(),
        EngineConfig(context_length=200, num_blocks=99, speculative_tokens=4),
    )  # fmt: skip
    request_id = engine.add(prompt, params)
    drafted = finish_all(engine)[request_id]
    assert tokens_of(drafted) == tokens_of(plain)
    assert [lp for o in drafted for lp in o.logprobs] == [lp for o in plain for lp in o.logprobs]
    s = engine.stats
    assert 0 < s.drafts_accepted < s.drafts_proposed
    assert s.decode_tokens == 100
    assert s.steps + s.drafts_accepted == 100
