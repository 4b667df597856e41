# SPDX-License-Identifier: Apache-2.0
"""What attention does beyond the plain causal kind: chunks, sinks, values that are part of the key,
heads of uneven and unusual sizes, and positions that a search for keys has selected.

The definition is judged against torch, every device against the definition.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch
from op_inputs import AttentionCase

from batching import make_batch
from budgets import limit, row_error
from devices import all_params, open_device
from freehold import backends
from freehold.errors import InvalidParameterError
from freehold.ops import AttentionSpec, KVLayerSpec

REFERENCE = backends.create("reference")
KV_DTYPES = ("f32", "f16", "bf16", "q8_0")
PAST, NEW = [0, 70, 130], [37, 1, 17]
LATENT = 0


@pytest.fixture(scope="module", params=all_params())
def ops(request):
    return open_device(request.param)


def allowed(ops, kv_dtype: str) -> float:
    name = ops.name
    return limit(name, "sweep") if name == "reference" else limit(name, "attention", kv_dtype)


def sinks_of(heads: int) -> np.ndarray:
    return np.random.default_rng(heads).uniform(-4, 6, heads).astype(np.float32)


def random_bits(case: AttentionCase, share: float, seed: int = 0) -> np.ndarray:
    """Bits that keep about `share` of the positions, and no row without one it sees."""
    longest = max(case.totals)
    keep = np.random.default_rng(seed).random((sum(case.new), longest)) < share
    # whole stretches that nobody selects: these are not read at all
    keep[:, 16:48] = keep[:, 64:128] = False
    keep[:, 0] = True
    return packed(keep)


def packed(keep: np.ndarray) -> np.ndarray:
    words = -(-keep.shape[1] // 64)
    bits = np.zeros((len(keep), words), np.uint64)
    for row, position in zip(*np.nonzero(keep), strict=True):
        bits[row, position // 64] |= np.uint64(1) << np.uint64(position % 64)
    return bits


def unpacked(bits: np.ndarray) -> np.ndarray:
    inside = np.arange(64, dtype=np.uint64)
    return ((bits[:, :, None] >> inside) & np.uint64(1)).reshape(len(bits), -1).astype(bool)


# -- the definition ---------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [False, True])
@pytest.mark.parametrize(("window", "chunk"), [(0, 0), (9, 0), (0, 24), (20, 24)])
def test_definition_against_torch(latent, window, chunk):
    case = AttentionCase(6, 2, 20, LATENT if latent else 12, 16, past=[0, 30, 5], new=[9, 1, 33])
    spec = AttentionSpec(6, 2, 20, 12, 0.3, window, chunk=chunk)
    sinks, bits = sinks_of(6), random_bits(case, 0.5)
    bits[:, 0] |= np.uint64(0xFFFF << 30)  # keep something inside every window
    keep = unpacked(bits)
    cache, q = case.filled(REFERENCE, "f32"), case.new_rows(case.queries)
    got = REFERENCE.attention(q, cache, 1, case.batch(), spec, sinks, bits)
    row = 0
    for s, (past, new, total) in enumerate(zip(case.past, case.new, case.totals, strict=True)):
        q = torch.from_numpy(case.queries[s][past:]).double().reshape(new, 6, 20)
        k = torch.from_numpy(case.keys[s]).double().reshape(total, 2, 20)
        v = k[..., :12] if latent else torch.from_numpy(case.values[s]).double().reshape(-1, 2, 12)
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(3, 1)) * 0.3
        at, to = torch.arange(past, total)[:, None], torch.arange(total)[None]
        visible = (to <= at) & torch.from_numpy(keep[row : row + new, :total])
        if window:
            visible &= at - to < window
        if chunk:
            visible &= at // chunk == to // chunk
        scores = scores.masked_fill(~visible, -torch.inf)
        column = torch.from_numpy(sinks).double()[:, None, None].expand(6, new, 1)
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
        want = torch.einsum("hqk,khd->qhd", weights, v.repeat_interleave(3, 1)).reshape(new, -1)
        assert row_error(got[row : row + new], want.numpy()) <= 5e-7
        row += new


def test_search_definition_against_torch():
    case = AttentionCase(5, 1, 24, LATENT, 16, PAST, NEW)
    cache, q = case.filled(REFERENCE, "f32"), case.new_rows(case.queries)
    weights = np.random.default_rng(3).standard_normal((len(q), 5)).astype(np.float32)
    keep = unpacked(REFERENCE.top_keys(q, weights, cache, 1, case.batch(), 11))
    row = 0
    for keys, past, total in zip(case.keys, case.past, case.totals, strict=True):
        k = torch.from_numpy(keys).double()
        for position in range(past, total):
            heads = torch.from_numpy(q[row]).double().reshape(5, 24)
            scores = (
                torch.relu(heads @ k[: position + 1].T).T @ torch.from_numpy(weights[row]).double()
            )
            want = scores.topk(min(11, position + 1)).indices.tolist()
            # among scores of exactly zero any choice is torch's own
            if (scores.sort(descending=True).values[10:12].diff() != 0).all():
                assert np.flatnonzero(keep[row]).tolist() == sorted(want)
            assert keep[row].sum() == min(11, position + 1)
            row += 1


# -- every device -----------------------------------------------------------------------------

SHAPES = (  # heads, kv heads, key_dim, value_dim stored, value_dim
    (8, 2, 64, 64, 64),
    (4, 1, 192, 128, 128),
    (2, 1, 512, 512, 512),
    (6, 3, 80, 48, 48),
    (40, 1, 576, LATENT, 512),
    (5, 1, 96, LATENT, 64),
    (3, 1, 70, LATENT, 33),
)
KINDS = (  # window, chunk, sinks, share of positions selected
    (0, 0, False, 0.0),
    (0, 0, True, 0.3),
    (20, 0, True, 0.0),
    (0, 24, False, 0.0),
    (40, 64, True, 0.5),
)


@functools.cache
def wanted(shape, kv_dtype):
    """Case and, per kind, the definition's answer, computed once for all devices."""
    heads, kv_heads, key_dim, stored, value_dim = shape
    case = AttentionCase(heads, kv_heads, key_dim, stored, 16, PAST, NEW)
    cache, q = case.filled(REFERENCE, kv_dtype), case.new_rows(case.queries)
    found = []
    for window, chunk, with_sinks, share in KINDS:
        spec = AttentionSpec(heads, kv_heads, key_dim, value_dim, key_dim**-0.5 / 2, window,
                             chunk=chunk)  # fmt: skip
        sinks = sinks_of(heads) if with_sinks else None
        bits = random_bits(case, share) if share else None
        # without a sink every row must see a key
        found.append((spec, sinks, bits, REFERENCE.attention(q, cache, 1, case.batch(), spec, sinks,
                                                             bits)))  # fmt: skip
    return case, found


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
def test_kinds(ops, shape, kv_dtype):
    _, kv_heads, key_dim, stored, _ = shape
    if kv_dtype == "q8_0" and (key_dim % 32 or stored % 32):
        with pytest.raises(InvalidParameterError, match="32"):
            ops.alloc_kv([KVLayerSpec(kv_heads, key_dim, stored)], 1, 16, kv_dtype)
        return
    case, found = wanted(shape, kv_dtype)
    cache, q = case.filled(ops, kv_dtype), case.new_rows(case.queries)
    for spec, sinks, bits, want in found:
        got = ops.to_numpy(ops.attention(q, cache, 1, case.batch(), spec, sinks, bits))
        assert row_error(got, want) <= allowed(ops, kv_dtype), (spec, share_of(bits))
        # One row alone, the last of each sequence: the same bits as in company.
        for s, stop in enumerate(case.batch().query_start_loc[1:].tolist()):
            one = make_batch([[0]], [case.totals[s] - 1], [case.tables[s]], 16)
            alone = ops.attention(q[stop - 1 : stop], cache, 1, one, spec, sinks,
                                  None if bits is None else bits[stop - 1 : stop])  # fmt: skip
            np.testing.assert_array_equal(ops.to_numpy(alone)[0], got[stop - 1])


