# SPDX-License-Identifier: Apache-2.0
"""`AsyncLLM`: one loaded model shared by any number of coroutines.

Puts `LLM`, which knows text, on top of `AsyncEngine`, which owns the loop's thread. Whatever
touches text before the first token (templates, tokenizers) runs on one thread of its own, so a
long prompt delays nobody's stream. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Protocol, TypeVar

from freehold._llm_inputs import stacked
from freehold._llm_labels import LabelTask
from freehold.chat.output_parser import OutputParser
from freehold.engine.async_engine import AsyncEngine, EngineLoad
from freehold.engine.engine import Engine
from freehold.engine.measuring import Measurement, Pooling, numbers_of
from freehold.engine.metrics import EngineStats
from freehold.engine.sequence import LogitsProcessor, StepOutput
from freehold.engine.structured import Grammar
from freehold.llm import LLM
from freehold.ops import FloatArray
from freehold.types import Classification, Completion, Constraint, SamplingParams, StreamEvent

_Result = TypeVar("_Result")
_AT_A_TIME = 32  # measurements of one job that the engine knows of: others' requests come between


class Answer(Protocol):
    """Told how one answer goes."""

    def take(self, output: StepOutput) -> None:
        """A step brought something."""

    def end(self, completion: Completion | None, error: BaseException | None) -> None:
        """It is over: whole, or by an error, or because nobody wants it any more."""


class AnswerWatch(Protocol):
    """Told of every answer that is wanted, in the task that wants it."""

    def begin(self, prompt_tokens: int) -> Answer:
        """One is wanted to a prompt of so many tokens."""


class AsyncLLM:
    """Takes `llm` over: nobody else may call its methods from now on, and `close` closes it."""

    def __init__(
        self, llm: LLM, *, max_waiting: int = 1024, watch: AnswerWatch | None = None,
        salt: Callable[[], bytes] = bytes,
    ) -> None:  # fmt: skip
        """`salt` is asked, in the task that wants something, among whom computed prefixes may be
        shared; see `Engine.add`."""
        self.llm = llm
        self._salt = salt
        self._watch = watch
        self._engine = AsyncEngine(llm.engine, max_waiting=max_waiting)
        self._text = ThreadPoolExecutor(1, thread_name_prefix="freehold-text")
        self._adapter: str | None = None

    def under(self, adapter: str, *, watch: AnswerWatch | None = None) -> AsyncLLM:
        """The same model for requests under one of its adapters, which `watch` hears of. Close the
        model, not this."""
        view = copy.copy(self)
        view._adapter, view._watch = adapter, watch
        return view

    @property
    def adapter_name(self) -> str | None:
        """Of the adapter that requests run under, where this is a view of one."""
        return self._adapter

    async def load_adapter(self, name: str, path: str | Path) -> None:
        """`LLM.load_adapter`, between two steps of what runs."""
        await self.on_engine(lambda _: self.llm.load_adapter(name, path))

    async def unload_adapter(self, name: str) -> None:
        """`LLM.unload_adapter`; requests that run under it end as they began."""
        await self.on_engine(lambda _: self.llm.unload_adapter(name))

    async def text(self, function: Callable[[LLM], _Result]) -> _Result:
        """Run `function` on the thread for text: rendering, tokenizing, compiling grammars."""
        return await asyncio.get_running_loop().run_in_executor(self._text, function, self.llm)

    def check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Raise at once what `stream` would raise for them later."""
        try:
            self.llm.engine.check(prompt, params)
        except BaseException as error:
            if self._watch is not None:
                self._watch.begin(len(prompt)).end(None, error)
            raise

    async def stream(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        continues: bool = False,
        parser: OutputParser | None = None,
        logits_processor: LogitsProcessor | None = None,
        constraint: Constraint | Grammar | None = None,
        adapter: str | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Events of one answer; the last carries the completion. Leaving early aborts it.

        Close the iterator (`contextlib.aclosing`) where it may be left early. `constraint` is the
        form of the answer: of all of it, or as `grammar` compiled it. `adapter` is the name of a
        loaded one. Raises what `AsyncEngine.stream` raises, ConstraintError, and
        InvalidParameterError for an adapter that is not there.
        """
        if isinstance(constraint, Constraint):
            form = constraint
            constraint = await self.grammar(lambda llm: llm.text_grammar(form))
        constrained = constraint is not None
        request = self.llm.make_request(
            prompt, params, continues=continues or constrained, parser=parser
        )
        outputs = self._engine.stream(
            prompt, params, logits_processor=logits_processor,
            constraint=None if constraint is None else constraint.start(),
            adapter=self.llm.adapter(adapter or self._adapter), salt=self._salt(),
        )  # fmt: skip
        answer = None if self._watch is None else self._watch.begin(len(prompt))
        error: BaseException | None = None
        try:
            async with aclosing(outputs) as steps:
                async for output in steps:
                    if answer is not None:
                        answer.take(output)
                    request.take(output)
                    while request.events:
                        yield request.events.popleft()
                    if request.done:
                        break
            if request.error is not None:
                raise request.error
        except BaseException as raised:
            error = raised
            raise
        finally:
            if answer is not None:
                answer.end(request.completion, error)

    async def grammar(self, function: Callable[[LLM], Grammar | None]) -> Grammar | None:
        """Compile on a thread of its own: a hard one delays nobody's prompt."""
        return await asyncio.to_thread(function, self.llm)

    async def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Pooling | None = None
    ) -> FloatArray:
        """Final hidden states of each prompt as one vector of length 1: float32 [n, hidden].

        They share steps with each other and with whatever else runs. `pooling` as of `LLM.embed`.
        """
        how = self.llm.pooling if pooling is None else pooling
        outputs = await self.measure([Measurement(ids, how) for ids in prompts])
        return stacked([numbers_of(o) for o in outputs], self.llm.config.hidden_size, True)

    async def score(self, ids: Sequence[int], first: int = 1) -> FloatArray:
        """Log-probability of each token from position `first` on: float32 [len(ids) - first]."""
        return numbers_of((await self.measure([Measurement(ids, "scores", first)]))[0])

    async def classify(self, task: LabelTask) -> tuple[list[Classification], list[StepOutput]]:
        """What `LLM.classify` gives for a task of `LLM.label_task`, and the engine's outputs, one
        per measurement."""
        outputs = await self.measure(task.measurements)
        return task.results([numbers_of(output) for output in outputs]), outputs

    async def measure(self, wanted: Sequence[Measurement]) -> list[StepOutput]:
        """Outputs of many measurements in their order, a limited number at a time.

        Raises what `AsyncEngine.measure` raises; the others are dropped then.
        """
        adapter, salt = self.llm.adapter(self._adapter), self._salt()
        outputs: dict[int, StepOutput] = {}
        todo = iter(enumerate(wanted))  # the workers share it

        async def work() -> None:
            for index, each in todo:
                outputs[index] = await self._engine.measure(each, adapter=adapter, salt=salt)

        workers = [asyncio.create_task(work()) for _ in range(min(_AT_A_TIME, len(wanted)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [outputs[index] for index in range(len(wanted))]

    async def on_engine(self, function: Callable[[Engine], _Result]) -> _Result:
        """Run `function` on the engine's thread between two steps."""
        return await self._engine.call(function)

    def load(self) -> EngineLoad:
        """How busy the model is."""
        return self._engine.load()

    def stats(self) -> EngineStats:
        """The engine's totals until now."""
        return self._engine.stats()

    @property
    def failure(self) -> BaseException | None:
        """What stopped the engine for good, if something did: load the model again."""
        return self._engine.failure

    async def drain(self) -> None:
        """Take no more requests and wait until those accepted are over."""
        await self._engine.drain()

    def close(self) -> None:
        """End what runs with EngineError and give the model's memory back."""
        self._engine.close()
        self._text.shutdown(wait=True, cancel_futures=True)
        self.llm.close()
