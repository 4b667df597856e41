# SPDX-License-Identifier: Apache-2.0
"""Layer norm, activations without a gate, factors per row: the reference against torch, devices
against the reference, and what a row may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_inputs import activations

from budgets import limit, row_error
from devices import all_params, cpu_params, open_device
from freehold import backends
from freehold.errors import InvalidParameterError
from freehold.ops import Xielu

REFERENCE = backends.create("reference")
F32_ULP = 1.2e-7
XIELU = Xielu(alpha_p=0.7, alpha_n=1.3, beta=0.5, eps=-1e-6)
ACTIVATIONS = ["silu", "gelu_tanh", "gelu", "relu2", XIELU]
WIDTHS = [1, 3, 16, 33, 64, 172, 2048]


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


def theirs(x, activation):
    """torch's word for it, in float64."""
    x = torch.from_numpy(x).double()
    if isinstance(activation, Xielu):
        eps = torch.tensor(activation.eps, dtype=torch.float64)
        below = (torch.expm1(torch.minimum(x, eps)) - x) * activation.alpha_n
        return torch.where(x > 0, activation.alpha_p * x * x, below) + activation.beta * x
    f = torch.nn.functional
    return {
        "silu": f.silu,
        "gelu": f.gelu,
        "gelu_tanh": lambda v: f.gelu(v, approximate="tanh"),
        "relu2": lambda v: f.relu(v) ** 2,
    }[activation](x)


def test_reference_is_torch():
    x, w, b = activations(7, 48), activations(1, 48, seed=1)[0], activations(1, 48, seed=2)[0]
    x64, w64, b64 = (torch.from_numpy(a).double() for a in (x, w, b))
    for bias, bias64 in ((b, b64), (None, None)):
        want = torch.nn.functional.layer_norm(x64, (48,), w64, bias64, 1e-5).numpy()
        assert row_error(REFERENCE.layer_norm(x, w, bias, 1e-5), want) <= F32_ULP
    for activation in ACTIVATIONS:
        want = theirs(x, activation).numpy()
        assert row_error(REFERENCE.activate(x.copy(), activation), want) <= F32_ULP


def test_xielu_is_that_of_transformers():
    """Its parameters there are stored as the inverse softplus of what they stand for."""
    from transformers.activations import XIELUActivation

    module = XIELUActivation(alpha_p_init=0.7, alpha_n_init=1.8, beta=0.5, dtype=torch.float64)
    x = activations(9, 40)
    want = module(torch.from_numpy(x).double()).detach().numpy()
    got = REFERENCE.activate(x, Xielu(0.7, 1.8, 0.5, -1e-6))
    assert row_error(got, want) <= F32_ULP


@pytest.mark.parametrize("width", WIDTHS)
def test_layer_norm(ops, width):
    w, b = activations(1, width, seed=2)[0], activations(1, width, seed=3)[0]
    weight, bias = ops.load_vector(w), ops.load_vector(b)
    for rows in (1, 2, 17):
        x = activations(rows, width)
        for eps in (1e-6, 1e-2):
            for theirs_b, ours_b in ((b, bias), (None, None)):
                want = REFERENCE.layer_norm(x, w, theirs_b, eps)
                got = ops.to_numpy(ops.layer_norm(strided(x), weight, ours_b, eps))
                if width > 1 or theirs_b is not None:  # of one value nothing is left but the bias
                    assert row_error(got, want) <= allowed(ops, "layer_norm"), (rows, eps)


def test_layer_norm_of_rows_far_from_zero(ops):
    """The spread counts, however large the mean: what float32 still knows of it."""
    x = (1000.0 + activations(5, 256) / 1000.0).astype(np.float32)
    weight, bias = np.ones(256, np.float32), np.zeros(256, np.float32)
    want = REFERENCE.layer_norm(x, weight, bias, 1e-6)
    got = ops.to_numpy(ops.layer_norm(x, ops.load_vector(weight), ops.load_vector(bias), 1e-6))
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activate(ops, activation):
    for width in WIDTHS:
        for rows in (1, 2, 17):
            x = activations(rows, width)
            want = REFERENCE.activate(x.copy(), activation)
            got = ops.to_numpy(ops.activate(strided(x), activation))
            # Beside the input too: where silu is all but 0, so is the row's largest.
            error = row_error(np.hstack([got, x]), np.hstack([want, x]))
            assert error <= allowed(ops, "activate"), (width, rows)


def test_xielu_keeps_its_precision_near_zero(ops):
    """expm1(x) - x cancels almost wholly; what is left beside beta·x must be right."""
    x = np.linspace(-0.5, 0.5, 4001, dtype=np.float32)[:, None] * 1e-2
    bent = Xielu(0.7, 1.3, 0.0, -1e-6)  # without the straight part
    want = REFERENCE.activate(x.copy(), bent)
    got = ops.to_numpy(ops.activate(x.copy(), bent))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activate_far_out(ops, activation):
    x = np.float32([[1e4, -1e4, 90.0, -90.0, 3e-20, -3e-20, 0.0, -0.0] * 3])
    got = ops.to_numpy(ops.activate(x.copy(), activation))
    want = theirs(x, activation).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_scale_rows(ops):
    for rows in (1, 2, 17):
        x = activations(rows, 33)
        factors = np.linspace(0.5, 3.0, rows, dtype=np.float32)
        got = ops.to_numpy(ops.scale_rows(strided(x), factors))
        assert row_error(got, x * factors[:, None].astype(np.float64)) <= allowed(ops, "scale")


def test_unknown_activations_are_refused(ops):
    with pytest.raises(InvalidParameterError, match="activation"):
        ops.activate(activations(2, 8), "relu6")


def test_lengths_that_do_not_fit_are_refused(cpu):
    x, w = activations(2, 32), np.ones(16, np.float32)
    with pytest.raises(InvalidParameterError, match="width"):
        cpu.layer_norm(x, w, None, 1e-5)
    with pytest.raises(InvalidParameterError, match="length"):
        cpu.layer_norm(x, np.ones(32, np.float32), w, 1e-5)


def test_rows_do_not_depend_on_their_company(cpu):
    x, w = activations(70, 300), activations(1, 300, seed=1)[0]
    alone = np.concatenate([cpu.layer_norm(row[None], w, w, 1e-5) for row in x])
    np.testing.assert_array_equal(cpu.layer_norm(x, w, w, 1e-5), alone)
    for activation in ACTIVATIONS:
        alone = np.concatenate([cpu.activate(row[None].copy(), activation) for row in x])
        np.testing.assert_array_equal(cpu.activate(x.copy(), activation), alone)
