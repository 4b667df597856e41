# SPDX-License-Identifier: Apache-2.0
"""From the logits of a step to the tokens of one sequence: chosen, drafted, forced.

Knows when an answer is over. Commits nothing: what became of the step is for the engine to record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from freehold.engine.logprobs import token_logprob
from freehold.engine.scheduler import StepPlan
from freehold.engine.sequence import SequenceState, StepOutput
from freehold.engine.structured import TokenConstraint
from freehold.errors import FreeholdError
from freehold.ops import FloatArray
from freehold.types import FinishReason, TokenLogprob


@dataclass(slots=True)
class Taken:
    """What a step brought to one sequence."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    accepted: int = 0  # leading drafts that were right
    num_forced: int = 0  # of the tokens, those nobody chose
    finished: FinishReason | None = None
    stop_reason: int | None = None
    error: FreeholdError | None = None


def due_constraints(plan: StepPlan) -> list[TokenConstraint]:
    """The constraints of those sequences that will choose a token in this step."""
    return [
        item.seq.constraint
        for item in plan.items
        if item.seq.constraint is not None
        and not item.seq.forced
        and item.num_new - len(item.drafts) == item.seq.num_remaining
    ]


def take_tokens(seq: SequenceState, drafts: Sequence[int], choices: list[FloatArray]) -> Taken:
    """Take the next token, one more for every draft that was right, and those that are forced.

    Where log-probabilities are wanted, a forced token waits for logits of its own.
    """
    taken = Taken()
    try:
        for i, logits in enumerate(choices):
            token = _next(seq, logits, taken)
            _append(seq, token, taken)
            if seq.params.logprobs is not None:
                taken.logprobs.append(token_logprob(logits, token, seq.params.logprobs))
            if taken.finished is not None or i >= len(drafts) or token != drafts[i]:
                break
            taken.accepted += 1
        seq.num_ahead = 0
        while seq.forced and taken.finished is None and seq.params.logprobs is None:
            taken.num_forced += 1
            _append(seq, seq.forced.pop(0), taken)
            seq.num_ahead += 1
    except FreeholdError as problem:  # this request's own fault: the others go on
        taken.error, taken.finished = problem, "abort"
    return taken


def output_of(seq: SequenceState, taken: Taken, now: float) -> StepOutput:
    """What the step has to tell of the sequence, which has moved by then."""
    prompt_logprobs = None
    if seq.prompt_logprobs is not None and len(seq.output_ids) == len(taken.tokens):
        prompt_logprobs = tuple(seq.prompt_logprobs)
    return StepOutput(
        request_id=seq.request_id,
        new_token_ids=tuple(taken.tokens),
        logprobs=tuple(taken.logprobs) if seq.params.logprobs is not None else None,
        finished=taken.finished,
        stop_reason=taken.stop_reason,
        cached_tokens=max(0, seq.cached_tokens),
        num_forced=taken.num_forced,
        prompt_logprobs=prompt_logprobs,
        error=taken.error,
        prefill_seconds=seq.first_token - seq.first_scheduled,
        decode_seconds=now - seq.first_token,
    )


def _next(seq: SequenceState, logits: FloatArray, taken: Taken) -> int:
    assert seq.sampler is not None
    if seq.forced:
        taken.num_forced += 1
        return seq.forced.pop(0)
    allowed = None if seq.constraint is None else seq.constraint.mask()
    return seq.sampler.choose(logits, seq.context(), seq.output_ids, allowed)


def _append(seq: SequenceState, token: int, taken: Taken) -> None:
    assert seq.sampler is not None
    seq.append(token)
    seq.sampler.accept(token, seq.context())
    taken.tokens.append(token)
    if token in seq.end_token_ids:
        taken.finished, taken.stop_reason = "stop", token
        return
    constraint = seq.constraint
    if constraint is not None:
        constraint.accept(token)
        if constraint.done:
            taken.finished = "stop"
            return
        if seq.forcing and not seq.forced:
            seq.forced = constraint.forced()
    if seq.num_tokens >= seq.max_len:
        taken.finished = "length"
