# SPDX-License-Identifier: Apache-2.0
"""Every op of every device, at every kernel level, against the reference within its budget.

The reference runs too: it must not depend on strides, nor on blocks in order.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from op_inputs import (
    QTYPES,
    AttentionCase,
    StoredMatrix,
    activations,
    exact_activations,
    matrix,
    on_q8_grid,
    shapes,
    whole_blocks,
)

from batching import make_batch
from budgets import limit, linear_error, row_error
from devices import all_params, open_device
from freehold import backends, quants
from freehold.errors import InvalidParameterError
from freehold.ops import AttentionSpec, KVLayerSpec, RopeSpec

REFERENCE = backends.create("reference")
COLUMNS = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40)


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


def allowed(ops, op: str, kind: str = "") -> float:
    return limit("reference", "sweep") if ops.name == "reference" else limit(ops.name, op, kind)


def strided(x: np.ndarray) -> np.ndarray:
    """The same values as a slice of a wider array."""
    wide = np.full((len(x), x.shape[1] + 24), 1e30, dtype=np.float32)
    wide[:, 16 : 16 + x.shape[1]] = x
    return wide[:, 16 : 16 + x.shape[1]]


# -- rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qtype", QTYPES)
def test_embed(ops, qtype):
    for rows, columns in shapes(qtype):
        raw = matrix(qtype, rows, columns)
        ids = np.random.default_rng(0).integers(0, rows, 21).astype(np.int32)
        got = ops.to_numpy(ops.embed(ops.load_weight(raw), ids))
        assert row_error(got, raw.to_f32()[ids]) <= allowed(ops, "embed"), (rows, columns)


@pytest.mark.parametrize("qtype", [q for q in QTYPES if q.startswith("IQ") and q[2] != "4"])
def test_every_entry_of_a_codebook(ops, qtype):
    """Random indices, enough to name each of up to 2048 entries; no product is rounded."""
    raw = matrix(qtype, 256, 1024)
    got = ops.to_numpy(ops.embed(ops.load_weight(raw), np.arange(256, dtype=np.int32)))
    np.testing.assert_array_equal(got, raw.to_f32())


@pytest.mark.parametrize("qtype", ["MXFP4", "NVFP4"])
def test_every_small_float_scale(ops, qtype):
    """All 256 bytes, subnormal and NaN ones among them."""
    kind = quants.get(qtype)
    blocks = matrix(qtype, 256, 128).data.copy().view(kind.layout)
    blocks["e" if qtype == "MXFP4" else "d"].reshape(256, -1)[:] = np.arange(256)[:, None]
    raw = StoredMatrix("scales", (256, 128), qtype, blocks.view(np.uint8))
    got = ops.to_numpy(ops.embed(ops.load_weight(raw), np.arange(256, dtype=np.int32)))
    np.testing.assert_array_equal(got, raw.to_f32())


def test_embed_refuses_ids_outside_the_table(ops):
    weight = ops.load_weight(matrix("Q8_0", 17, 160))
    for bad in (17, -1, 2**31 - 1):
        with pytest.raises(InvalidParameterError):
            ops.embed(weight, np.array([3, bad], dtype=np.int32))


@pytest.mark.parametrize("width", [1, 16, 33, 64, 172, 2048])
def test_norms_and_add(ops, width):
    for rows in (1, 2, 17):
        x, delta = activations(rows, width), activations(rows, width, seed=1)
        weight = ops.load_vector(activations(1, width, seed=2)[0])
        host = np.asarray(activations(1, width, seed=2)[0])
        for eps in (1e-6, 1e-2):
            want = REFERENCE.rms_norm(x, host, eps)
            got = ops.to_numpy(ops.rms_norm(strided(x), weight, eps))
            assert row_error(got, want) <= allowed(ops, "rms_norm")
        total, normed = ops.add_rms_norm(x.copy(), delta, weight, 1e-5)
        assert row_error(ops.to_numpy(total), x + delta) <= allowed(ops, "add")
        want = REFERENCE.rms_norm(x + delta, host, 1e-5)
        assert row_error(ops.to_numpy(normed), want) <= allowed(ops, "rms_norm")
        got = ops.to_numpy(ops.add(x.copy(), delta))
        assert row_error(got, x + delta) <= allowed(ops, "add")


@pytest.mark.parametrize("head_dim", [16, 64, 80, 128, 256])
def test_norm_of_each_head(ops, head_dim):
    x = activations(9, 6 * head_dim)
    host = activations(1, head_dim, seed=2)[0]
    got = ops.to_numpy(ops.rms_norm(strided(x), ops.load_vector(host), 1e-6))
    assert row_error(got.reshape(-1, head_dim),
                     REFERENCE.rms_norm(x, host, 1e-6).reshape(-1, head_dim)
                     ) <= allowed(ops, "rms_norm")  # fmt: skip


@pytest.mark.parametrize("width", [1, 16, 33, 172, 2048])
def test_scale_and_softcap(ops, width):
    for rows in (1, 2, 17):
        x = 20.0 * activations(rows, width)
        got = ops.to_numpy(ops.scale(x.copy(), 2304.5**0.5))
        assert row_error(got, x * 2304.5**0.5) <= allowed(ops, "scale")
        for cap in (0.5, 30.0):
            got = ops.to_numpy(ops.softcap(x.copy(), cap))
            want = cap * np.tanh(x.astype(np.float64) / cap)
            assert row_error(got, want) <= allowed(ops, "softcap")
            # The same bits whatever stands beside a row.
            alone = [ops.to_numpy(ops.softcap(row[None].copy(), cap)) for row in x]
            np.testing.assert_array_equal(got, np.concatenate(alone))


def test_take_rows(ops):
    x = activations(11, 40)
    for rows in ([], [0], [10], [3, 1, 1, 9], list(range(11))):
        picked = ops.to_numpy(ops.take_rows(strided(x), np.array(rows, dtype=np.int32)))
        np.testing.assert_array_equal(picked, x[rows].reshape(len(rows), 40))


def test_inputs_are_left_alone(ops):
    """Only the residual and rope's x may be reused."""
    x, delta = activations(4, 64), activations(4, 64, seed=1)
    weight, vector = ops.load_weight(matrix("Q8_0", 32, 64)), ops.load_vector(x[0])
    kept_x, kept_delta = x.copy(), delta.copy()
    ops.rms_norm(x, vector, 1e-5)
    ops.linear(x, weight)
    ops.linear_many(x, [weight, weight], [None, None])
    ops.gate_up(x, weight, weight, "silu")
    ops.add_rms_norm(x.copy(), delta, vector, 1e-5)
    ops.add(x.copy(), delta)
    np.testing.assert_array_equal(x, kept_x)
    np.testing.assert_array_equal(delta, kept_delta)


