# SPDX-License-Identifier: Apache-2.0
"""A cache occupies memory as tokens are written to it, not when it is made."""

import numpy as np
import psutil

from freehold import backends
from freehold.batch import ForwardBatch, KVTables
from freehold.ops import KVLayerSpec


def one_token(slot):
    at = np.array([slot], np.int32)
    return ForwardBatch(
        token_ids=at,
        positions=at,
        query_start_loc=np.array([0, 1], np.int32),
        seq_lens=at + 1,
        tables=(KVTables(at, np.zeros((1, 1), np.int32)),),
        logits_rows=np.zeros(1, np.int32),
    )


def test_the_first_token_does_not_occupy_the_whole_cache():
    ops = backends.create("cpu", threads=1)
    layers = [KVLayerSpec(8, 64, 64)] * 8
    before = psutil.Process().memory_info().rss
    cache = ops.alloc_kv(layers, 512, 16, "f16")  # 8192 tokens: 128 MiB
    row = np.ones((1, 8 * 64), np.float32)
    for layer in range(len(layers)):
        ops.write_kv(cache, layer, row, row, one_token(0))
    grown = psutil.Process().memory_info().rss - before
    assert cache.nbytes >= 128 << 20
    assert grown < 16 << 20
