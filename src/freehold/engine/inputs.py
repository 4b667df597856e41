# SPDX-License-Identifier: Apache-2.0
"""Token ids from outside, checked before anything is queued.

They may come from a network: whatever is wrong with them is said by name and costs its own
request only. Knows no engine.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np

from freehold.batch import IntArray
from freehold.errors import ContextLengthError, InvalidParameterError


def check_token_id(token: object, vocab_size: int, where: str) -> None:
    """Raise InvalidParameterError unless `token` is a row of the embedding table."""
    if isinstance(token, bool) or not isinstance(token, numbers.Integral):
        raise InvalidParameterError(f"{where}: a token id is a whole number, not {token!r:.40}")
    value = int(token)
    if not 0 <= value < vocab_size:
        # Thousands of digits are no help to anybody, and Python refuses to print them.
        named = f"token id {value}" if abs(value) < 2**64 else "a token id"
        raise InvalidParameterError(f"{where}: {named} lies outside the vocabulary of {vocab_size}")


def token_array(ids: Sequence[int], vocab_size: int, where: str = "the prompt") -> IntArray:
    """The ids as int32 [len(ids)], each inside the vocabulary."""
    try:
        tokens = np.asarray(ids)
    except (ValueError, OverflowError) as error:  # nested lists of unequal lengths
        raise InvalidParameterError(f"{where} must be a list of token ids") from error
    if tokens.ndim != 1:
        raise InvalidParameterError(f"{where} must be a list of token ids")
    if tokens.dtype.kind not in "iu":  # floats, strings, bools, integers beyond 64 bits
        for token in ids:
            check_token_id(token, vocab_size, where)
        tokens = np.array([int(token) for token in ids], np.int64)
    bad = np.flatnonzero((tokens < 0) | (tokens >= vocab_size))
    if len(bad):
        check_token_id(int(tokens[bad[0]]), vocab_size, where)
    return tokens.astype(np.int32)


def checked_ids(ids: Sequence[int], limit: int, max_length: int, vocab_size: int) -> IntArray:
    """Token ids from outside, at most `limit`. Raises ContextLengthError, InvalidParameterError."""
    if len(ids) == 0:
        raise InvalidParameterError("the prompt is empty", hint="give at least one token")
    if len(ids) > limit:
        raise ContextLengthError(
            f"the prompt has {len(ids)} tokens and the context holds {max_length}, "
            "the answer included",
            hint="shorten the prompt, or raise the context length (--context)",
        )
    return token_array(ids, vocab_size)