# -- linear -----------------------------------------------------------------------------------


@pytest.mark.parametrize("qtype", QTYPES)
def test_linear(ops, qtype):
    for rows, columns in shapes(qtype):
        raw = matrix(qtype, rows, columns)
        weight, host = ops.load_weight(raw), raw.to_f32()
        x = activations(40, columns)
        want = REFERENCE.linear(x, REFERENCE.load_weight(raw))
        for count in COLUMNS:
            got = ops.to_numpy(ops.linear(strided(x[:count]), weight))
            error = linear_error(got, want[:count], x[:count], host)
            assert error <= allowed(ops, "linear", qtype), (rows, columns, count)


@pytest.mark.parametrize("qtype", QTYPES)
def test_linear_where_activations_round_to_themselves(ops, qtype):
    """No rounding of inputs to hide behind: only the order of float32 sums is left."""
    for rows, columns in shapes(qtype):
        raw = matrix(qtype, rows, columns)
        weight, host = ops.load_weight(raw), raw.to_f32()
        bias = activations(1, rows, seed=4)[0]
        x = exact_activations(40, columns)
        want = REFERENCE.linear(x, REFERENCE.load_weight(raw))
        for count in COLUMNS:
            got = ops.to_numpy(ops.linear(x[:count], weight))
            error = linear_error(got, want[:count], x[:count], host)
            assert error <= allowed(ops, "linear_exact"), (rows, columns, count)
        got = ops.to_numpy(ops.linear(x, weight, ops.load_vector(bias)))
        error = linear_error(got - bias, want, x, host)
        # Taking the bias off again costs the result's own last bits.
        slack = 2e-7 * np.abs(bias).max() / np.abs(want).max()
        assert error <= allowed(ops, "linear_exact") + max(slack, 1e-5), (rows, columns)


