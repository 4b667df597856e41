# SPDX-License-Identifier: Apache-2.0
"""Selection and log-probabilities against full sorts and float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.engine.logprobs import target_logprobs, token_logprob
from freehold.engine.selection import edge_of_mass, log_sum_exp, log_sum_exps, top_indices

values = st.one_of(st.integers(-8, 8).map(float), st.just(-np.inf))


def log_softmax(row):
    x = np.asarray(row, np.float64)
    top = x.max()
    return x - top - np.log(np.exp(x - top).sum())


def full_ranking(row):
    return np.lexsort((np.arange(len(row)), -np.asarray(row)))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(st.lists(values, min_size=1, max_size=40), st.integers(-1, 45))
def test_top_indices_of_small_rows(row, count):
    row = np.array(row, np.float32)
    np.testing.assert_array_equal(
        top_indices(row, count), np.sort(full_ranking(row)[: max(0, count)])
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(4000, 20_000), st.integers(1, 400), st.integers(0, 3), st.integers(0, 999))
def test_top_indices_of_large_rows(size, count, kind, seed):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(size)
    row = [row, np.round(row), np.sort(row), np.where(row < 3, -np.inf, row)][kind]
    row = row.astype(np.float32)
    np.testing.assert_array_equal(top_indices(row, count), np.sort(full_ranking(row)[:count]))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 3000), st.integers(0, 4), st.floats(0.01, 1.2), st.integers(0, 999))
def test_edge_of_mass_is_where_the_running_sum_gets_there(size, kind, share, seed):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(size) * 2
    row = [row, np.round(row), np.zeros(size), row * 1e36, np.where(row < 2, -np.inf, row)][kind]
    row[0] = max(row[0], 0.0)
    row = row.astype(np.float32)
    weights = rng.random(size).astype(np.float32)
    mass = share * float(weights.sum(dtype=np.float64))
    before, reached, among = edge_of_mass(row, weights, mass)
    assert reached == pytest.approx(float(weights[before].sum(dtype=np.float64)), rel=1e-9)
    ranking = full_ranking(row)
    at = min(int(np.searchsorted(np.cumsum(weights[ranking], dtype=np.float64), mass)), size - 1)
    assert ranking[at] in among or abs(share - 1) < 1e-6
    # The two parts are the head of the ranking.
    parts = np.flatnonzero(before).tolist() + among.tolist()
    assert len(set(parts)) == len(parts)
    if before.any():
        assert row[before].min() > row[among].max()
    after = np.setdiff1d(np.arange(size), parts)
    if len(after):
        assert row[after].max() <= row[among].min()
    if kind == 0 and size > 1000:
        assert len(among) <= 256  # little is left to sort


def test_log_sum_exp_of_the_odd_ones():
    assert log_sum_exp(np.empty(0, np.float32)) == -np.inf
    assert log_sum_exp(np.full(3, -np.inf, np.float32)) == -np.inf
    assert log_sum_exp(np.array([1e4, 1e4], np.float32)) == pytest.approx(1e4 + np.log(2))
    assert log_sum_exp(np.array([-1e4, -np.inf], np.float32)) == pytest.approx(-1e4)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(values, min_size=1, max_size=30), st.data())
def test_token_logprob_is_log_softmax_with_rank_and_best(row, data):
    if max(row) == -np.inf:
        row[0] = 1.0
    token = data.draw(st.integers(0, len(row) - 1))
    num_top = data.draw(st.integers(0, 40))
    want = log_softmax(row)
    got = token_logprob(np.array(row, np.float32), token, num_top)
    assert got.token_id == token
    assert got.logprob == pytest.approx(want[token], abs=1e-5)
    assert got.rank == 1 + sum(v > row[token] for v in row)
    assert [t for t, _ in got.top] == full_ranking(row)[:num_top].tolist()
    np.testing.assert_allclose([lp for _, lp in got.top], [want[t] for t, _ in got.top], atol=1e-5)


def test_target_logprobs_pick_one_per_row():
    rng = np.random.default_rng(1)
    logits = (rng.standard_normal((7, 50)) * 10).astype(np.float32)
    targets = rng.integers(0, 50, 7).astype(np.int32)
    want = [log_softmax(row)[t] for row, t in zip(logits, targets, strict=True)]
    got = target_logprobs(logits, targets)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 100, 127, 128, 129, 4096, 32001])
def test_rows_together_give_the_bits_of_each_row(width):
    rng = np.random.default_rng(width)
    rows = (8 * rng.standard_normal((9, width))).astype(np.float32)
    rows[3, : width // 2] = -np.inf
    rows[4] = -np.inf
    rows[5, 0] = 60.0
    want = [log_sum_exp(row) for row in rows]
    np.testing.assert_array_equal(log_sum_exps(rows), want)
    rows[6, -1] = np.nan
    assert np.isnan(log_sum_exps(rows)[6])
