# SPDX-License-Identifier: Apache-2.0
"""Routing and mixing of experts: the reference against torch, devices against the reference, and
what a token may depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from op_inputs import activations, matrix

from budgets import limit, row_error
from devices import all_params, cpu_params, open_device
from freehold import backends
from freehold.errors import InvalidParameterError
from freehold.ops import Expert, RoutingSpec

REFERENCE = backends.create("reference")
EXPERTS, SLOTS, HIDDEN, FFN = 7, 3, 256, 512
TYPES = ["F32", "BF16", "Q8_0", "Q4_K"]
GATES = [("silu", 0.0), ("silu", 10.0), ("swiglu_oai", 0.0), ("swiglu_oai", 2.0)]


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


@pytest.fixture(scope="module", params=cpu_params())
def device(request):
    return request.param


@pytest.fixture(scope="module")
def cpu(device):
    return open_device(device)


def allowed(ops, op, kind=""):
    return limit("reference", "sweep") if ops.name == "reference" else limit(ops.name, op, kind)


def raw_experts(qtype):
    return [
        (matrix(qtype, FFN, HIDDEN, 3 * e), matrix(qtype, FFN, HIDDEN, 3 * e + 1),
         matrix(qtype, HIDDEN, FFN, 3 * e + 2))
        for e in range(EXPERTS)
    ]  # fmt: skip


def load(ops, qtype):
    return [Expert(*(ops.load_weight(raw) for raw in raws)) for raws in raw_experts(qtype)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def routed(tokens, seed=0):
    """Different experts for every token, weights of any size."""
    rng = np.random.default_rng([seed, tokens])
    chosen = np.array([rng.permutation(EXPERTS)[:SLOTS] for _ in range(tokens)], dtype=np.int32)
    return chosen.reshape(tokens, SLOTS), rng.uniform(0.01, 1, (tokens, SLOTS)).astype(np.float32)


def host(ops, x):
    return np.array(ops.to_numpy(x))


# -- route ------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_route_is_softmax_then_top_k(ops, normalise):
    logits = 3 * normal(40, 16)
    chosen, weights = ops.route(logits, RoutingSpec(4, normalise, scale=2.5))
    want, order = torch.from_numpy(logits).double().softmax(-1).topk(4)
    want = 2.5 * (want / want.sum(-1, keepdim=True) if normalise else want)
    np.testing.assert_array_equal(host(ops, chosen), order.numpy())
    np.testing.assert_allclose(host(ops, weights), want.numpy(), rtol=2e-7)
    assert str(chosen.dtype).endswith("int32")


def torch_scores(logits, scoring):
    wide = torch.from_numpy(logits).double()
    if scoring == "softmax":
        return wide.softmax(-1)
    return wide.sigmoid() if scoring == "sigmoid" else torch.nn.functional.softplus(wide).sqrt()


@pytest.mark.parametrize("groups", [(1, 1, "max"), (4, 2, "max"), (4, 2, "sum2"), (8, 5, "sum2")])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrt_softplus"])
def test_scores_groups_and_a_bias_of_the_choice(ops, scoring, normalise, with_bias, groups):
    count, kept, group_score = groups
    logits, bias = 3 * normal(40, 16, seed=1), normal(16, seed=2)  # some sums are below zero
    spec = RoutingSpec(5, normalise, 2.5, scoring, count, kept, group_score)
    loaded = ops.load_vector(bias) if with_bias else None
    chosen, weights = (host(ops, part) for part in ops.route(logits, spec, loaded))
    scores = torch_scores(logits, scoring)
    keys = scores + torch.from_numpy(bias).double() if with_bias else scores
    grouped = keys.view(40, count, -1)
    best = grouped.topk(2, -1)[0].sum(-1) if group_score == "sum2" else grouped.max(-1).values
    allowed_groups = torch.zeros(40, count).scatter(1, best.topk(kept)[1], 1.0).bool()
    keys = grouped.masked_fill(~allowed_groups[..., None], -torch.inf).view(40, 16)
    order = keys.topk(5)[1]
    want = scores.gather(1, order)
    want = 2.5 * (want / want.sum(-1, keepdim=True) if normalise else want)
    np.testing.assert_array_equal(chosen, order.numpy())
    np.testing.assert_allclose(weights, want.numpy(), rtol=3e-7)
    one_by_one = [ops.route(logits[i : i + 1], spec, loaded) for i in range(40)]
    np.testing.assert_array_equal(chosen, np.concatenate([host(ops, c) for c, _ in one_by_one]))
    np.testing.assert_array_equal(weights, np.concatenate([host(ops, w) for _, w in one_by_one]))


def test_a_logit_that_is_no_number_is_the_last_choice(ops):
    logits = np.float32([[1, np.nan, 2, 0]])
    for scoring in ("softmax", "sigmoid"):
        spec = RoutingSpec(3, True, scoring=scoring)
        chosen, weights = ops.route(logits, spec)
        assert host(ops, chosen).tolist() == [[2, 0, 3]]
        assert np.isfinite(host(ops, weights)).all()


def test_equal_logits_go_to_the_lower_expert(ops):
    logits = np.float32([[1, 2, 2, 1, 2], [0, 0, 0, 0, 0], [-1e30, -1e30, 5, -1e30, -1e30]])
    chosen, weights = ops.route(logits, RoutingSpec(4, normalise=True))
    assert host(ops, chosen).tolist() == [[1, 2, 4, 0], [0, 1, 2, 3], [2, 0, 1, 3]]
    np.testing.assert_allclose(host(ops, weights)[1:], [[0.25] * 4, [1, 0, 0, 0]], rtol=1e-7)


def test_logits_that_are_not_numbers_harm_their_own_row_alone(ops):
    logits = normal(3, 6)
    logits[1] = np.float32([np.nan, np.inf, 1, -np.inf, np.nan, 2])
    chosen, weights = (host(ops, a) for a in ops.route(logits, RoutingSpec(6, normalise=False)))
    assert sorted(chosen[1].tolist()) == list(range(6))  # still experts
    assert np.isnan(weights[1]).any()
    for row in (0, 2):
        alone = ops.route(logits[row : row + 1], RoutingSpec(6, normalise=False))
        np.testing.assert_array_equal(chosen[row], host(ops, alone[0])[0])
        np.testing.assert_array_equal(weights[row], host(ops, alone[1])[0])


# -- sigmoid_gate -----------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 24])
def test_sigmoid_gate(ops, columns):
    x, gate = activations(9, 24), 4 * normal(9, columns)
    gate[0], gate[1] = 200, -200
    want = x * torch.from_numpy(gate).double().sigmoid().numpy()
    got = host(ops, ops.sigmoid_gate(x.copy(), gate))
    np.testing.assert_allclose(got, want, rtol=2e-7, atol=1e-37)


# -- moe --------------------------------------------------------------------------------------


def test_the_reference_sums_weighted_experts():
    x, (chosen, weights) = normal(11, HIDDEN), routed(11)
    raws, want = raw_experts("F32"), np.zeros((11, HIDDEN))
    for t in range(11):
        row = torch.from_numpy(x[t]).double()
        for e, weight in zip(chosen[t], weights[t], strict=True):
            gate, up, down = (torch.from_numpy(raw.to_f32()).double() for raw in raws[e])
            gated = torch.nn.functional.gelu(gate @ row, approximate="tanh") * (up @ row)
            want[t] += float(weight) * (down @ gated).numpy()
    got = REFERENCE.moe(x, load(REFERENCE, "F32"), chosen, weights, "gelu_tanh")
    assert row_error(got, want) <= 1.2e-7


def with_biases(ops, experts):
    """Large ones, so that none is lost beside a product."""
    sizes = FFN, FFN, HIDDEN
    biases = [[3 * normal(n, seed=3 * e + i) for i, n in enumerate(sizes)] for e in range(EXPERTS)]
    return [
        replace(expert, gate_bias=gate, up_bias=up, down_bias=down)
        for expert, (gate, up, down) in zip(
            experts, ([ops.load_vector(b) for b in part] for part in biases), strict=True
        )
    ]


def torch_gate(gate, up, activation, limit):
    """As the models' own code has it."""
    if activation == "swiglu_oai":
        limit = limit or 7.0
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (up + 1) * gate * torch.sigmoid(gate * 1.702)
    if limit:
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return torch.nn.functional.silu(gate) * up