def share_of(bits) -> str:
    return "all keys" if bits is None else "selected keys"


@pytest.mark.parametrize("shape", SHAPES[::4], ids=str)
@pytest.mark.parametrize(("window", "chunk"), [(20, 0), (0, 24), (0, 0)])
def test_blocks_nobody_sees_are_not_read(ops, shape, window, chunk):
    """Freed blocks have entry 0 in the table, and block 0 may hold anything."""
    heads, kv_heads, key_dim, stored, value_dim = shape
    case = AttentionCase(heads, kv_heads, key_dim, stored, 16, [150, 96], [3, 9])
    spec = AttentionSpec(heads, kv_heads, key_dim, value_dim, 0.1, window, chunk=chunk)
    bits = None
    if not window and not chunk:  # selection alone: whole blocks that no row selects
        keep = np.zeros((12, 153), bool)
        keep[:, 100:104] = keep[:, 17] = True
        bits = packed(keep)
    q, batch = case.new_rows(case.queries), case.batch()
    cache = case.filled(ops, "f32", np.nan)
    want = ops.to_numpy(ops.attention(q, cache, 1, batch, spec, None, bits))
    assert np.isfinite(want).all()
    free = next(b for b in range(case.num_blocks) if not any(b in t for t in case.tables))
    tables = batch.tables[0].block_tables.copy()
    for s, past in enumerate(case.past):
        for block in range(tables.shape[1]):
            places = range(16 * block, 16 * block + 16)
            if window:
                seen = any(p > past - window for p in places)
            elif chunk:
                seen = any(p >= past // chunk * chunk for p in places)
            else:
                seen = bool(keep[:, places.start : places.stop].any())
            if not seen:
                tables[s, block] = free
    assert (tables == free).sum() >= 6
    where = dataclasses.replace(batch.tables[0], block_tables=tables)
    batch = dataclasses.replace(batch, tables=(where,))
    got = ops.attention(q, cache, 1, batch, spec, None, bits)
    np.testing.assert_array_equal(ops.to_numpy(got), want)


def test_a_row_that_sees_only_its_sink_is_zero(ops):
    case = AttentionCase(4, 2, 32, 32, 16, [0], [20])
    spec, bits = AttentionSpec(4, 2, 32, 32, 0.1), np.zeros((20, 1), np.uint64)
    q, cache = case.new_rows(case.queries), case.filled(ops, "f32")
    got = ops.to_numpy(ops.attention(q, cache, 1, case.batch(), spec, sinks_of(4), bits))
    assert not got.any()


def test_a_latent_layer_takes_half_the_memory_and_no_values(ops):
    latent, both = (ops.alloc_kv([KVLayerSpec(1, 512, v)], 64, 16, "f16") for v in (LATENT, 512))
    assert latent.nbytes * 1.9 < both.nbytes
    batch, row = make_batch([[0]], [0], [[1]], 16), np.ones((1, 512), np.float32)
    ops.write_kv(latent, 0, row, None, batch)
    for cache, v in ((latent, row), (both, None)):
        with pytest.raises(InvalidParameterError, match="values"):
            ops.write_kv(cache, 0, row, v, batch)


# -- the search -------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize(("heads", "dim"), [(1, 32), (5, 64), (64, 128), (3, 576)])
def test_search(ops, heads, dim, kv_dtype):
    case = AttentionCase(heads, 1, dim, LATENT, 16, [0, 70, 1130], [37, 1, 17])
    q = case.new_rows(case.queries)
    weights = np.random.default_rng(3).standard_normal((len(q), heads)).astype(np.float32)
    cache, host = case.filled(ops, kv_dtype), case.filled(REFERENCE, kv_dtype)
    for count in (1, 20, 64):
        got = unpacked(ops.top_keys(q, weights, cache, 1, case.batch(), count))
        want = unpacked(REFERENCE.top_keys(q, weights, host, 1, case.batch(), count))
        positions = case.batch().positions
        np.testing.assert_array_equal(got.sum(axis=1), np.minimum(count, positions + 1))
        # Scores are float32 sums of up to 64 heads: two that are this close may change places.
        assert (got != want).any(axis=1).mean() <= (0.0 if ops.name == "reference" else 0.04)


def test_search_takes_the_lower_of_equals_and_what_is_no_number_last(ops):
    """Scores of exactly zero are common: no head agrees with the key."""
    case = AttentionCase(2, 1, 32, LATENT, 16, [90], [3])
    cache = case.filled(ops, "f32")
    q, weights = np.zeros((3, 64), np.float32), np.ones((3, 2), np.float32)
    keep = unpacked(ops.top_keys(q, weights, cache, 1, case.batch(), 5))
    np.testing.assert_array_equal(np.flatnonzero(keep[0]), np.arange(5))
    bad = np.full((1, 32), np.nan, np.float32)
    ops.write_kv(cache, 1, bad, None, make_batch([[0]], [2], [case.tables[0]], 16))
    keep = unpacked(ops.top_keys(q, weights, cache, 1, case.batch(), 5))
    np.testing.assert_array_equal(np.flatnonzero(keep[2]), [0, 1, 3, 4, 5])
    assert ops.top_keys(q, weights, cache, 1, case.batch(), 93) is None


def test_search_is_the_same_in_any_company(ops):
    case = AttentionCase(6, 1, 64, LATENT, 16, [0, 40], [90, 30])
    cache, batch = case.filled(ops, "f16"), case.batch()
    q = case.new_rows(case.queries)
    weights = np.random.default_rng(3).standard_normal((len(q), 6)).astype(np.float32)
    whole = ops.top_keys(q, weights, cache, 1, batch, 12)
    for s, row, past in ((0, 13, 13), (0, 50, 50), (1, 90 + 25, 65)):
        one = make_batch([[0]], [past], [case.tables[s]], 16)
        alone = ops.top_keys(q[row : row + 1], weights[row : row + 1], cache, 1, one, 12)
        np.testing.assert_array_equal(alone[0], whole[row, : alone.shape[1]])


# -- what is refused --------------------------------------------------------------------------


def test_native_refusals():
    ops = backends.create("cpu", threads=1)
    case = AttentionCase(4, 2, 32, LATENT, 16, [20], [3])
    cache, q, batch = case.filled(ops, "f16"), case.new_rows(case.queries), case.batch()
    spec = AttentionSpec(4, 2, 32, 32, 0.1)
    for change in ({"value_dim": 33}, {"chunk": -1}, {"window": -1}):
        with pytest.raises(InvalidParameterError):
            ops.attention(q, cache, 1, batch, dataclasses.replace(spec, **change))
    for sinks, bits in (
        (sinks_of(3), None),
        (None, np.zeros((2, 1), np.uint64)),
        (None, np.zeros((3, 0), np.uint64)),
    ):
        with pytest.raises(InvalidParameterError):
            ops.attention(q, cache, 1, batch, spec, sinks, bits)
    weights = np.ones((3, 4), np.float32)
    with pytest.raises(InvalidParameterError, match="one head"):
        ops.top_keys(q, weights, cache, 1, batch, 4)
    single = ops.alloc_kv([KVLayerSpec(1, 32, LATENT)], 4, 16, "f16")
    for width in (3, 0):
        with pytest.raises(InvalidParameterError):
            ops.top_keys(q, weights[:, :width], single, 0, batch, 4)
    with pytest.raises(InvalidParameterError, match="at least one"):
        ops.top_keys(q, weights, single, 0, batch, 0)
    with pytest.raises(InvalidParameterError, match="shape"):
        ops.alloc_kv([KVLayerSpec(1, 577, 64)], 4, 16, "f16")
