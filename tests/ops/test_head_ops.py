# SPDX-License-Identifier: Apache-2.0
"""Ops on the heads of a row: a matrix for each, rotation of a part, rows side by side."""

from __future__ import annotations

import numpy as np
import pytest
from op_inputs import QTYPES, activations, exact_activations, matrix, whole_blocks

from budgets import limit, linear_error, row_error
from devices import all_params, cpu_params, open_device
from freehold import backends
from freehold.errors import InvalidParameterError
from freehold.ops import RopeSpec

REFERENCE = backends.create("reference")


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


@pytest.fixture(scope="module", params=cpu_params())
def cpu(request):
    return open_device(request.param)


def allowed(ops, op, kind=""):
    return limit("reference", "sweep") if ops.name == "reference" else limit(ops.name, op, kind)


def in_wider_rows(x: np.ndarray) -> np.ndarray:
    wide = np.full((len(x), x.shape[1] + 24), 1e30, dtype=np.float32)
    wide[:, 16 : 16 + x.shape[1]] = x
    return wide[:, 16 : 16 + x.shape[1]]


def heads_of(qtype: str, count: int, rows: int, columns: int):
    return [matrix(qtype, rows, columns, seed=h) for h in range(count)]


@pytest.mark.parametrize("qtype", QTYPES)
@pytest.mark.parametrize("beyond", [0, 24])
def test_every_head_meets_its_own_matrix(ops, qtype, beyond):
    columns = whole_blocks(qtype, 64)
    for tokens, count, rows in ((1, 5, 16), (3, 2, 33), (44, 3, 17)):
        raws = heads_of(qtype, count, rows, columns)
        weights = [ops.load_weight(raw) for raw in raws]
        for make, kind in ((activations, qtype), (exact_activations, "")):
            x = make(tokens, count * (columns + beyond))
            got = ops.to_numpy(ops.linear_heads(in_wider_rows(x), weights))
            got = got.reshape(tokens, count, rows + beyond)
            split = x.reshape(tokens, count, columns + beyond)
            np.testing.assert_array_equal(got[..., rows:], split[..., columns:])
            for h, raw in enumerate(raws):
                part, w = split[:, h, :columns].astype(np.float64), raw.to_f32().astype(np.float64)
                op = "linear" if kind else "linear_exact"
                if not kind and beyond:
                    continue  # the ±127 of a stretch may lie outside the part
                error = linear_error(got[:, h, :rows], part @ w.T, part, w)
                assert error <= allowed(ops, op, kind), (tokens, h, op)


@pytest.mark.parametrize("qtype", ["F32", "F16", "BF16", "Q8_0", "Q4_K"])
def test_heads_have_the_bits_of_one_linear_each(cpu, qtype):
    columns, count, rows = 256, 4, 48
    weights = [cpu.load_weight(raw) for raw in heads_of(qtype, count, rows, columns)]
    x = activations(70, count * (columns + 32))
    split = x.reshape(70, count, columns + 32)
    for tokens in (1, 2, 9, 41, 70):
        got = np.array(cpu.linear_heads(x[:tokens], weights)).reshape(tokens, count, rows + 32)
        for h, weight in enumerate(weights):
            one = np.array(cpu.linear(split[:tokens, h, :columns], weight))
            np.testing.assert_array_equal(got[:, h, :rows], one, err_msg=f"{tokens} tokens")


def test_heads_of_different_types(cpu):
    kinds = ["Q8_0", "F32", "Q4_K", "F16", "Q6_K"]
    raws = [matrix(kind, 32, 256, seed=i) for i, kind in enumerate(kinds)]
    weights = [cpu.load_weight(raw) for raw in raws]
    x = activations(45, 5 * 256)
    got = np.array(cpu.linear_heads(x, weights)).reshape(45, 5, 32)
    for h, weight in enumerate(weights):
        one = np.array(cpu.linear(x.reshape(45, 5, 256)[:, h], weight))
        np.testing.assert_array_equal(got[:, h], one)


def test_heads_that_do_not_fit_are_refused(cpu):
    two = [cpu.load_weight(raw) for raw in heads_of("F32", 2, 16, 32)]
    other = cpu.load_weight(matrix("F32", 17, 32))
    x = activations(3, 64)
    context = cpu._context  # the native check itself
    out = np.empty((3, 32), np.float32)
    for bad_x, weights, bad_out in (
        (x, [], out),
        (x[:, :63], two, out),
        (x[:, :62], two, out),
        (x, [two[0], other], out),
        (x, two, out[:, :31]),
        (x, two, out[:2]),
        (x[:, ::2], two, out),
    ):
        with pytest.raises(InvalidParameterError):
            context.linear_heads(bad_x, weights, bad_out)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_of_a_part_of_each_head(ops, interleaved):
    spec = RopeSpec(10.0 ** -np.arange(8.0), interleaved)
    positions = np.arange(3, 14, dtype=np.int32)
    tables = ops.rope_tables(spec, positions)
    x = activations(11, 5 * 40)
    for offset in (0, 5, 24):
        got = np.array(ops.to_numpy(ops.rope(x.copy(), *tables, 40, interleaved, offset)))
        parts = x.reshape(11, 5, 40)[..., offset : offset + 16]
        want = x.reshape(11, 5, 40).copy()
        cos, sin = (np.asarray(ops.to_numpy(table)) for table in tables)
        rotated = REFERENCE.rope(parts.reshape(11, -1), cos, sin, 16, interleaved)
        want[..., offset : offset + 16] = rotated.reshape(11, 5, 16)
        assert row_error(got, want.reshape(11, -1)) <= allowed(ops, "rope")


def test_rotation_beyond_a_head_is_refused(cpu):
    tables = cpu.rope_tables(RopeSpec(np.ones(8), True), np.arange(2, dtype=np.int32))
    for offset in (-1, 25, 2**40):
        with pytest.raises(InvalidParameterError):
            cpu.rope(np.zeros((2, 80), np.float32), *tables, 40, True, offset)


def test_join(ops):
    a, b, c = activations(7, 40), activations(7, 3, seed=1), activations(7, 1, seed=2)
    got = ops.to_numpy(ops.join([in_wider_rows(a), b, c]))
    np.testing.assert_array_equal(got, np.concatenate([a, b, c], axis=1))
