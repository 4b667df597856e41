# SPDX-License-Identifier: Apache-2.0
"""Entries made of several positions, attention over a window and entries, the search for entries,
weights of residual streams and choices of experts that are already made: against plain formulas,
and what a row may depend on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from batching import make_batch
from devices import best_params, open_device
from freehold import backends
from freehold.batch import KVTables
from freehold.errors import InvalidParameterError
from freehold.ops import AttentionSpec, KVLayerSpec, RoutingSpec

HEADS, DIM, LENGTH, BLOCK = 5, 32, 45, 16
RATIOS = [(2, True), (3, False), (4, True), (16, False), (20, False), (37, True)]


def activations(rows, width, seed=0):
    """Normal, without outliers: gates that are softmaxes must not all be zero or one."""
    values = np.random.default_rng(seed).standard_normal((rows, width))
    return values.astype(np.float32)


@pytest.fixture(scope="module", params=best_params())
def ops(request):
    return open_device(request.param)


class Setting:
    """A cache with one sequence of random rows, given in pieces."""

    def __init__(self, ops, ratio, overlap, pieces=(LENGTH,)):
        factor = 2 if overlap else 1
        self.ops, self.ratio, self.overlap = ops, ratio, overlap
        self.keys = activations(LENGTH, DIM)
        self.raw, self.gates = (activations(LENGTH, factor * DIM, seed=s) for s in (1, 2))
        self.bias = activations(ratio, factor * DIM, seed=3)
        layers = (
            KVLayerSpec(1, DIM, 0, 9, rows=True),
            KVLayerSpec(1, factor * DIM, factor * DIM, factor * ratio, rows=True),
            KVLayerSpec(1, DIM, 0, rows=True, stride=ratio),
        )
        self.cache = ops.alloc_kv(layers, 8, BLOCK, "f32")
        self.made, start = [], 0
        for count in pieces:
            rows, batch = slice(start, start + count), self.batch(start, count)
            ops.write_kv(self.cache, 0, self.keys[rows], None, batch)
            ops.write_kv(self.cache, 1, self.raw[rows], self.gates[rows], batch)
            self.made.append(ops.compress(self.cache, 1, batch, self.bias, overlap))
            ops.write_kv(self.cache, 2, self.made[-1], None, batch)
            start += count

    def batch(self, start, count, beside=0):
        """These rows of the sequence, and perhaps another one's."""
        ids, past, tables = [[1] * count], [start], [[6, 0, 3]]
        if beside:
            ids, past, tables = [[1] * beside, *ids], [0, *past], [[5, 7], *tables]
        return make_batch(ids, past, tables, BLOCK, num_groups=len(self.cache.num_blocks))

    def entries(self):
        """By the formula, one by one."""
        out = []
        for end in range(self.ratio, LENGTH + 1, self.ratio):
            now = slice(end - self.ratio, end)
            parts = [(self.raw[now], self.gates[now] + self.bias)]
            if self.overlap:
                parts = [(self.raw[now][:, DIM:], (self.gates[now] + self.bias)[:, DIM:])]
                if end > self.ratio:
                    old = slice(end - 2 * self.ratio, end - self.ratio)
                    gates = self.gates[old] + self.bias
                    parts.append((self.raw[old][:, :DIM], gates[:, :DIM]))
            raw, gates = (np.concatenate([p[i] for p in parts]).astype(float) for i in (0, 1))
            shares = np.exp(gates) / np.exp(gates).sum(axis=0)
            out.append((shares * raw).sum(axis=0))
        return np.array(out, np.float32).reshape(-1, DIM)


@pytest.mark.parametrize(("ratio", "overlap"), RATIOS)
def test_entries_follow_the_formula_in_any_pieces(ops, ratio, overlap):
    whole = Setting(ops, ratio, overlap)
    assert len(whole.made[0]) == LENGTH // ratio
    np.testing.assert_allclose(whole.made[0], whole.entries(), rtol=1e-5, atol=1e-6)
    for pieces in ((1,) * LENGTH, (19, 3, 23)):
        parts = Setting(ops, ratio, overlap, pieces)
        np.testing.assert_array_equal(np.concatenate(parts.made), whole.made[0])


SPEC = AttentionSpec(HEADS, 1, DIM, DIM, DIM**-0.5, window=9)