@pytest.mark.parametrize("qtype", QTYPES)
def test_linear_many_is_linear_one_by_one(ops, qtype):
    columns = whole_blocks(qtype, 96)
    weights = [ops.load_weight(matrix(qtype, n, columns, seed=n)) for n in (48, 16, 17)]
    mixed = [*weights[:2], ops.load_weight(matrix("Q8_0", 20, columns))]
    biases = [None, ops.load_vector(activations(1, 16)[0]), None]
    for group in (weights, mixed):
        for count in (1, 3, 16, 33):
            x = activations(count, columns)
            many = ops.linear_many(strided(x), group, biases)
            for got, weight, bias in zip(many, group, biases, strict=True):
                one = ops.to_numpy(ops.linear(x, weight, bias))
                np.testing.assert_array_equal(ops.to_numpy(got), one)


@pytest.mark.parametrize("qtype", QTYPES)
def test_gate_up(ops, qtype):
    columns = whole_blocks(qtype, 288)
    for rows in (1, 15, 16, 33):
        raw = [matrix(qtype, rows, columns, seed=s) for s in (1, 2)]
        gate, up = (ops.load_weight(r) for r in raw)
        reference = [REFERENCE.load_weight(r) for r in raw]
        # More rows than are asked for: the largest product of a few may be no measure.
        x = np.random.default_rng(3).standard_normal((129, columns)).astype(np.float32)
        for activation in ("silu", "gelu_tanh", "gelu"):
            want = REFERENCE.gate_up(x, *reference, activation)
            scale = max(1.0, float(np.abs(want).max()))
            for count in (1, 2, 16, 33):
                got = ops.to_numpy(ops.gate_up(strided(x[:count]), gate, up, activation))
                error = float(np.abs(got - want[:count]).max()) / scale
                assert error <= allowed(ops, "gate_up", qtype), (rows, activation, count)


def test_gate_up_far_out(ops):
    """Where exponentials overflow, silu is 0 or the input."""
    identity = matrix("F32", 16, 32)
    gate = ops.load_weight(identity)
    x = np.float32([[1e4] * 32, [-1e4] * 32, [3e-20] * 32])
    want = REFERENCE.gate_up(x, *[REFERENCE.load_weight(identity)] * 2, "silu")
    got = ops.to_numpy(ops.gate_up(x, gate, gate, "silu"))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def test_weights_know_what_they_hold(ops):
    for qtype in QTYPES:
        weight = ops.load_weight(matrix(qtype, 33, 1280))
        assert (weight.out_features, weight.in_features, weight.qtype) == (33, 1280, qtype)
        if ops.name != "reference":
            # Weights stay in the file's own quantisation, padded to whole groups of rows.
            assert weight.nbytes <= 1.1 * matrix(qtype, 48, 1280).nbytes


# -- rope -------------------------------------------------------------------------------------


