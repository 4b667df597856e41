# SPDX-License-Identifier: Apache-2.0
"""Elementwise products, sparse gates, mixes of residual streams and matched magnitudes: the
reference against formulas in torch, devices against the reference, and what a row may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_inputs import activations

from budgets import limit, row_error
from devices import all_params, cpu_params, open_device
from freehold import backends

REFERENCE = backends.create("reference")
WIDTHS = [1, 3, 16, 33, 64, 172, 2048]
ROWS = (1, 2, 17)


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


@pytest.fixture(scope="module", params=cpu_params())
def cpu(request):
    return open_device(request.param)


def allowed(ops, op):
    return limit("reference", "sweep") if ops.name == "reference" else limit(ops.name, op)


def strided(x):
    """The same values as a slice of a wider array."""
    wide = np.full((len(x), x.shape[1] + 24), 1e30, dtype=np.float32)
    wide[:, 16 : 16 + x.shape[1]] = x
    return wide[:, 16 : 16 + x.shape[1]]


def streams_of(count, rows, width):
    return [activations(rows, width, seed=10 + s) for s in range(count)]


def test_reference_follows_the_formulas():
    x, other = activations(6, 50), activations(6, 50, seed=1)
    wide, like = torch.from_numpy(x).double(), torch.from_numpy(other).double()
    cut = wide.mean(-1, keepdim=True) + 0.8 * torch.std(wide, -1, keepdim=True, unbiased=False)
    got = REFERENCE.sparse_gate(x.copy(), 0.8)
    np.testing.assert_allclose(got, torch.relu(wide - cut).numpy(), rtol=1e-6, atol=1e-7)
    assert 0.05 < np.count_nonzero(got) / got.size < 0.4
    own = (wide**2).mean(-1, keepdim=True).clamp(min=1e-5)
    want = wide * (like**2).mean(-1, keepdim=True) ** 0.5 / own**0.5
    np.testing.assert_allclose(REFERENCE.match_magnitude(x.copy(), other, 1e-5), want, rtol=1e-6)
    weights = activations(6, 6, seed=2)
    pair = [x, other, x + 1]
    mixed = REFERENCE.mix_streams(pair, weights)
    for r in range(2):
        want = sum(weights[:, 3 * r + s, None].astype(np.float64) * pair[s] for s in range(3))
        np.testing.assert_allclose(mixed[r], want, rtol=1e-5, atol=1e-6)
    assert len(mixed) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_multiply(ops, width):
    for rows in ROWS:
        x = activations(rows, width)
        for factor in (
            activations(rows, width, seed=1),
            activations(rows, 1, seed=2),
            activations(1, width, seed=3)[0],
        ):
            given, by = strided(x), np.array(factor)
            got = ops.to_numpy(ops.multiply(given, by))
            assert row_error(got, REFERENCE.multiply(x, factor)) <= allowed(ops, "multiply")
            np.testing.assert_array_equal(given, x)  # both stay as they are
            np.testing.assert_array_equal(by, factor)


@pytest.mark.parametrize("width", [w for w in WIDTHS if w > 1])
@pytest.mark.parametrize("deviations", [-0.5, 0.0, 1.6448536])
def test_sparse_gate(ops, width, deviations):
    for rows in ROWS:
        x = activations(rows, width) + np.float32(0.5)
        want = REFERENCE.sparse_gate(x.copy(), deviations)
        got = ops.to_numpy(ops.sparse_gate(strided(x), deviations))
        # Beside the input too: what stands out may be next to nothing.
        error = row_error(np.hstack([got, x]), np.hstack([want, x]))
        assert error <= allowed(ops, "sparse_gate"), rows
        assert (got >= 0).all()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("count", "results"), [(1, 1), (4, 4), (5, 4), (4, 1), (2, 3)])
def test_mix_streams(ops, width, count, results):
    for rows in ROWS:
        streams = streams_of(count, rows, width)
        weights = activations(rows, results * count, seed=3)
        want = REFERENCE.mix_streams(streams, weights)
        given = [strided(x) for x in streams]
        got = ops.mix_streams(given, ops.load_vector(weights.ravel()).reshape(weights.shape))
        assert len(got) == results
        scale = np.abs(np.hstack(streams)).max() * np.abs(weights).max()
        for ours, theirs in zip(got, want, strict=True):
            error = np.abs(ops.to_numpy(ours) - theirs).max() / scale
            assert error <= allowed(ops, "mix_streams"), rows
        for kept, stream in zip(given, streams, strict=True):
            np.testing.assert_array_equal(kept, stream)


@pytest.mark.parametrize("width", WIDTHS)
def test_match_magnitude(ops, width):
    for rows in ROWS:
        x, like = activations(rows, width), 40 * activations(rows, width, seed=1)
        want = REFERENCE.match_magnitude(x.copy(), like, 1e-5)
        got = ops.to_numpy(ops.match_magnitude(strided(x), strided(like), 1e-5))
        assert row_error(got, want) <= allowed(ops, "match_magnitude"), rows


def test_nothing_can_be_matched(ops):
    """A row of zeros stays one, beside another of zeros or not."""
    zeros, like = np.zeros((2, 32), np.float32), activations(2, 32)
    like[1] = 0
    got = ops.to_numpy(ops.match_magnitude(zeros.copy(), like, 1e-5))
    np.testing.assert_array_equal(got, zeros)
    small = np.full((1, 32), 1e-6, np.float32)
    got = ops.to_numpy(ops.match_magnitude(small.copy(), np.ones((1, 32), np.float32), 1e-5))
    np.testing.assert_allclose(got, small / 1e-5**0.5, rtol=1e-6)


def test_rows_do_not_depend_on_their_company(cpu):
    x, like, w = activations(70, 300), activations(70, 300, seed=1), activations(70, 6, seed=2)
    for op in (
        lambda a, b, c: cpu.multiply(a, b),
        lambda a, b, c: cpu.sparse_gate(a.copy(), 1.3),
        lambda a, b, c: np.hstack(cpu.mix_streams((a, b, b), c)),
        lambda a, b, c: cpu.match_magnitude(a.copy(), b, 1e-5),
    ):
        rows = [op(a[None], b[None], c[None]) for a, b, c in zip(x, like, w, strict=True)]
        np.testing.assert_array_equal(op(x, like, w), np.concatenate(rows))
