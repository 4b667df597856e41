# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of tokens under the untouched model distribution.

Works on raw logits, before any sampler, bias or mask.
"""

from __future__ import annotations

import numpy as np

from freehold.batch import IntArray
from freehold.engine.selection import log_sum_exp, top_indices
from freehold.ops import FloatArray
from freehold.types import TokenLogprob


def token_logprob(logits: FloatArray, token: int, num_top: int) -> TokenLogprob:
    """`token` under softmax(logits [vocab]), its rank, and the `num_top` best, best first.

    The rank is one more than the number of tokens with a strictly larger logit.
    """
    norm = log_sum_exp(logits)
    rank = int(np.count_nonzero(logits > logits[token])) + 1
    best = top_indices(logits, num_top)
    best = best[np.argsort(-logits[best], kind="stable")]
    top = tuple((int(i), float(logits[i]) - norm) for i in best)
    return TokenLogprob(token, float(logits[token]) - norm, rank, top)


def target_logprobs(logits: FloatArray, targets: IntArray) -> FloatArray:
    """log softmax(logits [R, vocab]) at one target id per row: [R] float32."""
    norms = np.array([log_sum_exp(row) for row in logits])
    picked = logits[np.arange(len(logits)), targets].astype(np.float64)
    result: FloatArray = (picked - norms).astype(np.float32)
    return result


def log_chances(logits: FloatArray, tokens: IntArray) -> FloatArray:
    """log softmax(logits [vocab]) at some ids, in the very steps of `target_logprobs`, so that both
    ways give the same bits: [len(tokens)] float32."""
    result: FloatArray = (logits[tokens].astype(np.float64) - log_sum_exp(logits)).astype(
        np.float32
    )
    return result


def any_logprob(logits: FloatArray, tokens: IntArray) -> float:
    """log of the probability that one of `tokens` comes next, under softmax(logits [vocab])."""
    return log_sum_exp(logits[tokens]) - log_sum_exp(logits)