def test_rope_tables(ops):
    spec = RopeSpec(10000.0 ** (-np.arange(0, 64, 2) / 64), False, magnitude=1.25)
    positions = np.array([0, 1, 2, 511, 4096, 131_071, 2_000_000], dtype=np.int32)
    got = [ops.to_numpy(table) for table in ops.rope_tables(spec, positions)]
    angles = positions[:, None].astype(np.float64) * spec.inv_freq
    for table, want in zip(got, (np.cos(angles), np.sin(angles)), strict=True):
        error = np.abs(table - 1.25 * want).max()
        assert error <= limit("cpu", "rope_tables")  # the reference rounds to float32 too


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("head_dim", "rotated"), [(16, 16), (64, 64), (80, 80), (80, 20), (96, 48),
                                                   (128, 128), (256, 64), (6, 4)])  # fmt: skip
def test_rope(ops, head_dim, rotated, interleaved):
    spec = RopeSpec(1000.0 ** (-np.arange(0, rotated, 2) / rotated), interleaved)
    for rows, heads in ((1, 1), (1, 8), (7, 3), (33, 2)):
        positions = np.random.default_rng(rows).integers(0, 9999, rows).astype(np.int32)
        x = activations(rows, heads * head_dim)
        cos, sin = REFERENCE.rope_tables(spec, positions)
        want = REFERENCE.rope(x, cos, sin, head_dim, interleaved)
        tables = ops.rope_tables(spec, positions)
        got = ops.to_numpy(ops.rope(strided(x), *tables, head_dim, interleaved))
        assert row_error(got, want) <= allowed(ops, "rope"), (rows, heads)


# -- attention --------------------------------------------------------------------------------

PAST = [0, 70, 0, 50, 300, 15]
NEW = [1, 1, 37, 17, 5, 1]


GROUPS = ((4, 4, 16), (8, 2, 32), (7, 1, 16), (12, 4, 64))  # heads, kv heads, block size
MASKS = ((0, 0.0), (1, 0.0), (16, 0.0), (29, 20.0), (0, 3.0))  # window, softcap


@functools.cache
def attention_cases(head_dim: int, kv_dtype: str):
    """Case, spec and the reference's answer, computed once for all devices."""
    found = []
    for heads, kv_heads, block_size in GROUPS:
        case = AttentionCase(heads, kv_heads, head_dim, head_dim, block_size, PAST, NEW)
        cache, q = case.filled(REFERENCE, kv_dtype), case.new_rows(case.queries)
        for mask in MASKS:
            scale = head_dim**-0.5 / 2
            spec = AttentionSpec(heads, kv_heads, head_dim, head_dim, scale, *mask)
            want = REFERENCE.attention(q, cache, 1, case.batch(), spec)
            found.append((case, spec, want))
    return found


@pytest.mark.parametrize(
    ("head_dim", "kv_dtype"),
    [(d, t) for d in (16, 32, 64, 80, 96, 128, 256) for t in ("f32", "f16", "bf16", "q8_0")],
)
def test_attention(ops, head_dim, kv_dtype):
    if kv_dtype == "q8_0" and head_dim % 32:
        with pytest.raises(InvalidParameterError, match="32"):
            ops.alloc_kv([KVLayerSpec(1, head_dim, head_dim)], 1, 16, kv_dtype)
        return
    filled = None
    for case, spec, want in attention_cases(head_dim, kv_dtype):
        if filled is None or filled[0] is not case:
            filled = case, case.filled(ops, kv_dtype), strided(case.new_rows(case.queries))
        got = ops.to_numpy(ops.attention(filled[2], filled[1], 1, case.batch(), spec))
        error = row_error(got, want)
        assert error <= allowed(ops, "attention", kv_dtype), spec


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16", "q8_0"])
def test_cache_stores_what_its_type_holds(ops, kv_dtype):
    """A query that sees one key returns its value: what was stored, read back."""
    x = activations(150, 2 * 64, seed=3)
    cache = ops.alloc_kv([KVLayerSpec(2, 64, 64)], 10, 16, kv_dtype)
    batch = make_batch([[0] * 150], [0], [range(10)], 16)
    ops.write_kv(cache, 0, strided(x), strided(x), batch)
    q = np.zeros((150, 2 * 64), dtype=np.float32)
    spec = AttentionSpec(2, 2, 64, 64, 1.0, window=1)
    got = ops.to_numpy(ops.attention(q, cache, 0, batch, spec))
    if kv_dtype == "f32":
        np.testing.assert_array_equal(got, x)
    elif kv_dtype == "f16":
        np.testing.assert_array_equal(got, x.astype(np.float16).astype(np.float32))
    elif kv_dtype == "bf16":
        kind = quants.get("BF16")
        np.testing.assert_array_equal(got, kind.decode(kind.encode(x.ravel())).reshape(x.shape))
    else:
        want = on_q8_grid(x)
        step = np.abs(x.reshape(-1, 32)).max(axis=1, keepdims=True) / 127
        off = np.abs(got - want).reshape(-1, 32) / np.maximum(step, 1e-30)
        assert off.max() <= limit("cpu", "q8_0_steps")
        assert (off > 1e-3).mean() < 1e-3


