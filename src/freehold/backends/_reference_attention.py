# SPDX-License-Identifier: Apache-2.0
"""What attention and the search for keys mean: NumPy, float64 inside.

Knows one sequence at a time, its keys and values already gathered into rows that follow each
other; knows nothing of blocks, of how a cache stores numbers, or of speed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.ops import AttentionSpec, FloatArray

WORD = 64  # positions per word of a selection
Bits = npt.NDArray[np.uint64]


def first_visible(position: int, spec: AttentionSpec) -> int:
    """The earliest position a query at `position` may see."""
    window = position - spec.window + 1 if spec.window > 0 else 0
    chunk = position // spec.chunk * spec.chunk if spec.chunk > 0 else 0
    return max(window, chunk, 0)


def attend(
    q: FloatArray,  # [T, heads · head_dim]
    keys: FloatArray,  # [L, kv_heads, head_dim]
    values: FloatArray,  # [L, kv_heads, value_dim]
    first: int,  # position of keys[0]
    positions: npt.NDArray[np.int32],  # [T]
    spec: AttentionSpec,
    sinks: FloatArray | None,  # [heads]
    selected: Bits | None,  # [T, words]
) -> FloatArray:
    """softmax(cap(q·k·scale) + mask)·v of one sequence: [T, heads · value_dim]."""
    group = spec.num_heads // spec.num_kv_heads
    queries = q.reshape(len(q), spec.num_kv_heads, group, spec.head_dim).astype(np.float64)
    hidden = _hidden(first, len(keys), positions, spec)  # [T, L]
    if selected is not None:
        hidden |= ~spread(selected, first + len(keys))[:, first:]
    # A key no row sees counts for nothing, even where its stored value is not a number.
    unseen = np.logical_and.reduce(hidden, axis=0)[:, None]  # [L, 1]
    shape = (spec.num_kv_heads, group, 1)
    logits = None if sinks is None else np.reshape(sinks, shape).astype(np.float64)
    out = np.empty((len(q), spec.num_kv_heads, group, spec.value_dim), dtype=np.float32)
    with np.errstate(all="ignore"):
        for head in range(spec.num_kv_heads):
            scores = queries[:, head] @ keys[:, head].astype(np.float64).T  # [T, group, L]
            scores *= spec.scale
            if spec.softcap > 0:
                scores = spec.softcap * np.tanh(scores / spec.softcap)
            scores = np.where(hidden[:, None, :], -np.inf, scores)
            top = scores.max(axis=-1, keepdims=True)
            if logits is not None:
                top = np.maximum(top, logits[head])
            weights = np.exp(scores - top)
            total = weights.sum(axis=-1, keepdims=True)
            if logits is not None:
                total = total + np.exp(logits[head] - top)
            weights /= total
            out[:, head] = weights @ np.where(unseen, 0.0, values[:, head].astype(np.float64))
    return out.reshape(len(q), -1)


def search(
    q: FloatArray,  # [T, heads · key_dim]
    weights: FloatArray,  # [T, heads]
    keys: FloatArray,  # [L, key_dim]
    positions: npt.NDArray[np.int32],  # [T]
    count: int,
    words: int,
) -> Bits:
    """`Ops.top_keys` of one sequence: bits [T, words]."""
    with np.errstate(all="ignore"):
        heads = q.reshape(len(q), weights.shape[1], -1).astype(np.float64)
        scores = np.maximum(heads @ keys.astype(np.float64).T, 0.0)  # [T, heads, L]
        total = np.einsum("th,thl->tl", weights.astype(np.float64), scores)
    total[np.isnan(total)] = -np.inf
    bits = np.zeros((len(q), words), dtype=np.uint64)
    for row, position in enumerate(positions):
        order = np.argsort(-total[row, : int(position) + 1], kind="stable")[:count]
        marks = np.uint64(1) << (order % WORD).astype(np.uint64)
        np.bitwise_or.at(bits[row], order // WORD, marks)
    return bits


def spread(bits: Bits, length: int) -> npt.NDArray[np.bool_]:
    """Selection bits as booleans: [T, length]."""
    inside = np.arange(WORD, dtype=np.uint64)
    flags = (bits[:, :, None] >> inside) & np.uint64(1)
    return np.asarray(flags.reshape(len(bits), -1)[:, :length] != 0)


def _hidden(
    first: int, length: int, positions: npt.NDArray[np.int32], spec: AttentionSpec
) -> npt.NDArray[np.bool_]:
    """Which keys no query may look at: [T, L]."""
    places = np.arange(first, first + length, dtype=np.int64)
    lowest = np.array([first_visible(int(p), spec) for p in positions], dtype=np.int64)
    return np.asarray((places > positions[:, None]) | (places < lowest[:, None]))
