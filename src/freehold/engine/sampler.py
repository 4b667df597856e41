# SPDX-License-Identifier: Apache-2.0
"""The next token of one sequence: bias, mask and samplers in order, then one draw.

Owns the per-sequence state (random numbers, token counts), so a choice depends on the
sequence's own logits, settings and past alone, never on the batch or on drafts. What each
sampler does is defined in `samplers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt

from freehold.engine import samplers
from freehold.engine.samplers import MAX_CHANGE, Candidates
from freehold.engine.selection import IndexArray
from freehold.engine.sequence import LogitsProcessor
from freehold.errors import EngineError, FreeholdError, InvalidParameterError
from freehold.ops import FloatArray
from freehold.types import SamplingParams

TokenBytes = Callable[[int], bytes]


class TokenCounts:
    """How often each token occurs in the last `last_n` tokens (-1 = all), kept up to date."""

    def __init__(self, context: npt.NDArray[np.int32], vocab_size: int, last_n: int) -> None:
        self._last_n = last_n
        window = context if last_n < 0 else context[max(0, len(context) - last_n) :]
        self._counts = np.bincount(window, minlength=vocab_size)
        self._seen = list(np.flatnonzero(self._counts).tolist())
        self._listed = set(self._seen)
        self._ids: IndexArray | None = None

    def append(self, token: int, leaving: int | None) -> None:
        """`token` enters the window and `leaving`, if any, falls out of it."""
        self._counts[token] += 1
        if leaving is not None:
            self._counts[leaving] -= 1
        if token not in self._listed:
            self._listed.add(token)
            self._seen.append(token)
            self._ids = None

    def table(self) -> tuple[IndexArray, npt.NDArray[np.int64]]:
        """Distinct tokens in the window and how often each occurs."""
        if self._ids is None:
            self._ids = np.array(self._seen, np.int64)
        counts = self._counts[self._ids]
        alive = counts > 0
        return self._ids[alive], counts[alive]


class SequenceSampler:
    """Chooses tokens for one sequence.

    With ``temperature=0`` the answer is the largest logit after bias, mask, penalties and DRY;
    the truncating samplers are left out, since they only ever remove worse tokens or (XTC,
    typical) would make greedy not greedy.

    Random numbers come from a PCG64 stream keyed by the seed: two for every token taken when
    XTC is on, else one.
    """

    def __init__(
        self,
        params: SamplingParams,
        context: npt.NDArray[np.int32],
        vocab_size: int,
        *,
        end_token_ids: Collection[int] = (),
        breakers: npt.NDArray[np.bool_] | None = None,
        avoided_ids: Collection[int] = (),
        logits_processor: LogitsProcessor | None = None,
    ) -> None:
        """`avoided_ids` end an answer of a given form, and are taken when nothing else may come."""
        self._params = params
        self._vocab_size = vocab_size
        self._processor = logits_processor
        self._breakers = breakers
        self._end_ids = np.array(sorted(end_token_ids), np.int64)
        self._avoided = np.array(sorted(avoided_ids), np.int64)
        self._bias_ids = np.array(list(params.logit_bias), np.int64)
        self._bias = np.array(
            [
                bias if bias == -np.inf else min(max(float(bias), -MAX_CHANGE), MAX_CHANGE)
                for bias in params.logit_bias.values()
            ],
            np.float32,
        )
        self._greedy = params.temperature == 0.0
        active = [name for name in params.sampler_order if _ACTIVE[name](params)]
        if self._greedy:
            active = [name for name in active if name in ("penalties", "dry")]
        # Temperature shifts logits, which only the sign-aware penalty would notice.
        self._temperature_keeps_origin = (
            "penalties" in active
            and "temperature" in active
            and active.index("temperature") < active.index("penalties")
        )
        self._steps = [getattr(self, f"_{name}") for name in active]
        self._counts = (
            TokenCounts(context, vocab_size, params.penalty_last_n)
            if "penalties" in active
            else None
        )
        self._random = np.random.Generator(np.random.PCG64(params.seed))
        self._always_plain = (
            self._greedy and not active and not len(self._bias_ids) and logits_processor is None
        )

    def choose(
        self,
        logits: FloatArray,
        context: npt.NDArray[np.int32],
        output_ids: Sequence[int],
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """The next token after `context` [n], given its raw logits [vocab], left unchanged.

        `allowed` [vocab] are the tokens that may be chosen. An answer that can only end may end,
        whatever `min_tokens` and `ignore_eos` say. Raises EngineError for logits that are not
        numbers and InvalidParameterError when bias and mask leave no token.
        """
        forbids_end = len(output_ids) < self._params.min_tokens and len(self._end_ids) > 0
        if self._always_plain and not forbids_end and allowed is None:
            best = int(logits.argmax())
            _check_number(float(logits[best]))
            return best
        _check_number(float(logits.max()))
        c = self._masked(logits, output_ids, forbids_end, allowed)
        for step in self._steps:
            c = step(c, context)
        if self._greedy:
            return c.token(int(c.logits.argmax()))
        return samplers.draw(c, self._random.random())

    def accept(self, token: int, context: npt.NDArray[np.int32]) -> None:
        """The chosen token was taken; `context` ends with it."""
        if self._counts is not None:
            n = self._params.penalty_last_n
            leaving = int(context[-n - 1]) if 0 <= n < len(context) else None
            self._counts.append(token, leaving)

    def _masked(
        self,
        logits: FloatArray,
        output_ids: Sequence[int],
        forbids_end: bool,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> Candidates:
        c = Candidates(logits)
        if len(self._bias_ids):
            c.writable()[self._bias_ids] += self._bias
        if allowed is not None:
            if len(self._avoided) or forbids_end:
                allowed = self._without_end(allowed, forbids_end)
        elif forbids_end:
            c.writable()[self._end_ids] = -np.inf
        if self._processor is not None:
            c = Candidates(self._processed(c.writable(), output_ids), owned=True)
        if allowed is not None:
            c.writable()[~allowed] = -np.inf
        if not float(c.logits.max()) > -np.inf:
            raise InvalidParameterError(
                "no token is possible: logit_bias, min_tokens, the logits processor or the form "
                "of the answer forbid all"
            )
        return c

    def _without_end(
        self, allowed: npt.NDArray[np.bool_], forbids_end: bool
    ) -> npt.NDArray[np.bool_]:
        """`allowed` without the end, unless nothing else is possible."""
        narrowed = allowed.copy()
        narrowed[self._avoided] = False
        if forbids_end:
            narrowed[self._end_ids] = False
        return narrowed if narrowed.any() else allowed

    def _processed(self, logits: FloatArray, output_ids: Sequence[int]) -> FloatArray:
        assert self._processor is not None
        try:
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused below
                result = np.asarray(self._processor(output_ids, logits), np.float32)
        except FreeholdError:
            raise
        except Exception as error:  # foreign code: whatever it raises ends its own request only
            raise InvalidParameterError(
                f"the logits processor failed: {type(error).__name__}: {error}"
            ) from error
        # The maximum alone tells: NaN spreads to it, and +inf leaves no distribution.
        if result.shape != (self._vocab_size,) or not float(result.max()) < np.inf:
            raise InvalidParameterError(
                f"the logits processor must return {self._vocab_size} numbers below infinity"
            )
        return result

    # -- one method per name in SAMPLER_ORDER ---------------------------------------------------
    def _penalties(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        assert self._counts is not None
        p = self._params
        tokens, counts = self._counts.table()
        return samplers.penalties(
            c,
            tokens,
            counts,
            repetition=p.repetition_penalty,
            presence=p.presence_penalty,
            frequency=p.frequency_penalty,
        )

    def _dry(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        p = self._params
        last_n = p.dry_penalty_last_n
        return samplers.dry(
            c,
            context if last_n < 0 else context[max(0, len(context) - last_n) :],
            multiplier=p.dry_multiplier,
            base=p.dry_base,
            allowed_length=p.dry_allowed_length,
            breakers=self._breakers,
        )

    def _top_n_sigma(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.top_n_sigma(c, self._params.top_n_sigma)

    def _top_k(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.top_k(c, self._params.top_k)

    def _typical_p(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.typical_p(c, self._params.typical_p)

    def _top_p(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.top_p(c, self._params.top_p)

    def _min_p(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.min_p(c, self._params.min_p)

    def _xtc(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        # The lot is drawn whether or not it matters: what follows stays reproducible.
        if self._random.random() >= self._params.xtc_probability:
            return c
        return samplers.xtc(c, self._params.xtc_threshold)

    def _temperature(self, c: Candidates, context: npt.NDArray[np.int32]) -> Candidates:
        return samplers.temperature(
            c, self._params.temperature, keep_origin=self._temperature_keeps_origin
        )


# Whether a sampler's setting differs from the value at which it does nothing.
_ACTIVE: dict[str, Callable[[SamplingParams], bool]] = {
    "penalties": lambda p: (
        p.penalty_last_n != 0
        and (p.repetition_penalty, p.presence_penalty, p.frequency_penalty) != (1.0, 0.0, 0.0)
    ),
    "dry": lambda p: p.dry_multiplier > 0.0 and p.dry_penalty_last_n != 0,
    "top_n_sigma": lambda p: p.top_n_sigma > 0.0,
    "top_k": lambda p: p.top_k > 0,
    "typical_p": lambda p: p.typical_p < 1.0,
    "top_p": lambda p: p.top_p < 1.0,
    "min_p": lambda p: p.min_p > 0.0,
    "xtc": lambda p: p.xtc_probability > 0.0,
    "temperature": lambda p: p.temperature not in (0.0, 1.0),
}


def uses_dry(params: SamplingParams) -> bool:
    """Whether DRY will run, and with it need the sequence breakers."""
    return "dry" in params.sampler_order and _ACTIVE["dry"](params)


class BreakerMasks:
    """Which tokens contain a DRY sequence breaker; one mask per distinct set of breakers."""

    _MAX_SETS = 32  # callers choose the sets: keep a bounded number

    def __init__(self, vocab_size: int, token_bytes: TokenBytes | None) -> None:
        self._vocab_size = vocab_size
        self._token_bytes = token_bytes
        self._pieces: list[bytes] | None = None
        self._masks: dict[tuple[str, ...], npt.NDArray[np.bool_]] = {}

    def get(self, breakers: tuple[str, ...]) -> npt.NDArray[np.bool_] | None:
        """Mask over the vocabulary, [vocab]; None when there are no breakers."""
        if not breakers:
            return None
        if breakers not in self._masks:
            if self._token_bytes is None:
                raise InvalidParameterError(
                    "DRY needs a tokenizer to find its sequence breakers",
                    hint="set dry_sequence_breakers=() to run it without any",
                )
            if self._pieces is None:
                self._pieces = [self._token_bytes(i) for i in range(self._vocab_size)]
            needles = [text.encode() for text in breakers]
            if len(self._masks) == self._MAX_SETS:
                self._masks.clear()
            self._masks[breakers] = np.array(
                [any(needle in piece for needle in needles) for piece in self._pieces], np.bool_
            )
        return self._masks[breakers]


def _check_number(best: float) -> None:
    """NaN spreads to the maximum and +inf is it: one look at the best logit finds both."""
    if not best < np.inf or best == -np.inf:
        raise EngineError(
            f"the model's largest logit is {best}: its weights or the computation are broken"
        )