@pytest.mark.parametrize("weigh_input", [False, True])
@pytest.mark.parametrize(("activation", "limit"), GATES)
def test_the_reference_knows_biases_limits_and_weighed_inputs(activation, limit, weigh_input):
    x, (chosen, weights) = 4 * normal(5, HIDDEN), routed(5)
    experts, want = with_biases(REFERENCE, load(REFERENCE, "F32")), np.zeros((5, HIDDEN))
    for t in range(5):
        for e, weight in zip(chosen[t], weights[t].astype(float), strict=True):
            expert = experts[e]
            row = torch.from_numpy(x[t]).double() * (weight if weigh_input else 1)
            gate, up, down = (
                torch.from_numpy(w.values) for w in (expert.gate, expert.up, expert.down)
            )
            gate, up = (w @ row + torch.from_numpy(b).double() for w, b in
                        ((gate, expert.gate_bias), (up, expert.up_bias)))  # fmt: skip
            gated = torch_gate(gate, up, activation, limit)
            out = (down @ gated).numpy() + expert.down_bias
            want[t] += out if weigh_input else weight * out
    got = REFERENCE.moe(
        x, experts, chosen, weights, activation, limit=limit, weigh_input=weigh_input
    )
    assert row_error(got, want) <= 1.2e-7


@pytest.mark.parametrize("qtype", ["F32", "Q8_0"])
@pytest.mark.parametrize("weigh_input", [False, True])
@pytest.mark.parametrize(("activation", "limit"), GATES)
def test_devices_know_them_too(ops, qtype, activation, limit, weigh_input):
    x, (chosen, weights) = 4 * normal(9, HIDDEN), routed(9)
    kinds = {"limit": limit, "weigh_input": weigh_input}
    want = REFERENCE.moe(
        x, with_biases(REFERENCE, load(REFERENCE, qtype)), chosen, weights, activation, **kinds
    )
    experts = with_biases(ops, load(ops, qtype))
    for count in (1, 2, 9):
        got = ops.moe(x[:count], experts, chosen[:count], weights[:count], activation, **kinds)
        assert row_error(host(ops, got), want[:count]) <= allowed(ops, "moe", qtype), count