def plain_attention(setting, q, sinks, allowed=None):
    """One softmax over everything a row sees."""
    out, entries = np.empty_like(q), setting.made[0].astype(float)
    for p in range(LENGTH):
        near = setting.keys[max(0, p - 8) : p + 1].astype(float)
        places = range((p + 1) // setting.ratio)
        far = [entries[e] for e in places if allowed is None or e in allowed[p]]
        keys = np.array([*near, *far])
        for h in range(HEADS):
            weights = np.exp(keys @ q[p, h * DIM : (h + 1) * DIM] * SPEC.scale)
            weights /= weights.sum() + np.exp(sinks[h])
            out[p, h * DIM : (h + 1) * DIM] = weights @ keys
    return out


@pytest.mark.parametrize(("ratio", "overlap"), RATIOS)
def test_attention_sees_a_window_and_entries(ops, ratio, overlap):
    setting = Setting(ops, ratio, overlap)
    q, sinks = activations(LENGTH, HEADS * DIM, seed=5), activations(1, HEADS, seed=6)[0]

    def attend(start, count, beside=0):
        rows = np.concatenate([q[:beside], q[start : start + count]])
        batch = setting.batch(start, count, beside)
        return ops.attention_with_entries(rows, setting.cache, 0, 2, batch, SPEC, sinks)[beside:]

    whole = attend(0, LENGTH)
    np.testing.assert_allclose(whole, plain_attention(setting, q, sinks), rtol=1e-4, atol=1e-5)
    for start, count, beside in ((44, 1, 0), (30, 7, 3), (0, 20, 12)):
        np.testing.assert_array_equal(attend(start, count, beside), whole[start : start + count])


def test_blocks_that_nobody_sees_are_not_read(ops):
    """Their table entries may be anything once a window has passed them."""
    setting = Setting(ops, 4, True)
    q, sinks = activations(1, HEADS * DIM, seed=5), np.zeros(HEADS, np.float32)
    batch, spoilt = setting.batch(44, 1), setting.batch(44, 1)
    windows = [KVTables(t.slot_mapping, np.array([[10**6, 10**6, 3]], np.int32))
               for t in spoilt.tables[:2]]  # fmt: skip
    spoilt = dataclasses.replace(spoilt, tables=(*windows, spoilt.tables[2]))
    want = ops.attention_with_entries(q, setting.cache, 0, 2, batch, SPEC, sinks)
    got = ops.attention_with_entries(q, setting.cache, 0, 2, spoilt, SPEC, sinks)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_best_entries_are_found(ops, count):
    setting = Setting(ops, 4, True)
    q, weights = activations(LENGTH, HEADS * DIM, seed=7), activations(LENGTH, HEADS, seed=8)
    bits = ops.top_keys(q, weights, setting.cache, 2, setting.batch(0, LENGTH), count)
    entries, allowed = setting.made[0].astype(float), []
    for p in range(LENGTH):
        scores = np.maximum(entries[: (p + 1) // 4] @ q[p].reshape(HEADS, DIM).T, 0) @ weights[p]
        allowed.append(set(np.argsort(-scores, kind="stable")[:count].tolist()))
        found = {e for e in range(64) if int(bits[p, 0]) >> e & 1}
        assert found == allowed[p], p
    sinks = np.zeros(HEADS, np.float32)
    got = ops.attention_with_entries(
        q, setting.cache, 0, 2, setting.batch(0, LENGTH), SPEC, sinks, bits
    )
    want = plain_attention(setting, q, sinks, allowed)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    one = ops.top_keys(q[44:], weights[44:], setting.cache, 2, setting.batch(44, 1), count)
    np.testing.assert_array_equal(one, bits[44:])


def test_few_entries_need_no_search(ops):
    setting = Setting(ops, 4, True)
    q, weights = activations(LENGTH, HEADS * DIM), activations(LENGTH, HEADS)
    batch = setting.batch(0, LENGTH)
    assert ops.top_keys(q, weights, setting.cache, 2, batch, LENGTH // 4) is None
    with pytest.raises(InvalidParameterError, match="at least one"):
        ops.top_keys(q, weights, setting.cache, 2, batch, 0)


def test_copied_blocks_hold_their_entries(ops):
    setting = Setting(ops, 3, False)
    q, sinks = activations(1, HEADS * DIM), np.zeros(HEADS, np.float32)
    want = ops.attention_with_entries(q, setting.cache, 0, 2, setting.batch(44, 1), SPEC, sinks)
    src, dst = np.array([6, 0, 3], np.int32), np.array([1, 2, 4], np.int32)
    for group in range(len(setting.cache.num_blocks)):
        ops.copy_blocks(setting.cache, group, src, dst)
    moved = make_batch([[1]], [44], [[1, 2, 4]], BLOCK, num_groups=len(setting.cache.num_blocks))
    got = ops.attention_with_entries(q, setting.cache, 0, 2, moved, SPEC, sinks)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("rows", [3, 46])
def test_rows_must_be_those_that_are_due(ops, rows):
    setting = Setting(ops, 4, True)
    with pytest.raises(InvalidParameterError, match="are due"):
        ops.write_kv(setting.cache, 2, setting.keys[:rows], None, setting.batch(0, LENGTH))
    with pytest.raises(InvalidParameterError, match="values go to"):
        ops.write_kv(setting.cache, 1, setting.raw, None, setting.batch(0, LENGTH))


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [2, 4])
def test_stream_weights_are_shares(ops, streams):
    x = activations(9, (2 + streams) * streams)
    base, scale = activations(1, x.shape[1], seed=1)[0], np.array([0.5, 2.0, 1.5], np.float32)
    eps = 1e-6
    gathered, shares = ops.stream_weights(x, base, scale, streams, 20, eps)
    wide = x.astype(float) * np.repeat(scale, [streams, streams, streams**2]) + base
    np.testing.assert_allclose(gathered, 1 / (1 + np.exp(-wide[:, :streams])) + eps, rtol=1e-6)
    table = shares.reshape(9, streams, streams + 1)  # [to, from and made]
    made = 2 / (1 + np.exp(-wide[:, streams : 2 * streams]))
    np.testing.assert_allclose(table[:, :, streams], made, rtol=1e-6)
    mix = table[:, :, :streams]
    # Columns last: what a stream receives sums to one, what it gives nearly so.
    np.testing.assert_allclose(mix.sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(mix.sum(axis=1), 1, rtol=0.02)
    once = ops.stream_weights(x, base, scale, streams, 1, eps)[1]
    raw = np.exp(wide[:, 2 * streams :]).reshape(9, streams, streams)
    raw = raw / raw.sum(axis=2, keepdims=True) + eps
    raw = (raw / (raw.sum(axis=1, keepdims=True) + eps)).transpose(0, 2, 1)
    np.testing.assert_allclose(once.reshape(table.shape)[:, :, :streams], raw, rtol=1e-6)
    head, nothing = ops.stream_weights(x[:, :streams], base[:streams], scale[:1], streams, 20, eps)
    np.testing.assert_array_equal(head, gathered)
    assert nothing is None
    for row in range(9):
        one = ops.stream_weights(x[row : row + 1], base, scale, streams, 20, eps)
        np.testing.assert_array_equal(one[1], shares[row : row + 1])


# -- routing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "sqrt_softplus"])
def test_a_choice_already_made_is_weighed_as_one_found(ops, scoring):
    logits = activations(11, 8)
    spec = RoutingSpec(3, True, 1.5, scoring)
    chosen, weights = ops.route(logits, spec)
    same, again = ops.route(logits, spec, None, chosen)
    np.testing.assert_array_equal(same, chosen)
    np.testing.assert_allclose(again, weights, rtol=1e-6)
    turned = np.ascontiguousarray(chosen[:, ::-1])
    np.testing.assert_allclose(
        ops.route(logits, spec, None, turned)[1], weights[:, ::-1], rtol=1e-6
    )


def test_a_choice_must_be_one_of_experts():
    ops, logits = backends.create("reference"), activations(4, 8)
    for fixed, words in (
        (np.zeros((3, 2), np.int32), "for each of 4 tokens"),
        (np.full((4, 2), 8, np.int32), "from 8 to 8"),
        (np.full((4, 2), -1, np.int32), "from -1"),
    ):
        with pytest.raises(InvalidParameterError, match=words):
            ops.route(logits, RoutingSpec(2, True), None, fixed)
