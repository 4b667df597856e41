# SPDX-License-Identifier: Apache-2.0
"""What the server does, as counters and gauges for Prometheus.

`ServerMetrics` is told of events as they happen and looks at the models when it is asked. Each
server has a collector registry of its own. Labels are bounded: models and routes by what is served,
keys by `MAX_KEYS`, methods by those HTTP has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from freehold.async_llm import AnswerWatch, AsyncLLM
from freehold.engine.metrics import EngineStats
from freehold.engine.sequence import StepOutput
from freehold.errors import CapacityError, UserError
from freehold.server.models.registry import ModelRegistry
from freehold.server.models.served_model import ServedModel
from freehold.server.monitoring.observer import UNLOAD_REASONS, Observer, UnloadReason
from freehold.server.request_context import current, owner
from freehold.types import Completion

MAX_KEYS = 64  # names of API keys told apart; further ones are counted together
OTHER = "(other)"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
PREFIX = "freehold_"
# Seconds. A small model gives a token in a millisecond, a large one on few cores in one second.
_TOKEN_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
)  # fmt: skip
_WAIT_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
_LOAD_BUCKETS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# Totals of an engine: field of `EngineStats`, name, what it says.
_ENGINE_TOTALS = (
    ("steps", "engine_steps", "Forward passes."),
    ("prefill_tokens", "computed_prompt_tokens", "Prompt tokens that were computed, not found."),
    ("forced_tokens", "forced_tokens", "Generated tokens that a grammar left no choice about."),
    ("preemptions", "preemptions", "Sequences that gave their cache blocks to older ones."),
    ("drafts_proposed", "draft_tokens_proposed", "Tokens guessed by speculative decoding."),
    ("drafts_accepted", "draft_tokens_accepted", "Guesses that were right."),
    ("model_seconds", "model_seconds", "Seconds inside forward passes."),
    ("step_seconds", "step_seconds", "Seconds inside engine steps, the model's included."),
)


class ServerMetrics(Observer):
    """Counts what a server does."""

    def __init__(self, models: ModelRegistry) -> None:
        self.collectors = CollectorRegistry()
        self._keys: set[str] = {""}
        self._labels: dict[tuple[str, str], _Labelled] = {}
        both = ("model", "key")

        def counter(name: str, text: str, labels: tuple[str, ...] = both) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=self.collectors)

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = both
        ) -> Histogram:
            return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.collectors)

        self.http = counter(
            "http_requests", "HTTP requests by route and status.", ("method", "route", "status")
        )
        self.answers_total = counter(
            "answers", "Answers by how they ended; a request may ask for several.",
            (*both, "outcome"),
        )  # fmt: skip
        self.prompt_tokens = counter("prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = counter("cached_tokens", "Prompt tokens found in the prefix cache.")
        self.cache_hits = counter(
            "prefix_cache_hits", "Answers whose prompt began with something the cache knew."
        )
        self.generated_tokens = counter("generated_tokens", "Tokens generated.")
        self.first_token = histogram(
            "time_to_first_token_seconds",
            "From the request's arrival to the first token, a load and all waiting included.",
            _WAIT_BUCKETS,
        )
        self.inter_token = histogram(
            "inter_token_seconds", "Between one step's token and the next one's.", _TOKEN_BUCKETS
        )
        self.queue = histogram(
            "queue_seconds", "From the hand-over to the engine until it was begun.", _WAIT_BUCKETS
        )
        self.request = histogram(
            "request_seconds", "From the request's arrival to the end of the answer.", _WAIT_BUCKETS
        )
        self.loads = counter("model_loads", "Attempts to load a model.", ("model", "outcome"))
        self.load_seconds = histogram(
            "model_load_seconds", "Time a load took.", _LOAD_BUCKETS, ("model",)
        )
        self.unloads = counter("model_unloads", "Models let go, by why.", ("model", "reason"))
        self._now = _Now(models)
        self.collectors.register(self._now)
        ProcessCollector(registry=self.collectors)

    def render(self) -> bytes:
        """All of it, as Prometheus reads it. May be called on any thread."""
        return generate_latest(self.collectors)

    # -- events ----------------------------------------------------------------------------------
    def answers(self, model: str) -> AnswerWatch:
        """Watches the answers of one model."""
        return _Answers(self, model)

    def loaded(self, model: ServedModel, seconds: float) -> None:
        """Count a load."""
        self.loads.labels(model.name, "loaded").inc()
        self.load_seconds.labels(model.name).observe(seconds)
        for reason in UNLOAD_REASONS:  # a series that begins with 1 shows no increase
            self.unloads.labels(model.name, reason)

    def load_failed(self, model: ServedModel) -> None:
        """Count a load that failed."""
        self.loads.labels(model.name, "failed").inc()

    def unloading(self, model: ServedModel, reason: UnloadReason) -> None:
        """Count a model that goes."""
        self.unloads.labels(model.name, reason).inc()

    def unloaded(self, model: ServedModel) -> None:
        """Keep the engine's totals, which go with it."""
        self._now.keep(model)

    def answered(self, method: str, route: str, status: int) -> None:
        """Count an HTTP request."""
        self.http.labels(method if method in METHODS else OTHER, route, str(status)).inc()

    def labelled(self, model: str, key: str) -> _Labelled:
        """The series of one model and key."""
        if key not in self._keys:
            if len(self._keys) > MAX_KEYS:
                key = OTHER
            else:
                self._keys.add(key)
        found = self._labels.get((model, key))
        if found is None:
            found = self._labels[model, key] = _Labelled(self, model, key)
        return found


