# SPDX-License-Identifier: Apache-2.0
"""The only bridge between the engine's thread and asyncio.

One thread owns the engine and steps it while there is work; coroutines hand it commands and
receive each request's outputs in a queue of their own. Knows nothing of HTTP or text.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from freehold.engine.block_manager import BlockManager
from freehold.engine.engine import Engine
from freehold.engine.measuring import Measurement
from freehold.engine.metrics import EngineStats
from freehold.engine.sequence import LogitsProcessor, StepOutput
from freehold.engine.structured import TokenConstraint
from freehold.errors import CapacityError, EngineError
from freehold.models.adapters import Adapter
from freehold.types import SamplingParams

_Result = TypeVar("_Result")
_Add: TypeAlias = Callable[[Engine, str], None]  # queues a request under an id
_Queue: TypeAlias = "asyncio.Queue[StepOutput | BaseException]"


@dataclass(slots=True)
class _Listener:
    loop: asyncio.AbstractEventLoop
    queue: _Queue = field(default_factory=asyncio.Queue)


class _Post:
    """What one step brings, on its way to the loops: a loop is woken once, however many of its
    requests get something."""

    def __init__(self) -> None:
        self._bags: dict[asyncio.AbstractEventLoop, list[tuple[_Queue, Any]]] = {}

    def put(self, listener: _Listener, item: StepOutput | BaseException) -> None:
        """Add something to the next delivery."""
        self._bags.setdefault(listener.loop, []).append((listener.queue, item))

    def deliver(self) -> None:
        """Send what there is. A loop that is gone has nobody left to tell."""
        for loop, bag in self._bags.items():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_hand_out, bag)
        self._bags.clear()


def _hand_out(bag: list[tuple[_Queue, Any]]) -> None:
    for queue, item in bag:
        queue.put_nowait(item)


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is."""

    running: int  # sequences that the next step computes
    waiting: int  # those that are not begun yet
    pools: tuple[BlockManager, ...]  # of cache blocks, to be looked at only


