# SPDX-License-Identifier: Apache-2.0
"""Choosing experts, for the backends whose activations are NumPy arrays.

Router logits are few, so float64 costs nothing here and no choice hangs on float32 rounding.
Knows no weights; each row is computed from itself alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError
from freehold.ops import Expert, FloatArray, RoutingSpec, Scoring

Wide = npt.NDArray[np.float64]


def choose_experts(
    logits: FloatArray,
    spec: RoutingSpec,
    bias: FloatArray | None = None,
    fixed: npt.NDArray[np.int32] | None = None,
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """`Ops.route`. Logits that are not numbers come last, and their weights are not numbers.

    Raises InvalidParameterError for a fixed choice that is none of [T, top_k] experts."""
    if fixed is not None:
        _check_fixed(logits, spec, fixed)
    with np.errstate(all="ignore"):
        wide = logits.astype(np.float64)
        scores = _scores(wide, spec.scoring)
        if bias is not None or spec.num_groups > 1:
            keys = scores if bias is None else scores + bias.astype(np.float64)
            keys = _best_groups(keys, spec)
        else:
            keys = wide  # sorting these, not scores, keeps apart what underflows to zero
        if fixed is None:
            chosen = np.argsort(-keys, axis=1, kind="stable")[:, : spec.top_k]
        else:
            chosen = fixed.astype(np.int64)
        weights = np.take_along_axis(scores, chosen, axis=1)
        if spec.normalise:
            # A softmax of these alone: what they are beside the rest cannot make them all zero.
            if spec.scoring == "softmax":
                weights = _scores(np.take_along_axis(wide, chosen, axis=1), "softmax")
            else:
                weights = weights / (weights.sum(axis=1, keepdims=True) + 1e-20)
        weights = weights * spec.scale
    return chosen.astype(np.int32), weights.astype(np.float32)


def _check_fixed(logits: FloatArray, spec: RoutingSpec, fixed: npt.NDArray[np.int32]) -> None:
    if fixed.shape != (len(logits), spec.top_k):
        raise InvalidParameterError(
            f"{spec.top_k} experts for each of {len(logits)} tokens are no array {fixed.shape}"
        )
    if fixed.size and not 0 <= int(fixed.min()) <= int(fixed.max()) < logits.shape[1]:
        raise InvalidParameterError(
            f"expert ids run from {fixed.min()} to {fixed.max()}, "
            f"but there are {logits.shape[1]} experts"
        )


def _scores(logits: Wide, scoring: Scoring) -> Wide:
    if scoring == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    if scoring == "sqrt_softplus":
        return np.sqrt(np.logaddexp(0.0, logits))
    powers = np.exp(logits - np.fmax.reduce(logits, axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _best_groups(keys: Wide, spec: RoutingSpec) -> Wide:
    """`keys` with -inf for the experts of groups that were not chosen."""
    if spec.top_groups >= spec.num_groups:
        return keys
    groups = keys.reshape(len(keys), spec.num_groups, -1)  # [T, G, E / G]
    known = np.where(np.isnan(groups), -np.inf, groups)
    if spec.group_score == "sum2":
        best = np.sort(known, axis=2)[..., -2:].sum(axis=2)
    else:
        best = known.max(axis=2)
    chosen = np.argsort(-best, axis=1, kind="stable")[:, : spec.top_groups]
    hidden = np.full(best.shape, True)
    np.put_along_axis(hidden, chosen, False, axis=1)
    return np.where(hidden[..., None], -np.inf, groups).reshape(keys.shape)


def check_choice(
    x: FloatArray,
    experts: Sequence[Expert],
    chosen: npt.NDArray[np.int32],
    weights: FloatArray,
) -> None:
    """What `Ops.moe` asks of its arguments. Raises InvalidParameterError where shapes disagree or
    an id is no expert."""
    if chosen.shape != weights.shape or chosen.ndim != 2 or chosen.shape[1] == 0:
        raise InvalidParameterError(
            f"chosen experts {chosen.shape} and their weights {weights.shape} must both be [T, S]"
        )
    if len(chosen) != len(x):
        raise InvalidParameterError(f"experts were chosen for {len(chosen)} of {len(x)} tokens")
    if chosen.size and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(experts):
        raise InvalidParameterError(
            f"expert ids run from {chosen.min()} to {chosen.max()}, "
            f"but there are {len(experts)} experts"
        )