class _Labelled:
    """The series of one model and key, looked up once."""

    def __init__(self, metrics: ServerMetrics, model: str, key: str) -> None:
        self.prompt_tokens = metrics.prompt_tokens.labels(model, key)
        self.cached_tokens = metrics.cached_tokens.labels(model, key)
        self.cache_hits = metrics.cache_hits.labels(model, key)
        self.generated_tokens = metrics.generated_tokens.labels(model, key)
        self.first_token = metrics.first_token.labels(model, key)
        self.inter_token = metrics.inter_token.labels(model, key)
        self.queue = metrics.queue.labels(model, key)
        self.request = metrics.request.labels(model, key)
        # Every label exists from the first answer on: an increase from nothing is not seen.
        self.outcomes = {
            outcome: metrics.answers_total.labels(model, key, outcome)
            for outcome in ("stop", "length", "cancelled", "refused", "overloaded", "failed")
        }


class _Answers:
    """Watches the answers of one model."""

    def __init__(self, metrics: ServerMetrics, model: str) -> None:
        self._metrics, self._model = metrics, model

    def begin(self, prompt_tokens: int) -> _Answer:
        """An answer to a prompt of so many tokens is wanted."""
        record, now = current(), time.monotonic()
        # Work that outlasts its request does not wait since then.
        arrived = now if record.over else record.started
        series = self._metrics.labelled(self._model, owner() or "")
        return _Answer(series, prompt_tokens, arrived, now)


