# SPDX-License-Identifier: Apache-2.0
"""`SamplingParams` refuses every number outside its meaning and names the field."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import InvalidParameterError
from freehold.types import GREEDY, MAX_LOGPROBS, SAMPLER_ORDER, SamplingParams

BAD = [
    ("max_tokens", 0), ("max_tokens", -1),
    ("temperature", -0.1), ("temperature", 100.1),
    ("top_k", -1),
    ("top_p", 0.0), ("top_p", 1.1), ("top_p", -0.5),
    ("min_p", -0.1), ("min_p", 1.1),
    ("typical_p", 0.0), ("typical_p", 1.5),
    ("top_n_sigma", -1.0),
    ("xtc_probability", -0.1), ("xtc_probability", 1.1),
    ("xtc_threshold", -0.1), ("xtc_threshold", 1.1),
    ("repetition_penalty", 0.0), ("repetition_penalty", -1.0),
    ("penalty_last_n", -2), ("dry_penalty_last_n", -2),
    ("dry_multiplier", -0.1), ("dry_base", 0.5), ("dry_allowed_length", 0),
    ("min_tokens", -1),
    ("seed", -1), ("seed", 2**64),
    ("stop", ("",)), ("stop", (3,)), ("stop", ("\ud800",)), ("dry_sequence_breakers", ("\udfff",)),
    ("sampler_order", ("top_k", "top_k")), ("sampler_order", ("magic",)),
    ("logprobs", -1), ("logprobs", MAX_LOGPROBS + 1), ("prompt_logprobs", -1),
    ("logit_bias", {1: math.nan}), ("logit_bias", {1: math.inf}), ("logit_bias", {"a": 1.0}),
]  # fmt: skip
FLOATS = [f.name for f in dataclasses.fields(SamplingParams) if f.type == "float"]
INTS = [f.name for f in dataclasses.fields(SamplingParams) if f.type in ("int", "int | None")]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{n}={v!r}" for n, v in BAD])
def test_impossible_values_are_refused_by_name(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_float_may_be_infinite_or_nan(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", FLOATS + INTS)
@pytest.mark.parametrize("value", ["1", [1], True, {}])
def test_numbers_of_the_wrong_type_are_refused_by_name(name, value):
    with pytest.raises(InvalidParameterError, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("name", INTS)
def test_counts_are_whole(name):
    with pytest.raises(InvalidParameterError, match=name):
        SamplingParams(**{name: 1.5})


def test_the_limits_themselves_are_allowed():
    SamplingParams(
        max_tokens=1, temperature=100.0, top_p=1.0, min_p=1.0, typical_p=1.0, xtc_probability=1.0,
        xtc_threshold=1.0, penalty_last_n=-1, dry_base=1.0, dry_allowed_length=1, seed=2**64 - 1,
        logprobs=MAX_LOGPROBS, logit_bias={7: -math.inf, 8: 3.5}, sampler_order=(),
    )  # fmt: skip


def test_defaults_are_neutral():
    params = SamplingParams()
    assert params.sampler_order == SAMPLER_ORDER
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (1.0, 0, 1.0, 0.0)
    assert GREEDY.temperature == 0.0


def test_a_single_stop_string_is_not_a_list_of_letters():
    assert SamplingParams(stop="end").stop == ("end",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")


@given(st.floats(), st.floats(), st.integers())
def test_whatever_is_accepted_is_inside_its_range(temperature, top_p, top_k):
    try:
        params = SamplingParams(temperature=temperature, top_p=top_p, top_k=top_k)
    except InvalidParameterError:
        return
    assert 0.0 <= params.temperature <= 100.0
    assert 0.0 < params.top_p <= 1.0
    assert params.top_k >= 0