@pytest.mark.parametrize(("activation", "limit"), GATES)
def test_gate_up_knows_biases_and_limits(ops, activation, limit):
    x, raws = 4 * normal(21, HIDDEN), raw_experts("F32")[0]
    biases = [3 * normal(FFN, seed=s) for s in (1, 2)]
    products = (
        torch.from_numpy(x.astype(float) @ raw.to_f32().astype(float).T + b)
        for raw, b in zip(raws, biases, strict=False)
    )
    want = torch_gate(*products, activation, limit).numpy()
    gate, up = (ops.load_weight(raw) for raw in raws[:2])
    gate_bias, up_bias = (ops.load_vector(b) for b in biases)
    got = ops.gate_up(x, gate, up, activation, limit=limit, gate_bias=gate_bias, up_bias=up_bias)
    assert row_error(host(ops, got), want) <= allowed(ops, "gate_up", "F32")
    got = ops.gate_up(x, gate, up, activation, limit=limit, up_bias=up_bias)
    without = torch.from_numpy(x.astype(float) @ raws[0].to_f32().astype(float).T)
    up_product = torch.from_numpy(x.astype(float) @ raws[1].to_f32().astype(float).T + biases[1])
    want = torch_gate(without, up_product, activation, limit).numpy()
    assert row_error(host(ops, got), want) <= allowed(ops, "gate_up", "F32")


