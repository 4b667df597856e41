# SPDX-License-Identifier: Apache-2.0
"""Every sampler, alone and in any order, against its definition written out the slow way.

The slow way: Python floats, dictionaries from token id to logit, full sorts.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.engine import samplers
from freehold.engine.sampler import SequenceSampler
from freehold.engine.samplers import Candidates
from freehold.types import SAMPLER_ORDER, SamplingParams

INF = math.inf
SETTINGS = settings(deadline=None, max_examples=120, derandomize=True)
# Multiples of 1/4, so that ties are common and sums of weights are not near any mass by chance.
logit_values = st.one_of(
    st.integers(-24, 24).map(lambda i: i / 4), st.just(-INF), st.sampled_from([-1e30, 88.75, 3e4])
)


@st.composite
def logit_rows(draw, least=1):
    row = draw(st.lists(logit_values, min_size=least, max_size=24))
    if max(row) == -INF:
        row[draw(st.integers(0, len(row) - 1))] = 0.5
    return row


def softmax(x: dict[int, float]) -> dict[int, float]:
    top = max(x.values())
    weights = {t: math.exp(v - top) for t, v in x.items()}
    total = math.fsum(weights.values())
    return {t: w / total for t, w in weights.items()}


def take_until(ranked: list[int], p: dict[int, float], mass: float) -> set[int]:
    chosen: set[int] = set()
    for token in ranked:
        chosen.add(token)
        # A hair of tolerance: whether a sum of rounded weights reaches an exact mass is no rule.
        if math.fsum(p[t] for t in chosen) >= mass - 1e-7:
            break
    return chosen


def narrow(x: dict[int, float]) -> dict[int, float]:
    """Logits are float32 between samplers: at 30,000 a change of 0.001 is none."""
    return {t: float(np.float32(v)) for t, v in x.items()}


class Slow:
    """The definitions, one method per name; each maps {token: logit} to the same."""

    def __init__(self, params, context, breakers=()):
        self.p, self.context, self.breakers = params, context, set(breakers)

    def penalties(self, x):
        n = self.p.penalty_last_n
        window = self.context if n < 0 else self.context[max(0, len(self.context) - n) :]
        counts = Counter(window)
        result = dict(x)
        for token, count in counts.items():
            if token in result:
                v, r = result[token], self.p.repetition_penalty
                v = v / r if v > 0 else v * r
                result[token] = v - self.p.presence_penalty - self.p.frequency_penalty * count
        return narrow(result)

    def dry(self, x):
        n = self.p.dry_penalty_last_n
        text = self.context if n < 0 else self.context[max(0, len(self.context) - n) :]
        result = dict(x)
        for token in x:
            length = self.repeat(text, token)
            if self.p.dry_multiplier and length >= self.p.dry_allowed_length:
                power = self.p.dry_base ** (length - self.p.dry_allowed_length)
                result[token] -= min(self.p.dry_multiplier * power, 1e30)
        return narrow(result)

    def repeat(self, text, token):
        if token in self.breakers:
            return 0
        best = 0
        for n in range(1, min(50, len(text)) + 1):
            tail = text[len(text) - n :]
            if set(tail) & self.breakers:
                break
            if any(text[i : i + n + 1] == [*tail, token] for i in range(len(text) - n)):
                best = n
        return best

    def top_n_sigma(self, x):
        if not self.p.top_n_sigma:
            return x
        finite = [v for v in x.values() if v > -INF]
        mean = math.fsum(finite) / len(finite)
        sigma = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / len(finite))
        least = max(finite) - self.p.top_n_sigma * sigma
        return {t: v for t, v in x.items() if v >= least}

    def top_k(self, x):
        ranked = sorted(x, key=lambda t: (-x[t], t))
        keep = ranked[: self.p.top_k] if self.p.top_k else ranked
        return {t: x[t] for t in x if t in keep}

    def typical_p(self, x):
        if self.p.typical_p == 1.0:
            return x
        p = softmax(x)
        surprise = {t: -math.log(p[t]) if p[t] > 0 else INF for t in x}
        entropy = math.fsum(p[t] * surprise[t] for t in x if p[t] > 0)
        ranked = sorted(x, key=lambda t: (round(abs(surprise[t] - entropy), 5), t))
        keep = take_until(ranked, p, self.p.typical_p)
        return {t: x[t] for t in x if t in keep}

    def top_p(self, x):
        if self.p.top_p == 1.0:
            return x
        p = softmax(x)
        keep = take_until(sorted(x, key=lambda t: (-x[t], t)), p, self.p.top_p)
        return {t: x[t] for t in x if t in keep}

    def min_p(self, x):
        p = softmax(x)
        least = self.p.min_p * max(p.values())
        return {t: x[t] for t in x if p[t] >= least * (1 - 1e-6)}

    def xtc(self, x):  # with probability 1
        if not self.p.xtc_probability:
            return x
        p = softmax(x)
        above = [t for t in x if p[t] > 0 and p[t] >= self.p.xtc_threshold * (1 - 1e-6)]
        if len(above) < 2:
            return x
        spared = min(above, key=lambda t: (x[t], -t))
        return {t: v for t, v in x.items() if t not in above or t == spared}

    def temperature(self, x):
        return narrow({t: v / self.p.temperature for t, v in x.items()})


def fast(params, row, context=(), breakers=None) -> dict[int, float]:
    """What the sampler would draw from: {token: probability}."""
    seen = {}

    def catch(c: Candidates, u: float) -> int:
        x = {c.token(i): float(v) for i, v in enumerate(c.logits)}
        seen.update(softmax(x))
        return original(c, u)

    original = samplers.draw
    mask = None
    if breakers is not None:
        mask = np.isin(np.arange(len(row)), list(breakers))
    ids = np.array(list(context), np.int32)
    sampler = SequenceSampler(params, ids, len(row), breakers=mask)
    logits = np.array(row, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "draw", catch)
        token = sampler.choose(logits, ids, [])
    np.testing.assert_array_equal(logits, np.array(row, np.float32))  # left alone
    assert seen[token] > 0
    return seen


def compare(params, row, context=(), breakers=()):
    got = fast(params, row, context, breakers)
    slow = Slow(params, list(context), breakers)
    x = {t: float(np.float32(v)) for t, v in enumerate(row)}
    for name in params.sampler_order:
        x = getattr(slow, name)(x)
    want = softmax(x)
    # A token of no probability may be listed or not.
    positive = {t for t, p in got.items() if p > 1e-30}
    assert positive == {t for t, p in want.items() if p > 1e-30}
    for token in positive:
        assert got[token] == pytest.approx(want[token], rel=2e-4, abs=1e-7)


@SETTINGS
@given(logit_rows(), st.integers(1, 30))
def test_top_k(row, k):
    compare(SamplingParams(top_k=k), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([1e-6, 0.1, 0.25, 0.5, 0.731, 0.999, 1 - 1e-9]))
def test_top_p(row, mass):
    compare(SamplingParams(top_p=mass), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([1e-6, 0.137, 0.5, 0.731, 0.97]))
def test_typical_p(row, mass):
    compare(SamplingParams(typical_p=mass), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([1e-9, 0.01, 0.1, 0.5, 1.0]))
def test_min_p(row, share):
    compare(SamplingParams(min_p=share), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([0.013, 0.77, 1.31, 2.7, 1e6]))
def test_top_n_sigma(row, n):
    compare(SamplingParams(top_n_sigma=n), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([0.0, 0.03, 0.1, 0.27, 0.51, 1.0]))
def test_xtc(row, threshold):
    compare(SamplingParams(xtc_probability=1.0, xtc_threshold=threshold), row)


@SETTINGS
@given(logit_rows(), st.sampled_from([5e-324, 1e-300, 1e-3, 0.7, 1.5, 100.0]))
def test_temperature(row, value):
    top = max(row)
    got = fast(SamplingParams(temperature=value), row)
    # Shifted first, as the definition allows: x / 1e-300 is no number.
    want = softmax({t: (v - top) / value if v != top else 0.0 for t, v in enumerate(row)})
    for token, p in got.items():
        assert p == pytest.approx(want[token], rel=2e-4, abs=1e-7)


@SETTINGS
@given(st.data())
def test_penalties(data):
    row = data.draw(logit_rows(least=3))
    context = data.draw(st.lists(st.integers(0, len(row) - 1), min_size=1, max_size=12))
    params = SamplingParams(
        repetition_penalty=data.draw(st.sampled_from([1.0, 0.5, 1.3])),
        presence_penalty=data.draw(st.sampled_from([0.0, 0.4, -2.0])),
        frequency_penalty=data.draw(st.sampled_from([0.0, 0.3, -1.0])),
        penalty_last_n=data.draw(st.sampled_from([-1, 0, 1, 2, 5, 100])),
    )
    compare(params, row, context)


@SETTINGS
@given(st.data())
def test_dry(data):
    row = data.draw(st.lists(st.integers(-24, 24).map(lambda i: i / 4), min_size=3, max_size=6))
    few = st.integers(0, 2)
    context = data.draw(st.lists(few, min_size=1, max_size=20))
    breakers = data.draw(st.sets(st.integers(0, len(row) - 1), max_size=2))
    params = SamplingParams(
        dry_multiplier=data.draw(st.sampled_from([0.5, 3.0])),
        dry_base=data.draw(st.sampled_from([1.0, 1.75])),
        dry_allowed_length=data.draw(st.integers(1, 4)),
        dry_penalty_last_n=data.draw(st.sampled_from([-1, 0, 1, 3, 8])),
    )
    compare(params, row, context, breakers)


def test_dry_neither_crosses_nor_punishes_a_breaker():
    params = SamplingParams(dry_multiplier=1.0, dry_allowed_length=1)
    row = [0.0] * 4
    for breaker in range(4):
        compare(params, row, [1, 0, 2, 1, 0, 3, 1, 0], {breaker})
        compare(params, row, [1, 0, 1], {breaker})

    def lengths(context, *breakers):
        mask = np.isin(np.arange(4), breakers)
        found = samplers.repeat_lengths(np.array(context, np.int32), mask)
        return dict(zip(*(part.tolist() for part in found), strict=True))

    assert lengths([1, 2, 3, 1, 2]) == {3: 2}
    assert lengths([1, 2, 3, 1, 2], 3) == {}
    assert lengths([1, 2, 3, 1, 2], 1) == {3: 1}
    assert lengths([1, 2, 3, 1, 2], 2) == {}


def test_dry_stops_measuring_at_fifty():
    context = np.array([0] * 200, np.int32)
    tokens, lengths = samplers.repeat_lengths(context, None)
    assert (tokens.tolist(), lengths.tolist()) == ([0], [50])


@SETTINGS
@given(st.data())
def test_all_samplers_in_any_order(data):
    row = data.draw(logit_rows(least=2))
    context = data.draw(st.lists(st.integers(0, min(2, len(row) - 1)), min_size=1, max_size=10))
    params = SamplingParams(
        temperature=data.draw(st.sampled_from([0.7, 1.6])),
        top_k=data.draw(st.sampled_from([0, 2, 7])),
        top_p=data.draw(st.sampled_from([1.0, 0.73])),
        min_p=data.draw(st.sampled_from([0.0, 0.11])),
        top_n_sigma=data.draw(st.sampled_from([0.0, 1.31])),
        xtc_probability=data.draw(st.sampled_from([0.0, 1.0])),
        xtc_threshold=0.117,
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.25])),
        dry_multiplier=data.draw(st.sampled_from([0.0, 0.5])),
        sampler_order=tuple(data.draw(st.permutations(SAMPLER_ORDER))),
    )
    compare(params, row, context)


def test_the_order_matters_and_left_out_samplers_do_not_run():
    row = [2.0, 1.5, 1.0, 0.0]
    hot = {"temperature": 5.0, "top_p": 0.6}
    late = fast(SamplingParams(**hot), row)
    early = fast(SamplingParams(**hot, sampler_order=("temperature", "top_p")), row)
    assert len(late) < len(early)
    assert fast(SamplingParams(**hot, sampler_order=()), row) == fast(SamplingParams(), row)


@pytest.mark.parametrize("size", [5000, 128_256])
def test_large_vocabularies_take_the_fast_paths_and_agree(size):
    rng = np.random.default_rng(3)
    for row in (
        rng.standard_normal(size) * 2,
        np.round(rng.standard_normal(size)),  # ties by the thousand
        np.zeros(size),
        np.where(rng.random(size) < 0.999, -np.inf, rng.standard_normal(size)),
    ):
        row = row.astype(np.float32)
        ranking = np.lexsort((np.arange(size), -row))
        p = np.exp(row.astype(np.float64) - row.max())
        p /= p.sum()
        for k in (1, 2, 40, 300, size - 1, size, size + 1):
            kept = samplers.top_k(Candidates(row), k)
            ids = np.arange(size) if kept.ids is None else kept.ids
            np.testing.assert_array_equal(ids, np.sort(ranking[:k]))
            np.testing.assert_array_equal(kept.logits, row[ids])
        for mass in (0.01, 0.9):
            kept = samplers.top_p(Candidates(row), mass)
            count = len(kept.logits)
            np.testing.assert_array_equal(kept.ids, np.sort(ranking[:count]))
            sums = np.cumsum(p[ranking])
            assert sums[count - 1] >= mass - 1e-6
            assert count == 1 or sums[count - 2] < mass + 1e-6


def test_draw_follows_the_distribution():
    row = np.array([0.0, 1.0, -np.inf, 2.0, -1.0, 2.0], np.float32)
    p = np.exp(row) / np.exp(row).sum()
    rng = np.random.default_rng(8)
    count = 20_000
    seen = np.bincount([samplers.draw(Candidates(row), rng.random()) for _ in range(count)],
                       minlength=6)  # fmt: skip
    assert seen[2] == 0
    possible = p > 0
    expected = count * p[possible]
    # 99.9 % point of chi-squared with 4 degrees of freedom
    assert float(((seen[possible] - expected) ** 2 / expected).sum()) < 18.5


def test_draw_at_the_ends_gives_a_possible_token():
    row = np.array([-np.inf, 0.0, -np.inf, 0.0, -np.inf], np.float32)
    assert samplers.draw(Candidates(row), 0.0) == 1
    assert samplers.draw(Candidates(row), 0.4999999) == 1
    assert samplers.draw(Candidates(row), 0.5) == 3
    assert samplers.draw(Candidates(row), 1 - 2**-53) == 3
    even = Candidates(np.zeros(1024, np.float32))
    for token in (0, 511, 512, 513, 1023):
        assert samplers.draw(even, token / 1024) == token
    three = np.log(np.array([0.1, 0.2, 0.7], np.float32))
    assert samplers.draw(Candidates(three), 1 - 2**-53) == 2


@pytest.mark.parametrize("size", [511, 512, 513, 5000])
def test_draw_from_many_is_the_quantile_of_the_running_sum(size):
    rng = np.random.default_rng(size)
    row = np.where(rng.random(size) < 0.3, -np.inf, rng.standard_normal(size) * 3)
    row = row.astype(np.float32)
    sums = np.cumsum(np.exp(row.astype(np.float64) - row.max()))
    for u in (*rng.random(300), 0.0, 1 - 2**-53):
        token = samplers.draw(Candidates(row), u)
        assert row[token] > -np.inf
        low, high = sums[token - 1] if token else 0.0, sums[token]
        assert low - 1e-5 * sums[-1] <= u * sums[-1] <= high + 1e-5 * sums[-1]
    ids = np.arange(size) * 3 + 1  # survivors of a truncation keep their names
    assert samplers.draw(Candidates(row, ids), 0.5) == samplers.draw(Candidates(row), 0.5) * 3 + 1


def test_sampler_draws_the_same_shares_end_to_end():
    row = np.log(np.array([0.5, 0.25, 0.125, 0.125], np.float32))
    ids = np.array([0], np.int32)
    sampler = SequenceSampler(SamplingParams(seed=4, top_k=3), ids, 4)
    seen = np.bincount([sampler.choose(row, ids, []) for _ in range(8000)], minlength=4)
    expected = np.array([4, 2, 1]) / 7 * 8000
    assert seen[3] == 0
    assert float(((seen[:3] - expected) ** 2 / expected).sum()) < 13.8  # 99.9 %, 2 degrees


EXTREMES = [
    {"logit_bias": {0: 1.7e308, 1: 1.7e308, 2: -1.7e308, 3: -INF}},
    {"repetition_penalty": 1.7e308},
    {"repetition_penalty": 5e-324},
    {"presence_penalty": 1.7e308, "frequency_penalty": -1.7e308},
    {"presence_penalty": -1.7e308, "frequency_penalty": -1.7e308},
    {"frequency_penalty": 1.7e308},
    {"dry_multiplier": 1.7e308, "dry_base": 1.7e308, "dry_allowed_length": 1},
    {"temperature": 5e-324},
    {"top_n_sigma": 1.7e308},
    {"top_p": 5e-324},
    {"typical_p": 5e-324},
    {"min_p": 5e-324},
    {"top_k": 2**70},
]


@pytest.mark.parametrize("options", EXTREMES, ids=lambda o: next(iter(o)))
@pytest.mark.parametrize("scale", [1.0, 1e30, 3.3e38])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_extreme_settings_and_logits_give_a_possible_token(options, scale, temperature):
    row = np.array([-1.0, 1.0, 0.0, 0.5, -np.inf, -0.5], np.float32) * np.float32(scale)
    context = np.array([0, 1, 2, 3, 5, 0, 1, 2], np.int32)
    params = SamplingParams(**({"temperature": temperature, "seed": 1} | options))
    everything = SamplingParams(
        **(
            {"temperature": temperature, "seed": 1, "top_k": 5, "top_p": 0.9, "typical_p": 0.9,
             "min_p": 0.01, "top_n_sigma": 3.0, "xtc_probability": 1.0, "dry_multiplier": 1.0,
             "frequency_penalty": 0.5}
            | options
        )
    )  # fmt: skip
    for chosen in (params, everything):
        sampler = SequenceSampler(chosen, context, 6)
        tokens = {sampler.choose(row, context, []) for _ in range(20)}
        assert 4 not in tokens
        assert tokens <= set(range(6))
        if "logit_bias" in options:
            assert tokens <= {0, 1}
