# SPDX-License-Identifier: Apache-2.0
"""Labels instead of answers: how likely a model is to answer with each of some texts.

Nothing is decoded. Each label is scored as a continuation of the prompt, so all labels of a prompt
share its computation. Token ids and log-likelihoods in, probabilities out; knows no engine.

With s the log-likelihood of a label, divided by its tokens under ``normalization="tokens"``:

* p = softmax(s / temperature) over the labels.
* With content-free prompts, which ask the same of no document ("N/A", say), each label's s is
  lessened by the logarithm of its mean probability over those (Zhao et al. 2021, "Calibrate Before
  Use", as a difference of logarithms): what the model would have said anyway does not count.

Whether such a probability is right as often as it says is a matter of the model. A temperature
fitted on labelled examples (Guo et al. 2017) mends much of what is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from freehold._llm_inputs import common_prefix
from freehold._llm_tokens import Tokens
from freehold.chat.tokenizer import Tokenizer
from freehold.engine.measuring import Measurement
from freehold.errors import InvalidParameterError
from freehold.ops import FloatArray
from freehold.types import Classification, LabelScore, Prompt

Normalization: TypeAlias = Literal["none", "tokens"]
_NEVER = -1e6
_Doubles: TypeAlias = npt.NDArray[np.float64]


def checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Raise InvalidParameterError unless they are two or more different texts."""
    found = tuple(labels)
    if not all(isinstance(label, str) and label for label in found):
        raise InvalidParameterError("a label is a text that is not empty")
    if len(found) < 2 or len(set(found)) < len(found):
        raise InvalidParameterError("labels must be two or more different texts")
    return found


def label_measurements(
    tokenizer: Tokenizer, prompt: Prompt, labels: Sequence[str], endings: tuple[int, ...]
) -> list[Measurement]:
    """One score for each label.

    Behind a text, prompt and label are split into tokens together; where a label's first letters
    join the prompt's last token, all labels are scored from that token on, for otherwise they could
    not be compared. Behind token ids, a label is spelled byte for byte.
    """
    if isinstance(prompt, str):
        alone = tokenizer.encode(prompt)
        wholes = [tokenizer.encode(prompt + label) for label in labels]
        first = min((common_prefix(alone, whole) for whole in wholes), default=0)
    else:
        begin = list(prompt)
        wholes = [[*begin, *spelled(tokenizer, label)] for label in labels]
        first = len(begin)
    if first < 1:
        raise InvalidParameterError(
            "labels need a prompt before them", hint="give a text of at least one token"
        )
    return [Measurement(ids, "scores", first, endings) for ids in wholes]


def spelled(tokenizer: Tokenizer, label: str) -> list[int]:
    """Ids of a label behind token ids: byte for byte where the tokenizer can."""
    exact = tokenizer.encode_exactly(label)
    return tokenizer.encode(label, add_special=False) if exact is None else exact


@dataclass(frozen=True, slots=True)
class LabelTask:
    """Prompts and labels as what the engine is asked, and its numbers as classifications."""

    labels: tuple[str, ...]
    measurements: tuple[Measurement, ...]  # prompt by prompt, in each label by label
    num_content_free: int  # prompts at the end that serve calibration
    normalization: Normalization
    temperature: float

    def __post_init__(self) -> None:
        if self.normalization not in ("none", "tokens"):
            raise InvalidParameterError(
                f"normalization must be none or tokens, not {self.normalization!r:.40}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InvalidParameterError("temperature must be a finite number above 0")

    def results(self, numbers: Sequence[FloatArray]) -> list[Classification]:
        """One classification per prompt, content-free ones apart; numbers in the order of the
        measurements."""
        width = len(self.labels)
        rows = [numbers[at : at + width] for at in range(0, len(numbers), width)]
        prompts = rows[: len(rows) - self.num_content_free]
        prior: _Doubles | None = None
        if self.num_content_free:
            free = [_softmax(self._scores(row)) for row in rows[len(prompts) :]]
            # What never happens has no logarithm; the least double stands for it.
            prior = np.log(np.maximum(np.mean(free, axis=0), np.finfo(np.float64).tiny))
        return [self._result(row, prior) for row in prompts]

    def _scores(self, row: Sequence[FloatArray]) -> _Doubles:
        """One number per label."""
        # What never happens is as good as what hardly does, and makes no infinities to subtract.
        sums = np.maximum([tokens.sum(dtype=np.float64) for tokens in row], _NEVER)
        if self.normalization == "tokens":
            sums = sums / np.array([len(tokens) for tokens in row])
        return sums

    def _result(self, row: Sequence[FloatArray], prior: _Doubles | None) -> Classification:
        scores = self._scores(row)
        if prior is not None:
            scores = scores - prior
        chances = _softmax(scores / self.temperature)
        logprobs = [float(tokens.sum(dtype=np.float64)) for tokens in row]
        return Classification(
            scores=tuple(
                LabelScore(
                    label=label,
                    probability=float(chances[i]),
                    logprob=logprobs[i],
                    num_tokens=len(row[i]),
                    prior=None if prior is None else float(prior[i]),
                )
                for i, label in enumerate(self.labels)
            ),
            coverage=min(1.0, math.fsum(math.exp(logprob) for logprob in logprobs)),
        )


def label_task(
    tokens: Tokens, prompts: Sequence[Prompt], labels: Sequence[str], *, ends: bool,
    content_free: Sequence[Prompt], normalization: Normalization, temperature: float,
) -> LabelTask:  # fmt: skip
    """The task of classifying these prompts; see `LLM.classify`."""
    labels = checked_labels(labels)
    wanted = _behind(tokens, (*prompts, *content_free), labels, ends)
    return LabelTask(labels, tuple(wanted), len(content_free), normalization, temperature)


def labels_after(
    tokens: Tokens, prompt: Prompt, labels: Sequence[str], *, ends: bool
) -> list[Measurement]:
    """One score for each label; with `ends`, as an answer that is over then."""
    return _behind(tokens, [prompt], checked_labels(labels), ends)


def _behind(
    tokens: Tokens, prompts: Sequence[Prompt], labels: Sequence[str], ends: bool
) -> list[Measurement]:
    endings = tokens.endings() if ends else ()
    return [
        measurement
        for prompt in prompts
        for measurement in label_measurements(tokens.tokenizer, prompt, labels, endings)
    ]


def _softmax(scores: _Doubles) -> _Doubles:
    powers = np.exp(scores - scores.max())
    result: _Doubles = powers / powers.sum()
    return result
