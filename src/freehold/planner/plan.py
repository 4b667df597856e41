# SPDX-License-Identifier: Apache-2.0
"""A plan: one model on one machine for one purpose, with every number that the answer rests on.

Joins `memory`, `speed`, `calibration` and `placement`. Knows neither names nor how a plan is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from freehold.errors import InvalidParameterError
from freehold.ops import KVDtype
from freehold.planner.calibration import Calibration, Phase
from freehold.planner.machine import Machine
from freehold.planner.memory import MemoryNeed, default_context, longest_fit, need, usable
from freehold.planner.placement import Placement, place
from freehold.planner.sizes import ModelSizes
from freehold.planner.speed import decode_seconds, kind_of, load_seconds, prefill_seconds

DEFAULT_STREAMS = 8  # documents worked on at once, where nobody says how many
_PROMPT = 512  # tokens of the prompt whose rate is told
_KV_TYPES: tuple[KVDtype, ...] = ("f16", "q8_0")


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be done. None: the usual."""

    context: int | None = None
    parallel: int | None = None
    kv_dtype: KVDtype = "f16"
    documents: int | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    by: datetime | None = None

    @property
    def is_job(self) -> bool:
        """Whether it is about documents."""
        return any(n is not None for n in (self.documents, self.tokens_in, self.tokens_out))


@dataclass(frozen=True, slots=True)
class Range:
    """A prediction: probably `middle`, likely between the others."""

    low: float
    middle: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return {"low": self.low, "middle": self.middle, "high": self.high}