class AsyncEngine:
    """Serves one `Engine` to any number of coroutines, on any number of loops.

    `max_waiting` requests beyond those running are taken; more are refused with CapacityError,
    which a server answers with "come back later".
    """

    def __init__(self, engine: Engine, *, max_waiting: int = 1024) -> None:
        self._engine = engine
        self._limit = engine.config.max_num_seqs + max_waiting
        self._wake = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._listeners: dict[str, _Listener] = {}  # touched by the engine thread only
        self._post = _Post()  # likewise
        self._open = 0  # requests accepted and not over, guarded by _wake
        self._count = 0
        self._closing = False
        self._draining = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="freehold-engine", daemon=True)
        self._thread.start()

    async def stream(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        logits_processor: LogitsProcessor | None = None,
        constraint: TokenConstraint | None = None,
        adapter: Adapter | None = None,
        salt: bytes = b"",
    ) -> AsyncGenerator[StepOutput, None]:
        """Outputs of one request as they come. Leaving the iteration early aborts the request.

        Raises what `Engine.add` raises, the request's own error, CapacityError when too many are
        waiting, and EngineError when the engine has stopped.
        """

        def add(engine: Engine, request_id: str) -> None:
            engine.add(
                prompt_token_ids, params, request_id=request_id,
                logits_processor=logits_processor, constraint=constraint, adapter=adapter,
                salt=salt,
            )  # fmt: skip

        async with aclosing(self._outputs(add)) as outputs:
            async for output in outputs:
                yield output

    async def measure(
        self, wanted: Measurement, *, adapter: Adapter | None = None, salt: bytes = b""
    ) -> StepOutput:
        """The output of one measurement, which shares steps with whatever else runs: its `numbers`
        are set.

        Raises what `Engine.add_measurement` and `stream` raise.
        """

        def add(engine: Engine, request_id: str) -> None:
            engine.add_measurement(wanted, request_id=request_id, adapter=adapter, salt=salt)

        async with aclosing(self._outputs(add)) as outputs:
            return await anext(outputs)

    async def _outputs(self, add: _Add) -> AsyncGenerator[StepOutput, None]:
        listener = _Listener(asyncio.get_running_loop())
        request_id = self._admit(add, listener)
        over = False
        try:
            while not over:
                item = await listener.queue.get()
                if isinstance(item, BaseException):
                    over = True
                    raise item
                over = item.finished is not None
                if item.error is not None:
                    raise item.error
                yield item
        finally:
            with self._wake:
                self._open -= 1
            if not over:
                self._send(lambda: self._abort(request_id))

    async def call(self, function: Callable[[Engine], _Result]) -> _Result:
        """Run `function` on the engine's thread between two steps: statistics, say.

        Requests that run meanwhile wait and lose nothing. Raises what it raises, and EngineError
        when the engine has stopped.
        """
        future: concurrent.futures.Future[_Result] = concurrent.futures.Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(self._engine))
            except BaseException as error:
                future.set_exception(error)

        with self._wake:
            self._refuse_when_closed()
            self._send(run)
        return await asyncio.wrap_future(future)

    @property
    def failure(self) -> BaseException | None:
        """What stopped the engine for good, if something did; nothing can be asked of it then."""
        return self._failure

    def load(self) -> EngineLoad:
        """How busy it is. A step may be under way, so the numbers may be a step apart."""
        with self._wake:
            taken = self._open
        running = self._engine.num_running
        waiting = max(taken, self._engine.num_unfinished) - running
        return EngineLoad(running, max(0, waiting), self._engine.pools)

    def stats(self) -> EngineStats:
        """The engine's totals until now."""
        return self._engine.stats.snapshot()

    async def drain(self) -> None:
        """Take no more requests and wait until those accepted are over."""
        with self._wake:
            self._draining = True
        while True:
            with self._wake:
                if self._open == 0:
                    return
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Stop the thread. Requests that are not over end with EngineError. May be called twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- coroutine side --------------------------------------------------------------------------
    def _admit(self, add: _Add, listener: _Listener) -> str:
        """Hand the request over, or refuse it: in one go, lest the engine stop in between and
        nobody answer."""
        with self._wake:
            self._refuse_when_closed()
            if self._open >= self._limit:
                raise CapacityError(
                    f"{self._open} requests are running or waiting", hint="try again later"
                )
            self._open += 1
            self._count += 1
            request_id = f"stream-{self._count}"
            self._send(lambda: self._add(request_id, add, listener))
            return request_id

    def _refuse_when_closed(self) -> None:
        """Raise EngineError where nothing may be asked any more; the lock is held."""
        if self._failure is not None:
            raise EngineError(f"the engine has stopped: {self._failure}") from self._failure
        if self._closing or self._draining:
            raise EngineError("the engine is shutting down")

    def _send(self, command: Callable[[], None]) -> None:
        with self._wake:  # its lock is reentrant
            self._commands.append(command)
            self._wake.notify()

    # -- engine thread ----------------------------------------------------------------------------
    def _add(self, request_id: str, add: _Add, listener: _Listener) -> None:
        try:
            add(self._engine, request_id)
        except Exception as error:  # even one nobody foresaw is this request's own
            self._post.put(listener, error)
            self._post.deliver()
            return
        self._listeners[request_id] = listener

    def _abort(self, request_id: str) -> None:
        if self._listeners.pop(request_id, None) is not None:
            self._engine.abort(request_id)

    def _run(self) -> None:
        try:
            while self._obey():
                for output in self._engine.step():
                    listener = self._listeners.get(output.request_id)
                    if listener is None:
                        continue
                    self._post.put(listener, output)
                    if output.finished is not None:
                        del self._listeners[output.request_id]
                self._post.deliver()
            self._tell_all(EngineError("the engine was shut down"))
        except BaseException as error:  # whatever it is, no stream may hang
            with self._wake:
                self._failure = error
            self._tell_all(EngineError(f"the engine has stopped: {error}"))

    def _obey(self) -> bool:
        """Carry out commands; sleep while there is nothing to do. False = stop."""
        while True:
            with self._wake:
                while not (self._commands or self._closing or self._engine.has_unfinished()):
                    self._wake.wait()
                if self._closing:
                    return False
                commands, self._commands = self._commands, deque()
            for command in commands:
                command()
            if self._engine.has_unfinished():
                return True

    def _tell_all(self, error: EngineError) -> None:
        with self._wake:
            self._closing = True
            commands, self._commands = self._commands, deque()
        for command in commands:  # requests that arrived too late learn it too
            command()
        for request_id, listener in self._listeners.items():
            self._post.put(listener, error)
            self._engine.abort(request_id)
        self._post.deliver()
        self._listeners.clear()
