# SPDX-License-Identifier: Apache-2.0
"""The generation loop: schedule, run, sample, publish. There is no other one.

Synchronous and single-threaded; token ids in, token ids out. Text, stop strings and networks are
other people's business (`freehold.chat`, `async_engine`, the server).

A sequence's results do not depend on what shares its steps: backends guarantee it for the
numbers, and everything random is kept per sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from freehold.batch import IntArray
from freehold.config import EngineConfig
from freehold.engine.branches import Branches
from freehold.engine.chosen_rows import ChosenRows
from freehold.engine.generating import Generating
from freehold.engine.kv_cache import check_config, make_kv_cache
from freehold.engine.kv_groups import make_groups
from freehold.engine.kv_snapshot import SnapshotStore
from freehold.engine.measuring import (
    Measurement,
    Pooling,
    measured,
    numbers_of,
    run_to_end,
    sequence_fields,
    take_rows,
)
from freehold.engine.metrics import EngineStats
from freehold.engine.model_runner import ModelRunner, RowSpan
from freehold.engine.prefix_snapshots import PrefixSnapshots
from freehold.engine.results import collect
from freehold.engine.sampler import BreakerMasks
from freehold.engine.scheduler import Scheduler, StepPlan
from freehold.engine.sequence import (
    LogitsProcessor,
    SequenceState,
    StepOutput,
)
from freehold.engine.speculative import StepCost
from freehold.engine.structured import MaskWorker, TokenConstraint
from freehold.engine.taking import due_constraints, output_of, take_tokens
from freehold.errors import (
    EngineError,
    InvalidParameterError,
)
from freehold.models.adapters import Adapter
from freehold.models.base import CausalLM
from freehold.ops import Array, FloatArray, Ops
from freehold.types import FinishReason, SamplingParams


class Engine:
    """Runs many sequences over one model and one cache.

    `eos_token_ids` end a sequence unless it asks otherwise; `token_bytes` is needed only for
    DRY's sequence breakers; `snapshots` keeps prefixes on disk. Raises
    InvalidParameterError and CapacityError for settings that cannot work.
    """

    def __init__(
        self,
        model: CausalLM,
        ops: Ops,
        config: EngineConfig,
        *,
        eos_token_ids: Sequence[int] = (),
        token_bytes: Callable[[int], bytes] | None = None,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        check_config(config)
        self.config = config
        self.stats = EngineStats()
        self._vocab_size = model.config.vocab_size
        layers = model.kv_layers()
        cache = make_kv_cache(ops, layers, config)
        self.kv_bytes = cache.nbytes
        groups = make_groups(layers, cache, config.prefix_caching)
        self.pools = tuple(group.pool for group in groups)
        self.max_length = min(group.longest(config.context_length) for group in groups)
        self._generating = Generating(
            config,
            self.max_length,
            self._vocab_size,
            # A tokenizer may name tokens the model has no row for; they cannot occur.
            eos=frozenset(t for t in eos_token_ids if 0 <= t < self._vocab_size),
            breakers=BreakerMasks(self._vocab_size, token_bytes),
        )
        self._scheduler = Scheduler(
            groups,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            stats=self.stats,
            snapshots=None if snapshots is None else PrefixSnapshots(snapshots, ops, cache),
        )
        self._runner = ModelRunner(model, ops, cache, self._scheduler.max_num_seqs)
        self._sequences: dict[str, SequenceState] = {}
        self._arrivals = 0
        self._cost = StepCost()
        self._masks = MaskWorker()
        self._idle_steps = 0
        self._held_back: list[StepOutput] = []  # of other requests, while `score` and kin ran

    # -- requests ------------------------------------------------------------------------------
    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> IntArray:
        """The ids of a prompt that `add` would take; raises what it would raise.

        May be called on any thread.
        """
        return self._generating.check(prompt_token_ids, params)

    def add(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        logits_processor: LogitsProcessor | None = None,
        constraint: TokenConstraint | None = None,
        adapter: Adapter | None = None,
        salt: bytes = b"",
    ) -> str:
        """Queue a prompt; returns its request id.

        `constraint` is the form of the answer, at its beginning; it ends the answer. `adapter` was
        loaded for this engine's model. Computed prefixes are shared only with requests of the same
        `salt` (up to 64 bytes), because whether one was known shows in counts and in time.

        Raises ContextLengthError when the prompt leaves no room for an answer and
        InvalidParameterError for an empty prompt or ids outside the vocabulary.
        """
        ids = self.check(prompt_token_ids, params)
        fields = self._generating.sequence_fields(ids, params, constraint, logits_processor)
        return self._queue(request_id, adapter=adapter, salt=salt, **fields).request_id

    def abort(self, request_id: str) -> None:
        """Drop a request; nothing more comes for it. Unknown ids are ignored."""
        self._silence(request_id)
        if self._forget(request_id):
            self.stats.requests_aborted += 1

    def finish(self, request_id: str, reason: FinishReason = "stop") -> None:
        """End a request whose text reached a stop string; nothing more comes for it. Unknown ids
        are ignored."""
        self._silence(request_id)
        if reason == "abort":
            self.abort(request_id)
        elif self._forget(request_id):
            self.stats.requests_finished += 1

    def has_unfinished(self) -> bool:
        """Whether `step` has anything to do or to hand out."""
        return self._scheduler.has_unfinished() or bool(self._held_back)

    @property
    def num_unfinished(self) -> int:
        """Requests that are waiting or running."""
        return len(self._sequences)

    @property
    def num_running(self) -> int:
        """Requests that hold a place in the next steps; the others wait for one."""
        return len(self._scheduler.running)

    # -- the loop ------------------------------------------------------------------------------
    def step(self) -> list[StepOutput]:
        """One forward pass for whoever is due; what it brought to each request."""
        if self._held_back:
            held, self._held_back = self._held_back, []
            return held
        started = time.perf_counter()
        plan = self._scheduler.schedule()
        if not plan.items:
            self._check_progress()
            return []
        self._idle_steps = 0
        self._add_drafts(plan)
        for item in plan.items:
            if item.seq.first_scheduled < 0:
                item.seq.first_scheduled = started
        before_model = time.perf_counter()
        self._masks.begin(due_constraints(plan))
        try:
            hidden, spans = self._runner.run(plan)
            chosen = ChosenRows(self._runner, hidden, spans)
        finally:
            self._masks.join()
        model_seconds = time.perf_counter() - before_model
        outputs: list[StepOutput] = []
        try:
            self._publish(outputs, plan, spans, hidden, chosen)
        except BaseException:
            self._held_back.extend(outputs)  # those tokens are taken and must not get lost
            raise
        if plan.num_decoding == len(plan.items):
            self._cost.observe(plan.num_tokens, model_seconds)
        self.stats.steps += 1
        self.stats.model_seconds += model_seconds
        self.stats.step_seconds += time.perf_counter() - started
        return outputs

    # -- numbers instead of tokens ---------------------------------------------------------------
    def add_measurement(
        self, wanted: Measurement, *, request_id: str | None = None,
        adapter: Adapter | None = None, salt: bytes = b"",
    ) -> str:  # fmt: skip
        """Queue tokens of which numbers are wanted; returns the request id. The one output that
        comes for it has `numbers`, or an error. `salt` is that of `add`.

        Raises ContextLengthError and InvalidParameterError.
        """
        fields = sequence_fields(wanted, self.max_length, self._vocab_size)
        return self._queue(request_id, adapter=adapter, salt=salt, **fields).request_id

    def measure(
        self, wanted: Sequence[Measurement], *, adapter: Adapter | None = None
    ) -> list[FloatArray]:
        """The numbers of several measurements, which share steps, and what they have in common.
        Raises what `measure_outputs` raises."""
        return [numbers_of(output) for output in self.measure_outputs(wanted, adapter=adapter)]

    def measure_outputs(
        self, wanted: Sequence[Measurement], *, adapter: Adapter | None = None
    ) -> list[StepOutput]:
        """The outputs of several measurements: their numbers, and what was known already.

        Raises what `add_measurement` raises, and EngineError where they are no numbers. What
        becomes of other requests meanwhile is handed out by the next `step`.
        """
        return run_to_end(self, wanted, adapter)

    def branches(self, adapter: Adapter | None = None, *, salt: bytes = b"") -> Branches:
        """Many short continuations of prompts; see there. It is closed before anything else is
        asked of the engine."""
        return Branches(self, self._scheduler.groups, self._runner, adapter, salt)

    def reclaim(self, request_ids: Sequence[str], others: Sequence[StepOutput]) -> list[StepOutput]:
        """Drop requests; what the last, failed step has brought to them. `others` is what came for
        requests of other people meanwhile, and is handed out by the next `step`."""
        mine = set(request_ids)
        for request_id in request_ids:
            self._forget(request_id)
        lost = [output for output in self._held_back if output.request_id in mine]
        self._held_back = [o for o in self._held_back if o.request_id not in mine]
        self._held_back.extend(others)
        return lost

    def score(
        self, ids: Sequence[int], first: int = 1, *, adapter: Adapter | None = None
    ) -> FloatArray:
        """Log-probability of each token from position `first` on, given those before it:
        float32 [len(ids) - first]."""
        return self.measure([Measurement(ids, "scores", first)], adapter=adapter)[0]

    def logits(self, ids: Sequence[int], *, adapter: Adapter | None = None) -> FloatArray:
        """Logits after every token: float32 [len(ids), vocab_size]."""
        return self.measure([Measurement(ids, "logits")], adapter=adapter)[0]

    def embed(
        self, ids: Sequence[int], pooling: Pooling = "mean", *, adapter: Adapter | None = None
    ) -> FloatArray:
        """Final-normed hidden states, averaged over the tokens or the last one's: float32
        [hidden_size]. Not scaled to unit length."""
        return self.measure([Measurement(ids, pooling)], adapter=adapter)[0]

    # -- parts of a step ---------------------------------------------------------------------------
    def _add_drafts(self, plan: StepPlan) -> None:
        for item in plan.items[: plan.num_decoding]:
            seq = item.seq
            if item.num_new != seq.num_remaining:
                continue
            if seq.forced:  # they wait for log-probabilities, and will be right
                self._scheduler.grant_drafts(item, plan, seq.forced)
                continue
            if seq.draft_control is None or not seq.output_ids:
                continue
            drafts = seq.draft_control.drafts(seq.context(), plan.num_decoding, self._cost)
            if drafts:
                self._scheduler.grant_drafts(item, plan, drafts)
                self.stats.drafts_proposed += len(item.drafts)

    def _publish(
        self,
        outputs: list[StepOutput],
        plan: StepPlan,
        spans: list[RowSpan],
        hidden: Array,
        chosen: ChosenRows,
    ) -> None:
        """Give every sequence its rows; what that brings goes to `outputs`.

        The output head may still fail here. A sequence that was not reached has not moved.
        """
        now = time.perf_counter()
        by_item = {id(span.item): span for span in spans}
        for item in plan.items:
            seq = item.seq
            begin, known = seq.num_computed, item.num_new - len(item.drafts)
            self.stats.prefill_tokens += max(0, min(known, seq.prompt_len - begin))
            span = by_item.get(id(item))
            if span is None:
                self._scheduler.commit(seq, begin + known)
                continue
            if seq.want == "next":
                take_rows(seq, chosen.take(span.count), span.position)
            elif seq.want != "tokens":
                collect(seq, self._runner, hidden, span.start, span.count, span.position)
            if seq.want != "tokens":
                self._scheduler.commit(seq, begin + known)
                if seq.num_remaining == 0:
                    self._forget(seq.request_id)
                    outputs.append(measured(seq))
                continue
            skip = span.num_prompt_rows
            if skip:
                collect(seq, self._runner, hidden, span.start, skip, span.position)
            count = span.count - skip
            if count == 0:
                self._scheduler.commit(seq, begin + known)
                continue
            choices = chosen.take(count)
            outputs.append(self._take_tokens(seq, item.drafts, choices, begin + known, now))

    def _take_tokens(
        self,
        seq: SequenceState,
        drafts: Sequence[int],
        choices: list[FloatArray],
        computed: int,
        now: float,
    ) -> StepOutput:
        """Take what the logits say, and record how the sequence stands then."""
        guessed = bool(drafts) and not seq.forced
        taken = take_tokens(seq, drafts, choices)
        if guessed and seq.draft_control is not None:
            seq.draft_control.judge(len(drafts), taken.accepted)
            self.stats.drafts_accepted += taken.accepted
        self.stats.forced_tokens += taken.num_forced
        if taken.error is None:  # what a broken step wrote must not serve the next prompt
            self._scheduler.commit(seq, computed + taken.accepted)
        seq.next_wanted_row = seq.num_tokens - 1
        if seq.first_token < 0:
            seq.first_token = now
        self.stats.decode_tokens += len(taken.tokens)
        if taken.finished is not None:
            self._forget(seq.request_id)
            if taken.finished == "abort":
                self.stats.requests_aborted += 1
            else:
                self.stats.requests_finished += 1
        return output_of(seq, taken, now)

    # -- small things ------------------------------------------------------------------------------
    def _queue(self, request_id: str | None, **fields: object) -> SequenceState:
        if request_id is None:
            request_id = f"request-{self._arrivals}"
            while request_id in self._sequences:  # a caller chose the same name
                request_id += "+"
        if request_id in self._sequences:
            raise InvalidParameterError(f"request id {request_id!r} is already in use")
        seq = SequenceState(request_id=request_id, arrival=self._arrivals, **fields)  # type: ignore[arg-type]
        self._arrivals += 1
        self._sequences[request_id] = seq
        self._scheduler.add(seq)
        self.stats.requests_added += 1
        return seq

    def _forget(self, request_id: str) -> bool:
        seq = self._sequences.pop(request_id, None)
        if seq is None:
            return False
        self._scheduler.remove(seq)
        return True

    def _silence(self, request_id: str) -> None:
        self._held_back = [out for out in self._held_back if out.request_id != request_id]

    def _check_progress(self) -> None:
        """A step may be empty after a preemption, but never several in a row."""
        if not self._scheduler.has_unfinished():
            return
        self._idle_steps += 1
        if self._idle_steps > 8:
            raise EngineError("the scheduler makes no progress: no waiting request can start")