def test_attention_with_values_of_another_width(ops):
    case = AttentionCase(4, 2, 96, 64, 16, PAST, NEW)
    spec = AttentionSpec(4, 2, 96, 64, 0.1)
    got = ops.attention(case.new_rows(case.queries), case.filled(ops, "f32"), 1, case.batch(), spec)
    want = REFERENCE.attention(
        case.new_rows(case.queries), case.filled(REFERENCE, "f32"), 1, case.batch(), spec
    )
    assert row_error(ops.to_numpy(got), want) <= allowed(ops, "attention", "f32")


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("garbage", [np.inf, np.nan])
def test_stale_slots_poison_nobody(ops, kv_dtype, garbage):
    """A block keeps what its last owner wrote, even when that had overflowed."""
    case = AttentionCase(4, 2, 32, 32, 16, PAST, NEW)
    spec = AttentionSpec(4, 2, 32, 32, 0.1)
    q = case.new_rows(case.queries)
    clean = ops.to_numpy(ops.attention(q, case.filled(ops, kv_dtype, 0.0), 1, case.batch(), spec))
    dirty = case.filled(ops, kv_dtype, garbage)
    got = ops.to_numpy(ops.attention(q, dirty, 1, case.batch(), spec))
    np.testing.assert_array_equal(got, clean)


def test_attention_with_scores_far_apart(ops):
    """Scores of ±10⁴ overflow every exponential that is not taken from the maximum."""
    case = AttentionCase(2, 1, 32, 32, 16, [20], [9])
    spec = AttentionSpec(2, 1, 32, 32, 300.0)
    q = case.new_rows(case.queries)
    got = ops.to_numpy(ops.attention(q, case.filled(ops, "f32"), 1, case.batch(), spec))
    want = REFERENCE.attention(q, case.filled(REFERENCE, "f32"), 1, case.batch(), spec)
    # Scores of 10⁴ carry a float32 error of 1e-3, and the weights with them.
    assert row_error(got, want) <= 5e-2


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16", "q8_0"])
def test_copied_blocks_hold_the_same(ops, kv_dtype):
    case = AttentionCase(4, 2, 32, 32, 16, [40], [3])
    spec = AttentionSpec(4, 2, 32, 32, 0.2)
    cache, q = case.filled(ops, kv_dtype), case.new_rows(case.queries)
    before = np.array(ops.to_numpy(ops.attention(q, cache, 1, case.batch(), spec)))
    free = [b for b in range(case.num_blocks) if b not in case.tables[0]][: len(case.tables[0])]
    ops.copy_blocks(cache, 0, np.array(case.tables[0], np.int32), np.array(free, np.int32))
    moved = make_batch([[0] * 3], [40], [free], 16)
    np.testing.assert_array_equal(ops.to_numpy(ops.attention(q, cache, 1, moved, spec)), before)
    # The originals stay.
    again = ops.to_numpy(ops.attention(q, cache, 1, case.batch(), spec))
    np.testing.assert_array_equal(again, before)
