# SPDX-License-Identifier: Apache-2.0
"""On `cpu`, a row's bits depend on that row alone: not on how many rows run beside it, not on
how a prompt was cut into chunks, not on the number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from op_inputs import QTYPES, AttentionCase, activations, matrix, whole_blocks

from batching import make_batch
from devices import cpu_params, open_device
from freehold.ops import AttentionSpec


@pytest.fixture(scope="module", params=cpu_params())
def device(request):
    return request.param


@pytest.fixture(scope="module")
def ops(device):
    return open_device(device)


def host(ops, x) -> np.ndarray:
    return np.array(ops.to_numpy(x))


@pytest.mark.parametrize("qtype", QTYPES)
def test_linear_rows(ops, qtype):
    rows, columns = 37, whole_blocks(qtype, 416)
    weight = ops.load_weight(matrix(qtype, rows, columns))
    other = ops.load_weight(matrix(qtype, rows, columns, seed=1))
    x = activations(70, columns)
    alone = np.concatenate([host(ops, ops.linear(x[i : i + 1], weight)) for i in range(70)])
    gated = np.concatenate(
        [host(ops, ops.gate_up(x[i : i + 1], weight, other, "silu")) for i in range(70)]
    )
    for count in (*range(2, 41), 64, 65, 70):
        for start in (0, 70 - count):
            rows_of = slice(start, start + count)
            got = host(ops, ops.linear(x[rows_of], weight))
            np.testing.assert_array_equal(got, alone[rows_of], err_msg=f"{count} rows")
        got = host(ops, ops.gate_up(x[:count], weight, other, "silu"))
        np.testing.assert_array_equal(got, gated[:count], err_msg=f"{count} rows, gated")


@pytest.mark.parametrize("qtype", ["F32", "BF16", "Q8_0", "Q4_K"])
def test_threads(device, ops, qtype):
    columns = 768
    raw, x = matrix(qtype, 70, columns), activations(19, columns)
    want = host(ops, ops.linear(x, ops.load_weight(raw)))
    for threads in (1, 3):
        fewer = open_device((device[0], {**device[1], "threads": threads}))
        got = host(fewer, fewer.linear(x, fewer.load_weight(raw)))
        np.testing.assert_array_equal(got, want, err_msg=f"{threads} threads")


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 4, 64), (8, 2, 96), (7, 1, 32)])
@pytest.mark.parametrize("window", [0, 21])
def test_attention_rows(ops, heads, kv_heads, dim, window, kv_dtype):
    spec = AttentionSpec(heads, kv_heads, dim, dim, dim**-0.5, window)
    case = AttentionCase(heads, kv_heads, dim, dim, 16, [0, 0], [141, 90])
    cache = case.filled(ops, kv_dtype)
    whole = host(ops, ops.attention(np.concatenate(case.queries), cache, 1, case.batch(), spec))
    whole = [whole[:141], whole[141:]]

    def rows(*parts: tuple[int, int, int]) -> list[np.ndarray]:
        """Rows `start .. stop` of the given sequences, in one call."""
        batch = make_batch([[0] * (b - a) for _, a, b in parts], [a for _, a, _ in parts],
                           [case.tables[s] for s, _, _ in parts], 16)  # fmt: skip
        q = np.concatenate([case.queries[s][a:b] for s, a, b in parts])
        out = host(ops, ops.attention(q, cache, 1, batch, spec))
        return np.split(out, np.cumsum([b - a for _, a, b in parts])[:-1])

    for parts in (
        [(0, 0, 141)],
        [(0, 0, 17), (1, 5, 9)],
        [(0, 17, 33), (1, 88, 90), (0, 140, 141)],
        [(1, 0, 90), (0, 64, 128)],
        [(0, 63, 66), (0, 100, 101), (1, 31, 32), (1, 32, 33)],
        *([(s, i, i + 1)] for s, i in ((0, 0), (0, 15), (0, 16), (0, 64), (0, 140), (1, 89))),
    ):
        for (s, a, b), got in zip(parts, rows(*parts), strict=True):
            np.testing.assert_array_equal(got, whole[s][a:b], err_msg=str(parts))


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16", "q8_0"])
@pytest.mark.parametrize("block_size", [16, 32])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "stored", "sinks"),
    [(4, 2, 64, 64, False), (8, 1, 32, 32, True), (3, 3, 96, 64, False), (16, 1, 160, 0, False)],
)
def test_sequences_that_begin_alike(ops, heads, kv_heads, dim, stored, sinks, block_size, kv_dtype):
    """Rows of many sequences that share blocks, as branches of a prompt or documents under one
    instruction do, give the bits that each sequence gives alone."""
    if not stored and kv_dtype == "q8_0":
        pytest.skip("a cache of keys alone is not kept as q8_0")
    value_dim = stored or 128
    spec = AttentionSpec(heads, kv_heads, dim, value_dim, dim**-0.5, softcap=20.0 if sinks else 0.0)
    sink = activations(1, heads)[0] if sinks else None
    past = [300, 300, 301, 299, 250, 700, 700, 40, 40, 300, 65, 64, 300, 300, 300]
    new = [1, 3, 1, 5, 1, 1, 40, 1, 2, 1, 7, 1, 1, 1, 1]
    # ... of which so many stand in blocks of the sequence before; some of one length share less
    alike = [0, 256, 288, 256, 192, 64, 640, 32, 32, 32, 32, 64, 0, 0, 192]
    case = AttentionCase(heads, kv_heads, dim, stored, block_size, past, new)
    for at in range(1, len(past)):
        count = alike[at] // block_size
        case.tables[at][:count] = case.tables[at - 1][:count]
        begun = count * block_size
        for rows in (case.keys, case.values):
            rows[at][:begun] = rows[at - 1][:begun]
    cache = case.filled(ops, kv_dtype)

    def rows(some: list[int]) -> list[np.ndarray]:
        batch = make_batch([[0] * new[s] for s in some], [past[s] for s in some],
                           [case.tables[s] for s in some], block_size)  # fmt: skip
        q = np.concatenate([case.queries[s][past[s] :] for s in some])
        out = host(ops, ops.attention(q, cache, 1, batch, spec, sinks=sink))
        return np.split(out, np.cumsum([new[s] for s in some])[:-1])

    everyone = list(range(len(past)))
    alone = [rows([s])[0] for s in everyone]
    for some in (everyone, everyone[::-1], everyone[:4], everyone[3:], [0, 1, 0, 1, 2, 2, 3] * 5):
        for s, got in zip(some, rows(some), strict=True):
            np.testing.assert_array_equal(got, alone[s], err_msg=f"sequence {s} of {some}")
