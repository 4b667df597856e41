# SPDX-License-Identifier: Apache-2.0
"""Notes how long a loaded model's phases take, beside what was predicted, for later predictions.

Knows what can be compared with a prediction and what cannot; where it is kept is `calibration`'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from freehold.config import calibration_dir
from freehold.errors import UserError
from freehold.ops import KVDtype, Ops
from freehold.planner.calibration import Phase, Record, remember
from freehold.planner.machine import this_machine
from freehold.planner.plan import batch_kind
from freehold.planner.probe import known_rates, record_mark
from freehold.planner.sizes import ModelSizes, sizes_of
from freehold.planner.speed import decode_seconds, kind_of, load_seconds, prefill_seconds

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.engine.metrics import EngineStats
    from freehold.formats.checkpoint import Checkpoint
    from freehold.models.base import ModelConfig
    from freehold.types import Completion

_FEWEST_TOKENS = 8  # of a phase that is worth remembering
_SHARED_LOAD = 1.5  # processes that want to run, for each core, over a minute
_FEWEST_SERVED = 256  # of a model that was served
_PROMPTS_SHARE = 0.2  # of its time, above which it says nothing of decoding


def _is_shared(cores: int) -> bool:
    """Whether more wants to run than one model of ours would."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > _SHARED_LOAD * cores


class Loaded(Protocol):
    """As much of a `freehold.LLM` as is asked here."""

    @property
    def checkpoint(self) -> Checkpoint: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def ops(self) -> Ops: ...
    @property
    def engine(self) -> Engine: ...


class Recorder:
    """Notes how long the phases of one loaded model's runs take, beside what was predicted.

    Cheap, and never fails: a prediction that cannot be made is not remembered."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, *, backend: str = "cpu",
        kv_dtype: KVDtype = "f16",
    ) -> None:  # fmt: skip
        self._folder = calibration_dir()
        self._records: list[Record] = []
        self._sizes: ModelSizes | None = None
        self._kv_dtype = kv_dtype
        if self._folder is None or backend != "cpu":
            return
        self._machine = this_machine(gpus=False)
        rates = known_rates(self._machine, self._folder)
        try:
            self._sizes = sizes_of(checkpoint, config) if rates else None
        except UserError:
            return
        if rates is not None:
            self._machine = self._machine.with_rates(rates)

    def load(self, seconds: float) -> None:
        """A load took so long."""
        if self._sizes is not None:
            self._add("load", load_seconds(self._sizes, self._machine.rates), seconds)

    def prefill(self, tokens: int, seconds: float) -> None:
        """A prompt of so many tokens that had to be computed."""
        if self._sizes is not None and tokens >= _FEWEST_TOKENS:
            rates = self._machine.rates
            predicted = prefill_seconds(self._sizes, rates, tokens, kv_dtype=self._kv_dtype)
            self._add("prefill", predicted, seconds)

    def answer(self, completion: Completion) -> None:
        """Both phases of one answer that had the engine to itself."""
        prompt = len(completion.prompt_token_ids)
        if not completion.cached_tokens:
            self.prefill(prompt, completion.prefill_seconds)
        # The first token comes out of the prefill.
        self.decode(len(completion.token_ids) - 1, prompt, completion.decode_seconds)

    def service(self, stats: EngineStats) -> None:
        """What a server's model did while it was loaded, if nearly all of it was decoding."""
        if self._sizes is None or stats.decode_tokens < _FEWEST_SERVED:
            return
        rates, depth = self._machine.rates, 512
        prompts = stats.prefill_tokens * prefill_seconds(self._sizes, rates, depth) / depth
        steps = max(1, stats.steps - stats.prefill_tokens // depth)
        streams = max(1, round(stats.decode_tokens / steps))
        step = decode_seconds(self._sizes, rates, depth, streams=streams, kv_dtype=self._kv_dtype)
        answers = step * steps
        if prompts < _PROMPTS_SHARE * answers:
            share = answers / (answers + prompts)
            self._add("decode", answers, stats.step_seconds * share, streams)

    def decode(self, tokens: int, depth: float, seconds: float, *, streams: int = 1) -> None:
        """So many tokens of each of `streams` sequences, that had `depth` before them."""
        if self._sizes is not None and tokens >= _FEWEST_TOKENS:
            step = decode_seconds(
                self._sizes, self._machine.rates, depth + tokens / 2, streams=streams,
                kv_dtype=self._kv_dtype,
            )  # fmt: skip
            self._add("decode", tokens * step, seconds, streams)

    def _add(self, phase: Phase, predicted: float, seconds: float, streams: int = 1) -> None:
        assert self._sizes is not None
        kind = kind_of(self._sizes)
        kind = batch_kind(kind, streams) if phase == "decode" else kind
        self._records.append(Record(phase, kind, predicted, seconds))

    def save(self) -> None:
        """Keep what was noted, unless others used the machine meanwhile: then it says little."""
        if self._records and not _is_shared(self._machine.cores):
            remember(self._folder, record_mark(self._machine), self._records)
            self._records = []


def remember_service(llm: Loaded) -> None:
    """Let plans know how fast a server's model was, before it is closed."""
    config = llm.engine.config
    recorder = Recorder(llm.checkpoint, llm.config, backend=llm.ops.name, kv_dtype=config.kv_dtype)
    recorder.service(llm.engine.stats)
    recorder.save()
