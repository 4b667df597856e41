# SPDX-License-Identifier: Apache-2.0
"""Low-rank changes to some rows of a product: on every device near the reference, the same for a
row in any company, and nothing to rows that have none."""

from __future__ import annotations

import numpy as np
import pytest
from op_inputs import QTYPES, activations, matrix, whole_blocks

from budgets import linear_error, row_error
from devices import all_params, open_device
from freehold import backends
from freehold.errors import EngineError, InvalidParameterError
from freehold.ops import LowRank, Ops, RowUpdate

REFERENCE = backends.create("reference")
RANKS = (1, 3, 8, 16, 33)


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


def change(ops: Ops, rows: int, columns: int, rank: int, seed: int, qtype: str = "F32") -> LowRank:
    down = ops.load_weight(matrix(qtype, rank, columns, seed))
    return LowRank(down, ops.load_weight(matrix(qtype, rows, rank, seed + 1)), 1.5 + seed)


def updates(ops: Ops, shapes: list[tuple[int, int]], rank: int, qtype: str) -> list[RowUpdate]:
    """Two adapters on rows 1, 2 and 0, 6; the second leaves the last matrix alone."""
    first = tuple(change(ops, *s, rank, 3 * i, qtype) for i, s in enumerate(shapes))
    second = tuple(change(ops, *s, rank, 31 * i, qtype) for i, s in enumerate(shapes))
    return [
        RowUpdate(np.array([2, 1], np.int32), first),
        RowUpdate(np.array([0, 6], np.int32), (*second[:-1], None)),
    ]


@pytest.mark.parametrize("qtype", ["F32", "F16"])
@pytest.mark.parametrize("rank", RANKS)
def test_near_the_reference(ops, rank, qtype):
    shapes = [(48, 160), (17, 160), (33, 160)]
    x = activations(8, 160)
    raw = [matrix("F32", *shape, seed=9) for shape in shapes]

    def product(device: Ops) -> list[np.ndarray]:
        outs = device.linear_many(x, [device.load_weight(m) for m in raw], [None] * 3)
        device.add_low_rank(x, outs, updates(device, shapes, rank, qtype))
        return [np.array(device.to_numpy(out)) for out in outs]

    plain = [
        np.array(REFERENCE.to_numpy(out))
        for out in REFERENCE.linear_many(x, [REFERENCE.load_weight(m) for m in raw], [None] * 3)
    ]
    for got, want, before, m in zip(product(ops), product(REFERENCE), plain, raw, strict=True):
        # As a product of float32s, twice over, beside its largest possible terms.
        assert linear_error(got, want, x, m.to_f32()) < 2e-4
        changed = [i for i in range(8) if not np.array_equal(want[i], before[i])]
        assert changed == ([1, 2] if m is raw[2] else [0, 1, 2, 6])


def test_rows_alone_and_together(ops):
    """A row's bits are the same whether its adapter has one row or all of them."""
    weight = ops.load_weight(matrix("F32", 48, 160))
    low = change(ops, 48, 160, 16, 5)
    x = np.array(activations(9, 160))

    def product(inputs: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        out = ops.linear(inputs, weight)
        ops.add_low_rank(inputs, (out,), [RowUpdate(rows, (low,))])
        return np.array(ops.to_numpy(out))

    whole = product(x, None)
    if ops.name == "reference":
        return  # NumPy's sums may differ in the last bit
    for i in range(9):
        np.testing.assert_array_equal(product(x[i : i + 1], None)[0], whole[i])
        np.testing.assert_array_equal(product(x, np.array([i], np.int32))[i], whole[i])


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh"])
@pytest.mark.parametrize("qtype", QTYPES)
def test_gated_pairs(ops, qtype, activation):
    """Rows without an adapter have the bits of the fused operation, for few rows and for many."""
    columns = whole_blocks(qtype, 160)
    gate, up = (matrix(qtype, 37, columns, seed) for seed in (0, 1))
    pair = ops.load_weight(gate), ops.load_weight(up)
    changes = (change(ops, 37, columns, 8, 3), change(ops, 37, columns, 8, 7))
    for count in (7, 70):
        x = activations(count, columns)
        x /= np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-9)
        mine = np.array([1, 4, count - 1], np.int32)
        others = np.setdiff1d(np.arange(count), mine)
        plain = np.array(ops.to_numpy(ops.gate_up(x, *pair, activation)))
        got = ops.gate_up(x, *pair, activation, updates=[RowUpdate(mine, changes)])
        got = np.array(ops.to_numpy(got))
        np.testing.assert_array_equal(got[others], plain[others])
        assert row_error(got[mine], plain[mine]) > 1e-3
        if qtype == "F32":
            low = [change(REFERENCE, 37, columns, 8, seed) for seed in (3, 7)]
            reference = REFERENCE.gate_up(
                x, REFERENCE.load_weight(gate), REFERENCE.load_weight(up), activation,
                updates=[RowUpdate(mine, tuple(low))],
            )  # fmt: skip
            assert row_error(got, np.array(reference)) < 2e-5


