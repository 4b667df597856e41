# SPDX-License-Identifier: Apache-2.0
"""Choosing experts, for the backends whose activations are NumPy arrays.

Router logits are few, so float64 costs nothing here and no choice hangs on float32 rounding.
Knows no weights; each row is computed from itself alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError
from freehold.ops import FloatArray, RoutingSpec


def choose_experts(
    logits: FloatArray, spec: RoutingSpec
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """`Ops.route`. Logits that are not numbers come last, and their weights are not numbers."""
    # Sorting the logits, not their softmax, keeps apart what underflows to zero.
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, : spec.top_k]
    with np.errstate(all="ignore"):
        scores = logits.astype(np.float64)
        # The largest logit is the first chosen, unless one is not a number: then all is lost.
        scores = np.exp(scores - np.take_along_axis(scores, chosen[:, :1], axis=1))
        weights = np.take_along_axis(scores, chosen, axis=1)
        over = weights if spec.normalise else scores
        weights = weights / over.sum(axis=1, keepdims=True) * spec.scale
    return chosen.astype(np.int32), weights.astype(np.float32)


def check_experts(chosen: npt.NDArray[np.int32], num_experts: int) -> None:
    """Raises InvalidParameterError for an id that is no expert."""
    if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < num_experts:
        raise InvalidParameterError(
            f"expert ids run from {chosen.min()} to {chosen.max()}, "
            f"but there are {num_experts} experts"
        )
