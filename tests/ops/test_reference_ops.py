# SPDX-License-Identifier: Apache-2.0
"""The reference backend against torch and against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_inputs import AttentionCase, StoredMatrix, activations, matrix

from batching import make_batch
from budgets import row_error
from freehold import backends, quants
from freehold.errors import CapacityError, EngineError, InvalidParameterError, UserError
from freehold.ops import AttentionSpec, KVLayerSpec, RopeSpec

OPS = backends.create("reference")
F32_ULP = 1.2e-7


def f32(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def stored(values: np.ndarray) -> StoredMatrix:
    data = np.ascontiguousarray(values, dtype=np.float32).view(np.uint8).ravel()
    return StoredMatrix("w", values.shape, "F32", data)


# -- the door ---------------------------------------------------------------------------------


def test_the_folder_is_the_list():
    assert {"reference", "null"} <= set(backends.names())
    assert not any(name.startswith("_") for name in backends.names())


def test_unknown_names_and_options():
    with pytest.raises(InvalidParameterError, match="reference"):
        backends.create("abacus")
    for name in ("reference", "null"):
        with pytest.raises(InvalidParameterError, match="threads"):
            backends.create(name, threads=2)
    with pytest.raises(InvalidParameterError, match="float16"):
        backends.create("reference", precision="float16")


def test_a_backend_that_cannot_be_imported_says_so(monkeypatch):
    def fail(name):
        raise ImportError("no native module")

    monkeypatch.setattr(backends.importlib, "import_module", fail)
    with pytest.raises(UserError, match=r"'null' cannot be loaded: no native module"):
        backends.create("null")


# -- arithmetic -------------------------------------------------------------------------------


def test_rms_norm():
    x, w = activations(7, 48), np.linspace(0.5, 1.5, 48).astype(np.float32)
    x64, w64 = torch.from_numpy(x).double(), torch.from_numpy(w).double()
    want = torch.nn.functional.rms_norm(x64, (48,), w64, 1e-5).numpy()
    assert row_error(OPS.rms_norm(x, w, 1e-5), want) <= F32_ULP
    heads = OPS.rms_norm(x, w[:12], 1e-5)
    for h in range(0, 48, 12):
        np.testing.assert_array_equal(heads[:, h : h + 12], OPS.rms_norm(x[:, h : h + 12],
                                                                         w[:12], 1e-5))  # fmt: skip


def test_add_rms_norm_is_add_then_norm():
    a, b, w = activations(5, 32), activations(5, 32, seed=1), activations(1, 32)[0]
    total, normed = OPS.add_rms_norm(a.copy(), b, w, 1e-6)
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(normed, OPS.rms_norm(a + b, w, 1e-6))


@pytest.mark.parametrize("qtype", ["F32", "F16", "Q8_0", "Q4_K", "IQ4_NL"])
def test_linear_and_embed_decode_the_weights(qtype):
    raw = matrix(qtype, 9, 512)
    weight = OPS.load_weight(raw)
    assert (weight.out_features, weight.in_features, weight.qtype) == (9, 512, qtype)
    x, bias = activations(6, 512), activations(1, 9)[0]
    want = x.astype(np.float64) @ raw.to_f32().T.astype(np.float64)
    assert row_error(OPS.linear(x, weight), want) <= F32_ULP
    assert row_error(OPS.linear(x, weight, bias), want + bias) <= 2 * F32_ULP
    ids = np.array([8, 0, 8], dtype=np.int32)
    np.testing.assert_array_equal(OPS.embed(weight, ids), raw.to_f32()[ids])
    both = OPS.linear_many(x, [weight, weight], [None, bias])
    np.testing.assert_array_equal(both[1], OPS.linear(x, weight, bias))


def test_embed_refuses_ids_outside_the_table():
    weight = OPS.load_weight(matrix("F32", 9, 32))
    for bad in (9, -1):
        with pytest.raises(InvalidParameterError, match="9 rows"):
            OPS.embed(weight, np.array([0, bad], dtype=np.int32))


@pytest.mark.parametrize(
    ("activation", "theirs"),
    [
        ("silu", torch.nn.functional.silu),
        ("gelu", torch.nn.functional.gelu),
        ("gelu_tanh", lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    ],
)
def test_gate_up(activation, theirs):
    gate, up = matrix("F32", 24, 64, 1), matrix("F32", 24, 64, 2)
    x = activations(6, 64)
    x64 = torch.from_numpy(x).double()
    want = theirs(x64 @ torch.from_numpy(gate.to_f32()).double().T)
    want = want * (x64 @ torch.from_numpy(up.to_f32()).double().T)
    got = OPS.gate_up(x, OPS.load_weight(gate), OPS.load_weight(up), activation)
    assert row_error(got, want.numpy()) <= 2 * F32_ULP


def test_an_unknown_activation_is_refused():
    w = OPS.load_weight(matrix("F32", 2, 32))
    with pytest.raises(InvalidParameterError, match="relu6"):
        OPS.gate_up(activations(1, 32), w, w, "relu6")


# -- rope -------------------------------------------------------------------------------------


def test_rope_by_hand():
    spec = RopeSpec(np.array([np.pi / 2, 0.0]), interleaved=True)
    cos, sin = OPS.rope_tables(spec, np.array([0, 1], dtype=np.int32))
    x = f32([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    # Position 1 turns the first pair by 90°: (a, b) → (-b, a). The fifth value is not rotated.
    pairs = OPS.rope(x, cos, sin, 5, interleaved=True)
    np.testing.assert_allclose(pairs, f32([1, 2, 3, 4, 5], [-2, 1, 3, 4, 5]), atol=1e-6)
    halves = OPS.rope(x, cos, sin, 5, interleaved=False)
    np.testing.assert_allclose(halves, f32([1, 2, 3, 4, 5], [-3, 2, 1, 4, 5]), atol=1e-6)


def test_rope_angles_are_exact_far_out():
    """In float32 the angle of position 10⁶ would be off by 0.03 radians."""
    spec = RopeSpec(np.array([1.0, 1e-3]), interleaved=False, magnitude=1.5)
    cos, sin = OPS.rope_tables(spec, np.array([1_000_001], dtype=np.int32))
    assert cos[0] == pytest.approx([1.5 * np.cos(1_000_001.0), 1.5 * np.cos(1000.001)], abs=2e-7)
    assert sin[0] == pytest.approx([1.5 * np.sin(1_000_001.0), 1.5 * np.sin(1000.001)], abs=2e-7)


# -- attention --------------------------------------------------------------------------------


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (7, 0.0), (1, 0.0), (0, 5.0), (9, 5.0)])
def test_attention_against_torch(window, softcap):
    case = AttentionCase(6, 2, 20, 12, 16, past=[0, 30, 5], new=[9, 1, 33])
    spec = AttentionSpec(6, 2, 20, 12, 0.3, window, softcap)
    cache = case.filled(OPS, "f32")
    got = OPS.attention(case.new_rows(case.queries), cache, 1, case.batch(), spec)
    row = 0
    for s, (past, new, total) in enumerate(zip(case.past, case.new, case.totals, strict=True)):
        q = torch.from_numpy(case.queries[s][past:]).double().reshape(new, 6, 20)
        k = torch.from_numpy(case.keys[s]).double().reshape(total, 2, 20)
        v = torch.from_numpy(case.values[s]).double().reshape(total, 2, 12)
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(3, 1)) * 0.3
        if softcap:
            scores = softcap * torch.tanh(scores / softcap)
        ahead = torch.arange(past, total)[:, None] - torch.arange(total)[None]
        visible = (ahead >= 0) & ((ahead < window) if window else torch.ones(()).bool())
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        want = torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(3, 1)).reshape(new, -1)
        assert row_error(got[row : row + new], want.numpy()) <= 2 * F32_ULP
        row += new


# -- cache ------------------------------------------------------------------------------------


def stored_rows(kv_dtype: str, rows: np.ndarray) -> np.ndarray:
    """What a cache gives back: one query of zeros sees exactly one key, hence its value."""
    cache = OPS.alloc_kv([KVLayerSpec(1, 32, 32)], 4, 16, kv_dtype)
    out = []
    for row in rows:
        batch = make_batch([[0]], [0], [[2]], 16)
        OPS.write_kv(cache, 0, row[None], row[None], batch)
        spec = AttentionSpec(1, 1, 32, 32, 1.0)
        out.append(OPS.attention(np.zeros((1, 32), np.float32), cache, 0, batch, spec)[0])
    return np.array(out)


def test_cache_precision():
    x = activations(20, 32, seed=3)
    # Ties: halves of a q8_0 step (which is 1 here), and of the last bit of bfloat16.
    x[0] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, *(1 + np.arange(24) / 256)]
    np.testing.assert_array_equal(stored_rows("f32", x), x)
    np.testing.assert_array_equal(stored_rows("f16", x), x.astype(np.float16).astype(np.float32))
    for kv_dtype, qtype in (("bf16", "BF16"), ("q8_0", "Q8_0")):
        kind = quants.get(qtype)
        want = kind.decode(kind.encode(x.ravel())).reshape(x.shape)
        np.testing.assert_array_equal(stored_rows(kv_dtype, x), want, err_msg=kv_dtype)


def test_cache_takes_up_what_it_says():
    layers = [KVLayerSpec(2, 64, 32)] * 3
    values = 3 * 2 * (64 + 32) * 5 * 16
    sizes = {"f32": 4 * values, "f16": 2 * values, "bf16": 2 * values, "q8_0": values * 34 // 32}
    for kv_dtype, size in sizes.items():
        assert OPS.alloc_kv(layers, 5, 16, kv_dtype).nbytes == size


def test_cache_refusals():
    with pytest.raises(InvalidParameterError, match="multiples of 32"):
        OPS.alloc_kv([KVLayerSpec(1, 48, 32)], 4, 16, "q8_0")
    with pytest.raises(InvalidParameterError, match="q4_0"):
        OPS.alloc_kv([KVLayerSpec(1, 32, 32)], 4, 16, "q4_0")
    with pytest.raises(InvalidParameterError, match="at least one block"):
        OPS.alloc_kv([KVLayerSpec(1, 32, 32)], 0, 16, "f16")
    with pytest.raises(CapacityError):
        OPS.alloc_kv([KVLayerSpec(64, 256, 256)], 2**40, 16, "f16")


def test_handles_of_another_backend_are_a_bug():
    null = backends.create("null")
    with pytest.raises(EngineError):
        OPS.linear(activations(1, 32), null.load_weight(matrix("F32", 2, 32)))
    cache = null.alloc_kv([KVLayerSpec(1, 32, 32)], 1, 16, "f32")
    row = activations(1, 32)
    with pytest.raises(EngineError):
        OPS.write_kv(cache, 0, row, row, make_batch([[0]], [0], [[0]], 16))


def test_weights_outlive_their_file():
    values = activations(3, 32)
    raw = stored(values.copy())
    weight, vector = OPS.load_weight(raw), OPS.load_vector(values[0])
    raw.data[:] = 0
    np.testing.assert_array_equal(OPS.embed(weight, np.arange(3, dtype=np.int32)), values)
    values[0] = 7
    assert not (vector == 7).any()
    with pytest.raises(InvalidParameterError, match="two dimensions"):
        OPS.load_weight(StoredMatrix("v", (32,), "F32", raw.data[:128]))


def test_single_precision_is_close():
    fast = backends.create("reference", precision="float32")
    x, raw = activations(4, 512), matrix("F32", 9, 512)
    got = fast.linear(x, fast.load_weight(raw))
    assert got.dtype == np.float32
    assert row_error(got, OPS.linear(x, OPS.load_weight(raw))) < 1e-5
    assert fast.load_weight(raw).nbytes * 2 == OPS.load_weight(raw).nbytes
