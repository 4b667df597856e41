# SPDX-License-Identifier: Apache-2.0
"""The nouns a caller meets: messages, sampling parameters, completions, stream events.

Text goes in and comes out here; token arrays and caches live elsewhere.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from freehold.errors import InvalidParameterError

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "abort"]
# A chat message as every client already writes it: {"role": ..., "content": ...}.
Message: TypeAlias = Mapping[str, Any]

SAMPLER_ORDER: tuple[str, ...] = (
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical_p",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
MAX_LOGPROBS = 1000


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Every default leaves the model's distribution alone.

    ``temperature=0`` means greedy. Samplers run in `sampler_order`; a sampler whose parameter
    is at its neutral value does nothing.
    """

    max_tokens: int | None = None  # None = to the end of the context
    temperature: float = 1.0
    top_k: int = 0  # 0 = off
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = 0.0  # 0 = off; keep logits within n standard deviations of the best
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = -1  # tokens looked back at; -1 = the whole context, 0 = off
    dry_multiplier: float = 0.0  # 0 = off
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    sampler_order: tuple[str, ...] = SAMPLER_ORDER
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0  # end tokens are forbidden before
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None  # alternatives reported per token; 0 = the chosen one only
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        _normalise(self)
        _check_types(self)

        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise _bad(self, name, rule)

        need(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "at least 1")
        need(0.0 <= self.temperature <= 100.0, "temperature", "between 0 and 100")
        need(self.top_k >= 0, "top_k", "0 (off) or more")
        need(0.0 < self.top_p <= 1.0, "top_p", "above 0 and at most 1")
        need(0.0 <= self.min_p <= 1.0, "min_p", "between 0 and 1")
        need(0.0 < self.typical_p <= 1.0, "typical_p", "above 0 and at most 1")
        need(self.top_n_sigma >= 0.0, "top_n_sigma", "0 (off) or more")
        need(0.0 <= self.xtc_probability <= 1.0, "xtc_probability", "between 0 and 1")
        need(0.0 <= self.xtc_threshold <= 1.0, "xtc_threshold", "between 0 and 1")
        need(self.repetition_penalty > 0.0, "repetition_penalty", "above 0")
        need(self.penalty_last_n >= -1, "penalty_last_n", "-1 or more")
        need(self.dry_multiplier >= 0.0, "dry_multiplier", "0 (off) or more")
        need(self.dry_base >= 1.0, "dry_base", "1 or more")
        need(self.dry_allowed_length >= 1, "dry_allowed_length", "1 or more")
        need(self.dry_penalty_last_n >= -1, "dry_penalty_last_n", "-1 or more")
        need(self.min_tokens >= 0, "min_tokens", "0 or more")
        need(
            sorted(self.sampler_order) == sorted(set(self.sampler_order))
            and set(self.sampler_order) <= set(SAMPLER_ORDER),
            "sampler_order",
            f"distinct names out of {', '.join(SAMPLER_ORDER)}",
        )
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            need(value is None or 0 <= value <= MAX_LOGPROBS, name, f"between 0 and {MAX_LOGPROBS}")
        need(self.seed is None or 0 <= self.seed < 2**64, "seed", "an unsigned 64-bit integer")


# Fields by what they hold. Requests come from the network: a string, a bool or a NaN where a
# number belongs is refused by name and never reaches arithmetic.
_FLOATS = (
    "temperature", "top_p", "min_p", "typical_p", "top_n_sigma", "xtc_probability",
    "xtc_threshold", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "dry_multiplier", "dry_base",
)  # fmt: skip
_INTS = ("top_k", "penalty_last_n", "dry_allowed_length", "dry_penalty_last_n", "min_tokens")
_OPTIONAL_INTS = ("max_tokens", "seed", "logprobs", "prompt_logprobs")
_TEXTS = ("stop", "dry_sequence_breakers", "sampler_order")


def _bad(params: SamplingParams, name: str, rule: str) -> InvalidParameterError:
    value = repr(getattr(params, name))
    shown = value if len(value) <= 80 else value[:79] + "…"
    return InvalidParameterError(f"{name} must be {rule}, not {shown}")


def _is_whole(value: Any) -> bool:
    # NumPy's integers count; True and False do not, although Python lets them.
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    # Comparing, not isfinite: that one overflows on an integer beyond the range of float.
    return real and -sys.float_info.max <= value <= sys.float_info.max


def _normalise(params: SamplingParams) -> None:
    """Sequences become tuples; a lone stop string is one stop string, not its letters."""
    stop: Any = params.stop
    if isinstance(stop, str):
        object.__setattr__(params, "stop", (stop,))
    for name in (*_TEXTS, "stop_token_ids"):
        value = getattr(params, name)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise _bad(params, name, "a list")
        object.__setattr__(params, name, tuple(value))


