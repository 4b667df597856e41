# SPDX-License-Identifier: Apache-2.0
"""What the engine refuses before it starts: prompts and settings that do not fit the model.

`SamplingParams` has checked what can be checked without a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from freehold.errors import ContextLengthError, InvalidParameterError
from freehold.types import SamplingParams


def check_prompt(ids: Sequence[int], vocab_size: int, limit: int) -> npt.NDArray[np.int32]:
    """The prompt as an own array, [T] int32.

    Raises InvalidParameterError for an empty prompt or an id outside the vocabulary, and
    ContextLengthError for more than `limit` tokens.
    """
    if not len(ids):
        raise InvalidParameterError("the prompt is empty", hint="give at least one token")
    if len(ids) > limit:
        raise ContextLengthError(
            f"the prompt has {len(ids):,} tokens and at most {max(0, limit):,} fit",
            hint="shorten the prompt or raise context_length",
        )
    raw = np.asarray(ids)
    if raw.ndim != 1 or raw.dtype.kind not in "iu":
        raise InvalidParameterError("token ids must be a flat list of whole numbers")
    outside = np.flatnonzero((raw < 0) | (raw >= vocab_size))
    if len(outside):
        at = int(outside[0])
        raise InvalidParameterError(
            f"token id {int(raw[at])} at position {at} is outside the vocabulary of {vocab_size:,}"
        )
    return raw.astype(np.int32)


def check_params(params: SamplingParams, vocab_size: int) -> None:
    """Raise InvalidParameterError for token ids the model does not have."""
    for name in ("logit_bias", "stop_token_ids"):
        for token in getattr(params, name):
            if not 0 <= token < vocab_size:
                raise InvalidParameterError(
                    f"{name} names token {token}, outside the vocabulary of {vocab_size:,}"
                )
