# SPDX-License-Identifier: Apache-2.0
"""From what a model says of labels to how often it is right: a temperature and biases, fitted.

p = softmax(s / temperature + bias), s being log-probabilities, with the two fitted on labelled
examples by maximum likelihood (Guo et al. 2017, "On Calibration of Modern Neural Networks": their
temperature, and vector scaling without its scales). A bias costs (bias / 2)² / 2, so that a label
with few examples keeps close to none. Numbers in, numbers out: knows no document and no model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold.errors import InvalidParameterError

_Doubles: TypeAlias = npt.NDArray[np.float64]

_FOLDS = 5
_BINS = 15
_MOST_BIASES = 512  # the fit takes the cube of it
_EXAMPLES_PER_BIAS = 4  # with fewer on average, only the temperature is fitted
_SPREAD = 2.0  # of biases that are nothing out of the ordinary
_STEPS = 50
_CLIP = -200.0  # a score below says no more, and would drown the others in a fit
_COLDEST, _HOTTEST = 0.01, 100.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted, and how well it does on examples it was not fitted on (`error`)."""

    temperature: float
    biases: tuple[float, ...]  # one per label; () for none
    examples: int = 0
    error_before: float = math.nan  # expected calibration error
    error: float = math.nan  # the same afterwards, each fifth judged by a fit on the others
    accuracy_before: float = math.nan
    accuracy: float = math.nan

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InvalidParameterError("a temperature is a finite number above 0")
        if not all(map(math.isfinite, self.biases)):
            raise InvalidParameterError("a bias is a finite number")

    def check(self, count: int) -> None:
        """Raise InvalidParameterError unless it is made for so many labels."""
        if self.biases and len(self.biases) != count:
            raise InvalidParameterError(
                f"the calibration has {len(self.biases):,} biases and there are {count:,} labels"
            )

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values; what was not measured is null."""
        return {
            "temperature": self.temperature,
            "biases": list(self.biases),
            "examples": self.examples,
            **{
                name: None if math.isnan(getattr(self, name)) else getattr(self, name)
                for name in ("error_before", "error", "accuracy_before", "accuracy")
            },
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """What `as_json` gave."""
        measured = {
            name: math.nan if values.get(name) is None else float(values[name])
            for name in ("error_before", "error", "accuracy_before", "accuracy")
        }
        biases = tuple(float(bias) for bias in values["biases"])
        return cls(float(values["temperature"]), biases, int(values["examples"]), **measured)


def probabilities(
    logprobs: Sequence[float], calibration: Calibration | None = None
) -> tuple[list[float], float]:
    """Chances of the labels, and how likely the model says any of them."""
    scores = np.asarray(logprobs, np.float64)
    coverage = min(1.0, float(np.exp(scores).sum()))
    if calibration is not None:
        scores = scores / calibration.temperature
        if calibration.biases:
            scores = scores + np.asarray(calibration.biases)
    return [float(chance) for chance in _softmax(scores[None])[0]], coverage


def fit(logprobs: Sequence[Sequence[float]], truths: Sequence[int]) -> Calibration:
    """Temperature and biases for rows of scores with the index of the right label of each.

    Raises InvalidParameterError for fewer than ten rows.
    """
    if len(logprobs) < 10 or len(logprobs) != len(truths):
        raise InvalidParameterError(
            f"{len(logprobs)} labelled examples are too few to calibrate with",
            hint="give ten or more; some hundreds are good",
        )
    scores = np.maximum(np.asarray(logprobs, np.float64), _CLIP)
    right = np.asarray(truths, np.int64)
    count = scores.shape[1]
    biased = count <= _MOST_BIASES and len(scores) >= _EXAMPLES_PER_BIAS * count
    after = np.empty_like(scores)
    folds = np.arange(len(scores)) % _FOLDS
    for fold in range(_FOLDS):
        inverse, bias = _fitted(scores[folds != fold], right[folds != fold], biased)
        after[folds == fold] = _softmax(scores[folds == fold] * inverse + bias)
    inverse, bias = _fitted(scores, right, biased)
    before = _softmax(scores)
    return Calibration(
        temperature=1.0 / inverse,
        biases=tuple(float(b) for b in bias) if biased else (),
        examples=len(scores),
        error_before=calibration_error(before, right),
        error=calibration_error(after, right),
        accuracy_before=float((before.argmax(1) == right).mean()),
        accuracy=float((after.argmax(1) == right).mean()),
    )


def calibration_error(chances: _Doubles, truths: npt.NDArray[np.int64]) -> float:
    """Expected calibration error: how far, on average over 15 bins of the best label's probability,
    that is from how often it was right. chances [n, labels]."""
    sure = chances.max(1)
    right = chances.argmax(1) == truths
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [
        abs(float(sure[bins == b].mean()) - float(right[bins == b].mean())) * int((bins == b).sum())
        for b in range(_BINS)
        if (bins == b).any()
    ]
    return sum(gaps) / len(sure)


def _fitted(scores: _Doubles, right: npt.NDArray[np.int64], biased: bool) -> tuple[float, _Doubles]:
    """1 / temperature and biases [labels] of the likeliest fit, by Newton's method: the loss is
    convex in them."""
    count = scores.shape[1]
    size = 1 + (count if biased else 0)
    truth = np.zeros_like(scores)
    truth[np.arange(len(scores)), right] = 1.0
    values = np.zeros(size)
    values[0] = 1.0
    loss = _loss(values, scores, truth)
    for _ in range(_STEPS):
        gradient, curvature = _slopes(values, scores, truth)
        step = np.linalg.solve(curvature + 1e-9 * np.eye(size), gradient)
        scale = 1.0
        while scale > 1e-6:
            tried = values - scale * step
            tried[0] = min(max(tried[0], 1 / _HOTTEST), 1 / _COLDEST)
            found = _loss(tried, scores, truth)
            if found < loss:
                break
            scale /= 2
        else:
            break
        done = loss - found < 1e-9 * abs(loss)
        values, loss = tried, found
        if done:
            break
    return float(values[0]), values[1:] if biased else np.zeros(count)


def _loss(values: _Doubles, scores: _Doubles, truth: _Doubles) -> float:
    logits = scores * values[0] + (values[1:] if len(values) > 1 else 0.0)
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return float(-(truth * logs).sum() + (values[1:] ** 2).sum() / (2 * _SPREAD**2))


def _slopes(values: _Doubles, scores: _Doubles, truth: _Doubles) -> tuple[_Doubles, _Doubles]:
    """First and second derivatives of the loss."""
    chances = _softmax(scores * values[0] + (values[1:] if len(values) > 1 else 0.0))
    off = chances - truth
    mean = (chances * scores).sum(1, keepdims=True)
    size = len(values)
    gradient, curvature = np.empty(size), np.empty((size, size))
    gradient[0] = (off * scores).sum()
    curvature[0, 0] = (chances * (scores - mean) ** 2).sum()
    if size > 1:
        gradient[1:] = off.sum(0) + values[1:] / _SPREAD**2
        curvature[0, 1:] = curvature[1:, 0] = (chances * (scores - mean)).sum(0)
        curvature[1:, 1:] = np.diag(chances.sum(0) + 1 / _SPREAD**2) - chances.T @ chances
    return gradient, curvature


def _softmax(scores: _Doubles) -> _Doubles:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: _Doubles = powers / powers.sum(axis=1, keepdims=True)
    return result