@dataclass(frozen=True, slots=True)
class Job:
    """Documents through a model."""

    documents: int | None
    tokens_in: int
    tokens_out: int
    streams: int
    per_hour: Range
    seconds: Range | None  # for all documents
    done_by: tuple[datetime, datetime] | None  # early, late
    on_time: bool | None  # None: nobody asked; else by the late one
    possible: int | None  # documents that are done by the time asked for, by the low rate


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer."""

    model: str
    quant: str | None
    sizes: ModelSizes
    machine: Machine
    context: int
    context_is_default: bool
    parallel: int
    kv_dtype: KVDtype
    need: MemoryNeed
    budget: int
    load: Range  # seconds
    prefill: Range  # tokens per second
    decode: Range  # tokens per second of one sequence, at half its context
    runs: int  # that the decode speed is calibrated by
    job: Job | None
    placement: Placement | None  # where there are cards
    remedies: tuple[str, ...]  # what would make it fit

    @property
    def fits(self) -> bool:
        return self.need.total <= self.budget


def make_plan(
    model: str, quant: str | None, sizes: ModelSizes, machine: Machine, question: Question,
    calibration: Calibration | None = None, *, now: datetime | None = None,
) -> Plan:  # fmt: skip
    """Plan `sizes` on `machine`. Raises InvalidParameterError for a context the model was not made
    for, or documents that do not fit the context."""
    known = calibration or Calibration()
    streams = question.parallel or (DEFAULT_STREAMS if question.is_job else 1)
    context = _context(sizes, question)
    dtype = question.kv_dtype
    wanted = need(sizes, context, parallel=streams, kv_dtype=dtype)
    budget = usable(machine.free)
    kind, rates = kind_of(sizes), machine.rates
    prompt = min(_PROMPT, context)
    prefill = _scaled(known, "prefill", kind, prefill_seconds(sizes, rates, prompt, kv_dtype=dtype))
    decode = _scaled(
        known, "decode", kind, decode_seconds(sizes, rates, context / 2, kv_dtype=dtype)
    )
    return Plan(
        model=model,
        quant=quant,
        sizes=sizes,
        machine=machine,
        context=context,
        context_is_default=question.context is None and not question.is_job,
        parallel=streams,
        kv_dtype=dtype,
        need=wanted,
        budget=budget,
        load=_scaled(known, "load", kind, load_seconds(sizes, rates)),
        prefill=_rate(prompt, prefill),
        decode=_rate(1, decode),
        runs=known.factor("decode", kind).runs,
        job=_job(sizes, machine, question, known, streams, now) if question.is_job else None,
        placement=place(sizes, wanted, machine) if machine.gpus else None,
        remedies=_remedies(sizes, context, streams, dtype, budget),
    )


def _context(sizes: ModelSizes, question: Question) -> int:
    own = sizes.context_length
    if question.context is not None and question.context > own:
        raise InvalidParameterError(
            f"a context of {question.context:,} is asked for and the model was made for {own:,}",
            hint=f"use at most {own}",
        )
    if not question.is_job:
        return question.context or default_context(sizes)
    tokens = _job_tokens(question)
    context = question.context or min(own, -(-sum(tokens) // 16) * 16)
    if sum(tokens) > context:
        raise InvalidParameterError(
            f"a document of {tokens[0]:,} tokens and an answer of {tokens[1]:,} do not fit a "
            f"context of {context:,}",
            hint="raise --context" if context < own else "use a model made for longer contexts",
        )
    return context


def _job_tokens(question: Question) -> tuple[int, int]:
    return question.tokens_in or 1000, question.tokens_out or 200


def _scaled(known: Calibration, phase: Phase, kind: str, seconds: float) -> Range:
    factor = known.factor(phase, kind)
    return Range(seconds * factor.low, seconds * factor.middle, seconds * factor.high)


def _rate(tokens: float, seconds: Range) -> Range:
    return Range(tokens / seconds.high, tokens / seconds.middle, tokens / seconds.low)


def _job(
    sizes: ModelSizes, machine: Machine, question: Question, known: Calibration, streams: int,
    now: datetime | None,
) -> Job:  # fmt: skip
    """Each document is read alone, answers are written `streams` at a time."""
    tokens_in, tokens_out = _job_tokens(question)
    kind, dtype, rates = kind_of(sizes), question.kv_dtype, machine.rates
    step = decode_seconds(sizes, rates, tokens_in + tokens_out / 2, streams=streams, kv_dtype=dtype)
    read = prefill_seconds(sizes, rates, tokens_in, kv_dtype=dtype)
    reading = _scaled(known, "prefill", kind, read)
    writing = _scaled(known, "decode", batch_kind(kind, streams), step * tokens_out / streams)
    per_document = Range(*(
        getattr(reading, end) + getattr(writing, end) for end in ("low", "middle", "high")
    ))  # fmt: skip
    count = question.documents
    seconds = done_by = on_time = possible = None
    now = now or datetime.now().astimezone()
    if count is not None:
        seconds = Range(*(count * getattr(per_document, e) for e in ("low", "middle", "high")))
        longest = timedelta.max.total_seconds() / 1000
        done_by = (
            now + timedelta(seconds=min(seconds.low, longest)),
            now + timedelta(seconds=min(seconds.high, longest)),
        )
    if question.by is not None:
        possible = int((question.by - now).total_seconds() / per_document.high)
        on_time = done_by is not None and done_by[1] <= question.by
    rate = _rate(3600, per_document)
    return Job(count, tokens_in, tokens_out, streams, rate, seconds, done_by, on_time, possible)


def batch_kind(kind: str, streams: int) -> str:
    """Several sequences at once are another task to the kernels than one."""
    return kind if streams == 1 else f"{kind}, several"


def _remedies(
    sizes: ModelSizes, context: int, parallel: int, kv_dtype: KVDtype, budget: int
) -> tuple[str, ...]:
    """What would make a plan fit that does not, each with its number."""
    found = []
    if need(sizes, context, parallel=parallel, kv_dtype=kv_dtype).total <= budget:
        return ()
    longest = longest_fit(sizes, budget, parallel=parallel, kv_dtype=kv_dtype)
    if longest:
        found.append(f"--context {longest} fits")
    if parallel > 1 and need(sizes, context, parallel=1, kv_dtype=kv_dtype).total <= budget:
        found.append("--parallel 1 fits")
    for other in _KV_TYPES:
        smaller = need(sizes, context, parallel=parallel, kv_dtype=other)
        if other != kv_dtype and smaller.total <= budget:
            found.append(f"--kv-type {other} fits")
    return tuple(found)
