# SPDX-License-Identifier: Apache-2.0
"""`Engine`: requests of token ids in, tokens out, one step at a time.

Synchronous and single-threaded; every forward pass of freehold runs in `Engine.step`. Knows no
text: stop strings and detokenising belong to the caller.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from freehold.config import EngineConfig
from freehold.engine import results, speculative
from freehold.engine.block_manager import BlockManager
from freehold.engine.kv_cache import check_config, make_kv_cache
from freehold.engine.logprobs import token_logprob
from freehold.engine.metrics import EngineStats
from freehold.engine.model_runner import ModelRunner, RowSpan
from freehold.engine.sampler import BreakerMasks, SequenceSampler, TokenBytes, uses_dry
from freehold.engine.scheduler import Scheduler, StepPlan
from freehold.engine.sequence import (
    LogitsProcessor,
    SequenceState,
    SequenceStatus,
    StepOutput,
    Want,
)
from freehold.engine.validation import check_params, check_prompt
from freehold.errors import EngineError, FreeholdError, InvalidParameterError
from freehold.models.base import CausalLM
from freehold.ops import Array, FloatArray, Ops
from freehold.types import FinishReason, SamplingParams, TokenLogprob

_NO_SAMPLING = SamplingParams()


class Engine:
    """Batches all requests it holds into steps over one model and one cache.

    A sequence never uses more than ``max_model_len`` positions: the configured context, or
    what an explicitly small block pool can hold. What else is in a batch, how a prompt is cut,
    what the prefix cache held, preemption and drafts never change a result.
    """

    def __init__(
        self,
        model: CausalLM,
        ops: Ops,
        config: EngineConfig,
        *,
        eos_token_ids: Sequence[int] = (),
        token_bytes: TokenBytes | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        check_config(config)
        self.config = config
        self.stats = EngineStats()
        cache = make_kv_cache(ops, model.kv_layers(), config)
        self.num_blocks = cache.num_blocks
        self.kv_cache_bytes = cache.nbytes
        self.max_model_len = min(config.context_length, cache.num_blocks * config.block_size)
        self.vocab_size = model.config.vocab_size
        self._eos = frozenset(int(i) for i in eos_token_ids)
        self._breakers = BreakerMasks(self.vocab_size, token_bytes)
        self._scheduler = Scheduler(
            BlockManager(cache.num_blocks, config.block_size, prefix_caching=config.prefix_caching),
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            stats=self.stats,
        )
        max_blocks = -(-self.max_model_len // config.block_size)
        self._runner = ModelRunner(model, ops, cache, self._scheduler.max_num_seqs, max_blocks)
        self._costs = speculative.StepCosts()
        self._clock = clock
        self._seqs: dict[str, SequenceState] = {}
        self._held: list[StepOutput] = []  # made while score, logits or embed was stepping
        self._arrivals = itertools.count()

    # -- requests ------------------------------------------------------------------------------
    def add(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> str:
        """Queue a request; returns its id.

        `logits_processor` is called as ``f(ids generated so far, logits [vocab])`` before the
        samplers, may change the logits in place and returns the ones to use.

        Raises InvalidParameterError (empty prompt, unknown ids, id in use, settings that do not
        fit this model) or ContextLengthError (no room for even one new token).
        """
        tokens = check_prompt(prompt_token_ids, self.vocab_size, self.max_model_len - 1)
        check_params(params, self.vocab_size)
        breakers = None
        if uses_dry(params):
            breakers = self._breakers.get(params.dry_sequence_breakers)
        end_ids = frozenset(params.stop_token_ids)
        if not params.ignore_eos:
            end_ids |= self._eos
        length = len(tokens)
        room = self.max_model_len - length
        seq = self._register(request_id, tokens, length, params, "tokens", first_row=length - 1)
        seq.max_len = length + min(room, params.max_tokens or room)
        seq.end_token_ids = end_ids
        seq.sampler = SequenceSampler(
            params,
            tokens,
            self.vocab_size,
            end_token_ids=end_ids,
            breakers=breakers,
            logits_processor=logits_processor,
        )
        if params.prompt_logprobs is not None:
            seq.next_wanted_row = 0
            seq.prompt_logprobs = [None]
        if self.config.speculative_tokens:
            seq.draft_control = speculative.DraftControl(self.config.speculative_tokens)
        self._scheduler.add(seq)
        self.stats.requests_added += 1
        return seq.request_id

    def abort(self, request_id: str) -> None:
        """Drop a request; nothing more comes from it. Unknown ids are ignored."""
        self.finish(request_id, "abort")

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a request because the caller saw why it should end (a stop string).

        No output follows. Unknown ids are ignored: the request may have ended by itself.
        """
        seq = self._seqs.get(request_id)
        if seq is not None:
            self._drop(seq, reason)
        self._held = [output for output in self._held if output.request_id != request_id]

    def has_unfinished(self) -> bool:
        """Whether `step` has anything left to do or to hand out."""
        return bool(self._held) or self._scheduler.has_unfinished()

    @property
    def num_waiting(self) -> int:
        """Requests not in the running batch."""
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Requests in the running batch."""
        return len(self._scheduler.running)

    # -- the loop ------------------------------------------------------------------------------
    def step(self) -> list[StepOutput]:
        """Schedule, run the model once, sample, and report what each request got.

        A request that fails by itself (its processor, its logits) ends with ``error`` set and
        leaves the others alone. If the model itself raises, the error passes through and no
        request has moved.
        """
        outputs, self._held = self._held, []
        begin = self._clock()
        plan = self._scheduler.schedule()
        if not plan.items:
            if self._scheduler.has_unfinished():
                raise EngineError("the scheduler has requests and found nothing to do")
            return outputs
        if self.config.speculative_tokens and plan.num_decoding:
            self._grant_drafts(plan)
        hidden, spans = self._runner.run(plan)
        logits, rows_of = self._sample_logits(hidden, spans)
        model_done = self._clock()
        self._count(plan, begin)
        others: set[int] = set()
        for span in spans:
            output = self._collect(span, hidden, logits, rows_of, begin)
            others.add(id(span.item.seq))
            if output is not None:
                outputs.append(output)
        for item in plan.items:
            if id(item.seq) not in others:
                self._scheduler.commit(item.seq, item.seq.num_computed + item.num_new)
        self._measure(plan, begin, model_done)
        return outputs

    def _grant_drafts(self, plan: StepPlan) -> None:
        decoding = plan.items[: plan.num_decoding]
        if not self._costs.knows_plain(len(decoding)):
            return  # one step without drafts first, to compare with
        for item in decoding:
            seq = item.seq
            if seq.draft_control is None:
                continue
            count = seq.draft_control.allowance()
            if count:
                drafts = speculative.propose(seq.context(), count)
                self._scheduler.grant_drafts(item, plan, drafts)

    def _sample_logits(
        self, hidden: Array, spans: list[RowSpan]
    ) -> tuple[FloatArray | None, dict[int, int]]:
        """Logits of all rows to sample from, and where each span's begin among them."""
        rows: list[int] = []
        starts: dict[int, int] = {}
        total = 0
        for span in spans:
            total += span.count
            skip = _rows_before_sampling(span)
            if skip < span.count:
                starts[span.start] = len(rows)
                rows.extend(range(span.start + skip, span.start + span.count))
        if not rows:
            return None, starts
        chosen = hidden if len(rows) == total else self._runner.take(hidden, rows)
        return self._runner.logits(chosen), starts

    def _collect(
        self,
        span: RowSpan,
        hidden: Array,
        logits: FloatArray | None,
        rows_of: dict[int, int],
        begin: float,
    ) -> StepOutput | None:
        """Take one sequence's output rows; what it has to report, if anything."""
        seq, item = span.item.seq, span.item
        if seq.first_scheduled < 0:
            seq.first_scheduled = begin
        before = _rows_before_sampling(span)
        if before:
            results.collect(seq, self._runner, hidden, span.start, before, span.position)
            seq.next_wanted_row = span.position + before
        if before == span.count:
            self._scheduler.commit(seq, seq.num_computed + item.num_new)
            if seq.want != "tokens" and seq.num_remaining == 0:
                self._drop(seq, "stop")
            return None
        assert logits is not None
        at = rows_of[span.start]
        return self._sample(seq, logits[at : at + span.count - before], item.drafts)

    def _sample(self, seq: SequenceState, logits: FloatArray, drafts: Sequence[int]) -> StepOutput:
        """Sample row after row while the drafts agree; publish."""
        new: list[int] = []
        logprobs: list[TokenLogprob] = []
        finished: FinishReason | None = None
        stop_reason: int | None = None
        error: FreeholdError | None = None
        assert seq.sampler is not None
        wants_logprobs = seq.params.logprobs
        for i, row in enumerate(logits):
            try:
                token = seq.sampler.choose(row, seq.context(), seq.output_ids)
            except FreeholdError as raised:
                finished, error = "abort", raised
                break
            seq.append(token)
            seq.sampler.accept(token, seq.context())
            new.append(token)
            if wants_logprobs is not None:
                logprobs.append(token_logprob(row, token, wants_logprobs))
            if token in seq.end_token_ids:
                finished, stop_reason = "stop", token
            elif seq.num_tokens >= seq.max_len:
                finished = "length"
            if finished is not None or i >= len(drafts) or token != drafts[i]:
                break
        self._learn(seq, drafts, new)
        self._scheduler.commit(seq, seq.num_tokens - (1 if new else 0))
        seq.next_wanted_row = seq.num_tokens - 1
        return self._publish(seq, new, logprobs, finished, stop_reason, error)

    def _publish(
        self,
        seq: SequenceState,
        new: list[int],
        logprobs: list[TokenLogprob],
        finished: FinishReason | None,
        stop_reason: int | None,
        error: FreeholdError | None,
    ) -> StepOutput:
        now = self._clock()
        first = seq.first_token < 0
        if first:
            seq.first_token = now
        self.stats.decode_tokens += len(new)
        prompt_logprobs = None
        if seq.prompt_logprobs is not None and first:
            prompt_logprobs = tuple(seq.prompt_logprobs)
            seq.prompt_logprobs = None
        if finished is not None:
            self._drop(seq, finished)
        return StepOutput(
            request_id=seq.request_id,
            new_token_ids=tuple(new),
            logprobs=None if seq.params.logprobs is None else tuple(logprobs),
            finished=finished,
            stop_reason=stop_reason,
            cached_tokens=max(0, seq.cached_tokens),
            prompt_logprobs=prompt_logprobs,
            error=error,
            prefill_seconds=seq.first_token - seq.first_scheduled,
            decode_seconds=now - seq.first_token,
        )

    # -- numbers instead of tokens ---------------------------------------------------------------
    def score(self, ids: Sequence[int], *, start: int = 1) -> FloatArray:
        """Natural-log probability of each token from `start` on, given all before it.

        Shape [T - start]. The output head runs over a few rows at a time, so memory stays
        bounded. With ``start > 1`` the tokens before may come from the prefix cache.
        """
        tokens = check_prompt(ids, self.vocab_size, self.max_model_len)
        if not 1 <= start:
            raise InvalidParameterError(f"start must be at least 1, not {start}")
        if start >= len(tokens):
            return np.empty(0, np.float32)
        # The last token is only a target: its own output is not asked for.
        length = len(tokens) - 1
        seq = self._register(None, tokens, length, _NO_SAMPLING, "scores", first_row=start - 1)
        seq.results = np.empty(len(tokens) - start, np.float32)
        self._run_alone(seq)
        return seq.results

    def logits(self, ids: Sequence[int]) -> FloatArray:
        """Logits at every position: [T, vocab] float32."""
        tokens = check_prompt(ids, self.vocab_size, self.max_model_len)
        seq = self._register(None, tokens, len(tokens), _NO_SAMPLING, "logits", first_row=0)
        seq.results = np.empty((len(tokens), self.vocab_size), np.float32)
        self._run_alone(seq)
        return seq.results

    def embed(self, ids: Sequence[int], pooling: Literal["mean", "last"] = "mean") -> FloatArray:
        """Final-normed hidden state, mean over all positions or the last one: [hidden] float32.

        Not normalised to unit length.
        """
        tokens = check_prompt(ids, self.vocab_size, self.max_model_len)
        if pooling not in ("mean", "last"):
            raise InvalidParameterError(f"pooling must be 'mean' or 'last', not {pooling!r}")
        first_row = 0 if pooling == "mean" else len(tokens) - 1
        seq = self._register(None, tokens, len(tokens), _NO_SAMPLING, "hidden", first_row=first_row)
        self._run_alone(seq)
        assert seq.pooled is not None
        return (seq.pooled / seq.num_pooled).astype(np.float32)

    def _run_alone(self, seq: SequenceState) -> None:
        """Step until `seq` is through; outputs of other requests wait for the next `step`."""
        self._scheduler.add(seq)
        held: list[StepOutput] = []
        try:
            while seq.status is not SequenceStatus.FINISHED:
                held.extend(self.step())
        finally:
            self._drop(seq, "abort")
            self._held.extend(held)

    # -- bookkeeping -----------------------------------------------------------------------------
    def _register(
        self,
        request_id: str | None,
        tokens: npt.NDArray[np.int32],
        length: int,
        params: SamplingParams,
        want: Want,
        *,
        first_row: int,
    ) -> SequenceState:
        arrival = next(self._arrivals)
        name = request_id if request_id is not None else f"request-{arrival}"
        if name in self._seqs:
            raise InvalidParameterError(f"request id {name!r:.80} is already in use")
        seq = SequenceState(
            request_id=name,
            arrival=arrival,
            params=params,
            tokens=tokens,
            num_tokens=length,
            prompt_len=length,
            max_len=length,
            next_wanted_row=first_row,
            want=want,
        )
        self._seqs[name] = seq
        return seq

    def _drop(self, seq: SequenceState, reason: FinishReason) -> None:
        if self._seqs.pop(seq.request_id, None) is None:
            return
        self._scheduler.remove(seq)
        if seq.want == "tokens":
            if reason == "abort":
                self.stats.requests_aborted += 1
            else:
                self.stats.requests_finished += 1

    def _learn(self, seq: SequenceState, drafts: Sequence[int], new: list[int]) -> None:
        if not drafts or seq.draft_control is None:
            return
        accepted = sum(a == b for a, b in zip(drafts, new, strict=False))
        self.stats.drafts_proposed += len(drafts)
        self.stats.drafts_accepted += accepted
        break_even = self._costs.break_even(len(self._scheduler.running))
        seq.draft_control.record(len(drafts), accepted, break_even)

    def _count(self, plan: StepPlan, begin: float) -> None:
        self.stats.steps += 1
        for item in plan.items:
            seq = item.seq
            if seq.first_scheduled < 0:
                seq.first_scheduled = begin
            end = seq.num_computed + item.num_new
            self.stats.prefill_tokens += max(0, min(end, seq.prompt_len) - seq.num_computed)

    def _measure(self, plan: StepPlan, begin: float, model_done: float) -> None:
        seconds = self._clock() - begin
        self.stats.model_seconds += model_done - begin
        self.stats.step_seconds += seconds
        if plan.num_decoding == len(plan.items):
            drafts = sum(len(item.drafts) for item in plan.items)
            self._costs.record(plan.num_decoding, drafts, seconds)


def _rows_before_sampling(span: RowSpan) -> int:
    """How many of a span's rows are not for sampling (prompt positions, or all)."""
    seq = span.item.seq
    if seq.want != "tokens":
        return span.count
    return min(span.count, max(0, seq.prompt_len - 1 - span.position))