def test_a_limit_does_not_hide_what_is_no_number(ops):
    x, raws = normal(3, HIDDEN), raw_experts("F32")[0]
    x[1, 5] = np.nan
    gate, up = (ops.load_weight(raw) for raw in raws[:2])
    got = host(ops, ops.gate_up(x, gate, up, "silu", limit=10.0))
    assert np.isnan(got).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("qtype", TYPES)
def test_devices_stay_in_budget(ops, qtype):
    x, (chosen, weights) = normal(33, HIDDEN), routed(33)
    want = REFERENCE.moe(x, load(REFERENCE, qtype), chosen, weights, "silu")
    experts = load(ops, qtype)
    wide = np.full((33, HIDDEN + 16), 1e30, dtype=np.float32)
    wide[:, 8:-8] = x
    for count in (1, 2, 7, 33):
        rows = wide[:count, 8:-8]  # strided, as ops may get them
        got = ops.moe(rows, experts, chosen[:count], weights[:count], "silu")
        assert row_error(host(ops, got), want[:count]) <= allowed(ops, "moe", qtype), count


def test_idle_experts_are_not_read(ops):
    experts = load(ops, "Q8_0")
    x, weights = normal(3, HIDDEN), np.ones((3, 2), dtype=np.float32)
    chosen = np.array([[5, 1], [1, 5], [5, 1]], dtype=np.int32)
    want = host(ops, ops.moe(x, experts, chosen, weights, "silu"))
    busy = [expert if e in (1, 5) else None for e, expert in enumerate(experts)]
    np.testing.assert_array_equal(host(ops, ops.moe(x, busy, chosen, weights, "silu")), want)


def test_an_expert_may_be_chosen_twice(ops):
    experts = load(ops, "F32")
    x = normal(1, HIDDEN)
    twice = ops.moe(x, experts, np.int32([[3, 3]]), np.float32([[0.25, 0.5]]), "silu")
    once = ops.moe(x, experts, np.int32([[3]]), np.float32([[0.75]]), "silu")
    assert row_error(host(ops, twice), host(ops, once)) < 1e-6


def test_no_tokens(ops):
    chosen, weights = routed(0)
    got = ops.moe(normal(0, HIDDEN), load(ops, "F32"), chosen, weights, "silu")
    assert ops.to_numpy(got).shape == (0, HIDDEN)


def test_choices_of_the_wrong_shape_are_refused(ops):
    experts, x = load(ops, "F32"), normal(2, HIDDEN)
    for tokens, slots, weights in ((1, 2, 2), (3, 2, 2), (2, 0, 0), (2, 2, 1)):
        chosen = np.zeros((tokens, slots), np.int32)
        with pytest.raises(InvalidParameterError):
            ops.moe(x, experts, chosen, np.ones((tokens, weights), np.float32), "silu")


def test_ids_that_are_no_experts_are_refused(ops):
    experts = load(ops, "F32")
    for bad in (EXPERTS, -1):
        with pytest.raises(InvalidParameterError, match=f"{EXPERTS} experts"):
            ops.moe(normal(1, HIDDEN), experts, np.int32([[0, bad]]), np.ones((1, 2), "f4"), "silu")