def test_gates_with_a_limit_are_refused(ops):
    if ops.name == "reference":
        return  # it has no fused operation to leave
    pair = [ops.load_weight(matrix("F32", 37, 160, seed)) for seed in (0, 1)]
    update = [RowUpdate(None, (change(ops, 37, 160, 8, 3), None))]
    with pytest.raises(EngineError):
        ops.gate_up(activations(3, 160), *pair, "silu", limit=7.0, updates=update)


@pytest.mark.parametrize(
    ("columns", "rank", "rows", "count"), [(256, 256, 300, 1), (512, 8, 17, 50), (33, 5, 1, 3)]
)
def test_sizes_and_types(ops, columns, rank, rows, count):
    """Many rows and few, wide and narrow outputs, quantised halves, strided rows, in one call."""
    types = ("Q8_0", "F16", "Q4_K") if columns == 256 else ("F16", "F32", "F32")
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((count, columns + 24)).astype(np.float32)
    x = wide[:, 16 : 16 + columns]
    mine = rng.permutation(count)[: -(-count // 2)].astype(np.int32)
    rest = np.setdiff1d(np.arange(count), mine).astype(np.int32)

    def product(device: Ops) -> list[np.ndarray]:
        outs = [np.ones((count, rows + j), np.float32) for j in range(3)]
        changes = [
            LowRank(
                device.load_weight(matrix(qtype, rank, columns, j)),
                device.load_weight(matrix(qtype, rows + j, rank, j + 9)),
                0.5,
            )
            for j, qtype in enumerate(types)
        ]
        some = [RowUpdate(mine, tuple(changes)), RowUpdate(rest, (None, changes[1], None))]
        device.add_low_rank(x, outs, some)
        return outs

    loose = 0.1 if columns == 256 else 1e-4  # int8 activations, twice
    for got, want in zip(product(ops), product(REFERENCE), strict=True):
        assert row_error(got, want) < loose
    assert (product(ops)[0][rest] == 1.0).all()


def test_what_does_not_fit_is_refused(ops):
    if ops.name == "reference":
        return  # NumPy refuses in its own words
    x, low = np.ones((3, 160), np.float32), change(ops, 48, 160, 8, 3)
    out = np.ones((3, 48), np.float32)
    for rows in ([3], [-1], [0, 0], [2**31 - 1]):
        with pytest.raises(InvalidParameterError):
            ops.add_low_rank(x, (out,), [RowUpdate(np.array(rows, np.int32), (low,))])
    one = RowUpdate(np.array([1], np.int32), (low,))
    for updates in ([one, one], [RowUpdate(None, (low,)), one], [RowUpdate(None, (low, low))]):
        with pytest.raises(InvalidParameterError):
            ops.add_low_rank(x, (out,), updates)
    crossed = LowRank(low.down, low.down, 1.0)
    for inputs, wrong in ((x[:, :80].copy(), low), (x, crossed), (x, LowRank(None, low.up, 1.0))):
        with pytest.raises(InvalidParameterError):
            ops.add_low_rank(inputs, (out,), [RowUpdate(None, (wrong,))])
    with pytest.raises(InvalidParameterError):
        ops.add_low_rank(x, (np.ones((3, 47), np.float32),), [RowUpdate(None, (low,))])
    assert (out == 1.0).all()
    ops.add_low_rank(x, (out,), [RowUpdate(np.array([], np.int32), (low,))])
    ops.add_low_rank(x, (out,), [RowUpdate(None, (None,))])
    assert (out == 1.0).all()