class _Answer:
    """One answer on its way."""

    __slots__ = ("_arrived", "_begun", "_last", "_prompt_tokens", "_series")

    def __init__(self, series: _Labelled, prompt_tokens: int, arrived: float, begun: float) -> None:
        self._series, self._prompt_tokens = series, prompt_tokens
        self._arrived, self._begun, self._last = arrived, begun, 0.0

    def take(self, output: StepOutput) -> None:
        """A step brought something."""
        count = len(output.new_token_ids)
        if not count:
            return
        now, series = time.monotonic(), self._series
        series.generated_tokens.inc(count)
        if self._last:
            series.inter_token.observe(now - self._last)
        else:
            series.first_token.observe(now - self._arrived)
            series.queue.observe(max(0.0, now - self._begun - output.prefill_seconds))
            series.prompt_tokens.inc(self._prompt_tokens)
            if output.cached_tokens:
                series.cached_tokens.inc(output.cached_tokens)
                series.cache_hits.inc()
        self._last = now

    def end(self, completion: Completion | None, error: BaseException | None) -> None:
        """The answer is over: whole, or because of an error, or because nobody wants it."""
        series = self._series
        if completion is not None and completion.finish_reason != "abort":
            outcome: str = completion.finish_reason
            series.request.observe(time.monotonic() - self._arrived)
        elif isinstance(error, UserError):
            outcome = "refused"
        elif isinstance(error, CapacityError):
            outcome = "overloaded"
        elif isinstance(error, Exception):
            outcome = "failed"
        else:
            outcome = "cancelled"
        series.outcomes[outcome].inc()


class _Now(Collector):
    """How things stand: looks at the models when it is asked."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models
        self._past: dict[str, EngineStats] = {}  # by model, of engines that are gone
        self._gone: WeakSet[AsyncLLM] = WeakSet()  # whose totals are in there
        self._lock = threading.Lock()  # render may run on another thread

    def keep(self, model: ServedModel) -> None:
        """Add the totals of an engine that is about to go to those of the ones before."""
        with self._lock:
            self._past[model.name] = self._totals(model)
            if model.llm is not None:
                self._gone.add(model.llm)

    def _totals(self, model: ServedModel) -> EngineStats:
        """Of all engines the model had. One that is in the middle of a step is a little behind."""
        total = self._past.get(model.name, EngineStats()).snapshot()
        llm = model.llm
        if llm is not None and llm not in self._gone:
            now = llm.stats()
            for field, _, _ in _ENGINE_TOTALS:
                setattr(total, field, getattr(total, field) + getattr(now, field))
        return total

    def collect(self) -> Iterator[Metric]:
        """The gauges, and the engines' totals."""
        models = self._models.bases()

        def gauge(name: str, text: str, *labels: str) -> Any:
            return GaugeMetricFamily(PREFIX + name, text, labels=labels)

        limit = gauge("model_memory_limit_bytes", "Memory for all models together.")
        limit.add_metric([], self._models.memory_bytes)
        yield limit
        loaded = gauge("model_loaded", "1 while the model is loaded.", "model")
        size = gauge("model_bytes", "Memory of the model's weights and cache.", "model")
        users = gauge("model_users", "Requests that use the model or wait for it.", "model")
        running = gauge("running_sequences", "Sequences that the next step computes.", "model")
        waiting = gauge("waiting_sequences", "Sequences that are not begun yet.", "model")
        total = gauge("kv_blocks", "Cache blocks. A pool is for layers of one window.",
                      "model", "pool")  # fmt: skip
        used = gauge("kv_blocks_used", "Of these, those that sequences hold.", "model", "pool")
        cached = gauge(
            "kv_blocks_cached", "Of these, those that nobody holds and a prompt could share.",
            "model", "pool",
        )  # fmt: skip
        for model in models:
            name, llm = [model.name], model.llm
            loaded.add_metric(name, model.state == "loaded")
            size.add_metric(name, model.nbytes)
            users.add_metric(name, model.users)
            if llm is None:
                continue
            load = llm.load()
            running.add_metric(name, load.running)
            waiting.add_metric(name, load.waiting)
            for index, pool in enumerate(load.pools):
                where = [model.name, str(index)]
                total.add_metric(where, pool.num_blocks)
                used.add_metric(where, pool.num_held)
                cached.add_metric(where, pool.num_idle)
        yield from (loaded, size, users, running, waiting, total, used, cached)
        with self._lock:
            totals = [(model.name, self._totals(model)) for model in models]
        for field, short, text in _ENGINE_TOTALS:
            family = CounterMetricFamily(PREFIX + short, text, labels=["model"])
            for label, stats in totals:
                family.add_metric([label], getattr(stats, field))
            yield family