def test_inputs_are_left_alone(ops):
    x, (chosen, weights) = normal(5, HIDDEN), routed(5)
    kept = x.copy(), chosen.copy(), weights.copy()
    ops.moe(x, load(ops, "Q8_0"), chosen, weights, "silu")
    logits = normal(5, 8)
    before = logits.copy()
    ops.route(logits, RoutingSpec(2, normalise=True))
    for got, want in zip((x, chosen, weights, logits), (*kept, before), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("qtype", TYPES)
def test_a_token_has_the_same_bits_in_any_company(cpu, qtype):
    tokens = 45
    x, (chosen, weights) = activations(tokens, HIDDEN), routed(tokens)
    chosen[20:30] = chosen[3]  # a crowd at three experts
    experts = load(cpu, qtype)

    def run(rows):
        return host(cpu, cpu.moe(x[rows], experts, chosen[rows], weights[rows], "silu"))

    alone = np.concatenate([run(slice(t, t + 1)) for t in range(tokens)])
    rng = np.random.default_rng(2)
    for count in (2, 3, 5, 16, 17, 33, tokens):
        rows = rng.permutation(tokens)[:count]
        np.testing.assert_array_equal(run(rows), alone[rows], err_msg=f"{count} tokens")


def test_company_threads_and_types_of_other_experts_change_no_bits(device):
    """Experts of one layer may be stored in different types, gate unlike up."""
    tokens, mixed = 29, ["Q4_K", "Q8_0", "F32", "Q6_K", "BF16", "Q2_K", "Q4_1"]
    x, (chosen, weights) = normal(tokens, HIDDEN), routed(tokens)
    raws = [
        (matrix(mixed[e], FFN, HIDDEN, 3 * e), matrix(mixed[e - 1], FFN, HIDDEN, 3 * e + 1),
         matrix(mixed[e - 2], HIDDEN, FFN, 3 * e + 2))
        for e in range(EXPERTS)
    ]  # fmt: skip
    want = REFERENCE.moe(
        x, [Expert(*map(REFERENCE.load_weight, raw)) for raw in raws], chosen, weights, "silu"
    )
    for weigh_input in (False, True):
        results = []
        for threads in (1, 3):
            ops = open_device((device[0], {**device[1], "threads": threads}))
            experts = [Expert(*map(ops.load_weight, raw)) for raw in raws]
            for part in (slice(0, tokens), slice(11, 12), slice(5, 14)):
                got = ops.moe(
                    x[part], experts, chosen[part], weights[part], "silu", weigh_input=weigh_input
                )
                results.append((part, host(ops, got)))
        whole = results[0][1]
        for part, got in results:
            np.testing.assert_array_equal(got, whole[part], err_msg=str(part))
        if not weigh_input:
            assert row_error(whole, want) <= limit("cpu", "moe", "Q4_K")


def test_experts_of_the_wrong_kind_are_refused(cpu):
    experts, x = load(cpu, "F32"), normal(1, HIDDEN)
    chosen, weights = np.int32([[1]]), np.ones((1, 1), np.float32)
    narrow = cpu.load_weight(matrix("F32", FFN, HIDDEN // 2))
    for wrong in (
        {"gate": narrow}, {"down": experts[0].gate}, {"up": None},
        {"gate_bias": np.zeros(FFN - 1, np.float32)}, {"down_bias": np.zeros(HIDDEN)},
    ):  # fmt: skip
        bad = [experts[0], replace(experts[1], **wrong)]
        with pytest.raises(InvalidParameterError):
            cpu.moe(x, bad, chosen, weights, "silu")
    with pytest.raises(InvalidParameterError):
        cpu.moe(x[:, :-1], experts, chosen, weights, "silu")


def test_routing_has_the_same_bits_in_any_company(cpu):
    logits = 4 * normal(70, 128)
    for normalise in (True, False):
        spec = RoutingSpec(8, normalise)
        chosen, weights = cpu.route(logits, spec)
        for count in (1, 2, 7, 33):
            part = cpu.route(logits[5 : 5 + count], spec)
            np.testing.assert_array_equal(part[0], chosen[5 : 5 + count])
            np.testing.assert_array_equal(part[1], weights[5 : 5 + count])