def _check_types(params: SamplingParams) -> None:
    for name in _FLOATS:
        if not _is_number(getattr(params, name)):
            raise _bad(params, name, "a finite number")
    for name in (*_INTS, *_OPTIONAL_INTS):
        value = getattr(params, name)
        if not (_is_whole(value) or (value is None and name in _OPTIONAL_INTS)):
            raise _bad(params, name, "a whole number")
    for name in _TEXTS:
        if not all(isinstance(text, str) and text for text in getattr(params, name)):
            raise _bad(params, name, "non-empty strings")
        if any("\ud800" <= c <= "\udfff" for text in getattr(params, name) for c in text):
            raise _bad(params, name, "text without lone surrogates, which no encoding has")
    if not all(_is_whole(token) and token >= 0 for token in params.stop_token_ids):
        raise _bad(params, "stop_token_ids", "token ids")
    if not isinstance(params.ignore_eos, bool):
        raise _bad(params, "ignore_eos", "true or false")
    rule = "a mapping from token id to a finite number or -inf"
    if not isinstance(params.logit_bias, Mapping):
        raise _bad(params, "logit_bias", rule)
    for token, bias in params.logit_bias.items():
        if not _is_whole(token) or not (_is_number(bias) or bias == -math.inf):
            raise _bad(params, "logit_bias", rule)


GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural-log probability of one token under the untouched model distribution."""

    token_id: int
    logprob: float
    rank: int  # 1 = most probable
    top: tuple[tuple[int, float], ...] = ()  # (token id, logprob), best first


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One whole call. `arguments` is JSON text of an object; `id` is "" where none was given."""

    index: int
    name: str
    arguments: str
    id: str = ""


NoteKind = Literal[
    "truncated",  # the answer ended inside a call
    "bad_syntax",  # what stands where a call should be is not written like one
    "bad_name",  # no name, or none that a tool could have
    "bad_arguments",  # arguments that are no object
    "too_deep",
    "too_long",
    "stray_text",  # a sound call, and something behind it that belongs to nothing
    "unclosed_reasoning",  # the answer ended before its reasoning did
]


@dataclass(frozen=True, slots=True)
class ParseNote:
    """What was not as the format wants it. Nothing is lost: its text is in the content."""

    kind: NoteKind
    message: str


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished answer.

    `reasoning`, `tool_calls` and `notes` are filled where the answer was parsed (`LLM.chat`);
    `text` is what remains then.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    prompt_token_ids: tuple[int, ...]
    cached_tokens: int = 0  # prompt tokens whose keys were found in the prefix cache
    forced_tokens: int = 0  # of the answer's, those its form left no choice about
    stop_reason: str | int | None = None  # the stop string or end token that ended it
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None  # first is None
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    notes: tuple[ParseNote, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one of several labels fares as the answer to a prompt."""

    label: str
    probability: float  # among the labels, after calibration and temperature
    logprob: float  # of the model answering with it: the sum over its tokens, natural logarithm
    num_tokens: int  # that were scored, the end of the answer included where it was asked for
    prior: float | None = None  # natural logarithm of its probability among the labels without text


@dataclass(frozen=True, slots=True)
class Classification:
    """One prompt and all labels.

    `coverage` is the probability the model itself gives to answering with any of the labels: near
    0, it would have said something else, and the probabilities compare what it did not mean.
    """

    scores: tuple[LabelScore, ...]  # in the order of the labels
    coverage: float

    @property
    def label(self) -> str:
        """The likeliest; the first of equals."""
        return max(self.scores, key=lambda score: score.probability).label


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """A piece of a running answer; the last one carries the whole as `completion`."""

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    completion: Completion | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()  # calls that became whole
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None  # with the first event


Prompt: TypeAlias = str | Sequence[int]

ConstraintKind = Literal["json", "json_schema", "regex", "choice", "lark", "grounded"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What form an answer must have.

    `value` is the schema (a mapping or true/false) for "json_schema", the pattern for "regex", the
    texts to choose from for "choice", the grammar for "lark", and None for "json": any object. For
    "grounded" it is a mapping of ``schema`` and ``text``, from which the schema's marked strings
    are copied word for word (`chat.grounded_json`).
    """

    kind: ConstraintKind
    value: Any = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools may, must or must not be called, and which."""

    mode: str = "auto"  # "auto", "none", "required" or "named"
    name: str | None = None  # of the one tool, with "named"
    parallel: bool = True  # several calls in one answer
