# SPDX-License-Identifier: Apache-2.0
"""The models a server answers for: which are loaded, and who uses them.

Models are loaded when they are asked for and share a budget of memory. Where it is short, the
least recently used one that nobody uses and that is not pinned is let go; where all are in use,
a request waits a while and is then told to come back. Whoever holds a lease keeps the model
loaded; a model nobody asks for is let go after a while. A load happens once, however many ask for
it, and all of them learn how it went. Which names there are is `served_names.py`'s. Knows nothing
of requests, and of HTTP only what `RequestError` does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from freehold.async_llm import AsyncLLM
from freehold.errors import FreeholdError
from freehold.llm import LLM
from freehold.planner.recorder import remember_service
from freehold.server.failures import RequestError
from freehold.server.models.memory import ServedNeed, default_budget, give_memory_back, memory_need
from freehold.server.models.served_model import ServedModel
from freehold.server.models.served_names import ServedNames
from freehold.server.models.stored_names import short_name
from freehold.server.monitoring.observer import UnloadReason
from freehold.server.monitoring.record_watch import RecordWatch
from freehold.server.request_context import current, prefix_salt
from freehold.server.settings import ServerSettings

__all__ = ["ModelRegistry", "ServedModel", "short_name"]

# (source, keyword arguments of `LLM` beyond the server's own) -> the loaded model
Opener = Callable[..., LLM]
CRASH_GRACE_SECONDS = 5.0  # that requests get to take notice of a broken engine
_log = logging.getLogger("freehold.server")


class ModelRegistry(ServedNames):
    """Names and the models behind them. All methods belong to one event loop."""

    def __init__(
        self, settings: ServerSettings, open_model: Opener | None = None,
        estimate: Callable[[str], ServedNeed] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(settings)
        self.memory_bytes = settings.memory_bytes or default_budget()
        self._open: Opener = open_model or self._open_llm
        self._estimate = estimate or (lambda source: memory_need(source, settings.engine))
        self._room = asyncio.Lock()  # first come, first served: a large model is not starved
        self._changed = asyncio.Event()  # somebody let go of something
        self._closing = False

    def _open_llm(self, source: str, **given: Any) -> LLM:
        return LLM(source, **{**self.settings.engine, **given})

    @property
    def memory_used(self) -> int:
        """Bytes of the budget that models take, those that are coming or going included."""
        return sum(model.nbytes for model in self._all())

    # -- use -------------------------------------------------------------------------------------
    @asynccontextmanager
    async def lease(self, name: str, keep_alive: float | None = None) -> AsyncIterator[ServedModel]:
        """The model of a name, loaded, and kept so while the lease is held.

        `keep_alive` is how many seconds it stays loaded once nobody holds it (infinity: for good);
        None is the server's setting. Of several leases the last to end decides. A pinned model
        stays in any case.

        Raises ModelNotFoundError, what loading raises, and RequestError (overloaded) when other
        models use the memory it needs.
        """
        asked = self.find(name)
        current().model = asked.name
        model = asked.base
        self._refuse_when_closing()
        patient = current().patient
        model.users += 1
        model.patient += patient
        self._stop_timer(model)
        held = False
        try:
            await self._ready(model)
            model.holders += 1
            held = True
            yield asked
        finally:
            model.users -= 1
            model.patient -= patient
            model.holders -= held
            model.last_used = time.monotonic()
            self._changed.set()
            if not model.users and model.state == "loaded":
                self._start_timer(model, keep_alive)

    async def preload(self) -> None:
        """Load what was to be loaded before the first request. A model that cannot be loaded is
        told in the log and by its `error`; whoever asks for it is told again."""
        for name in dict.fromkeys((*self.settings.preload, *self.settings.pinned)):
            try:
                async with self.lease(name):
                    pass
            except FreeholdError as error:
                _log.error("%s could not be loaded: %s", name, error)

    async def withdraw(self, model: ServedModel) -> None:
        """Answer for a model no longer, let it go once nobody uses it, and wait for that."""
        self.retire(model)
        while model.state != "unloaded":
            if model.users == 0 and model.task is not None and not model.task.done():
                await _over(model.task)
            else:
                await self._wait_for_change()

    async def unload(self, name: str) -> bool:
        """Let a model go as soon as the answers that it is giving are over, and wait for that.

        False where it is in use by then again, not loaded, or pinned. Raises ModelNotFoundError.
        """
        model = self.find(name).base
        while model.users or model.state in ("loading", "unloading"):
            if model.users == 0 and model.task is not None:
                await _over(model.task)
            else:
                await self._wait_for_change()
        if not model.evictable:
            return False
        await _over(self._unload(model, "asked"))
        return True

    # -- loading ---------------------------------------------------------------------------------
    async def _ready(self, model: ServedModel) -> None:
        """Wait until the model is loaded; the first to ask makes it so."""
        while True:
            if model.state == "loaded":
                if model.loaded.failure is None:
                    return
                _log.error("%s: the engine has stopped and is loaded anew", model.name)
                self._unload(model, "broken")
            if model.state == "unloading":
                assert model.task is not None
                await _over(model.task)
                continue
            self._refuse_when_closing()
            if model.state == "unloaded":
                model.state = "loading"
                model.task = _spawn(self._load(model), model.name)
            assert model.task is not None
            # Whoever goes away must not take the others' model with him.
            await asyncio.shield(model.task)

    async def _load(self, model: ServedModel) -> None:
        model.progress = 0.0
        began = time.monotonic()
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(setattr, model, "progress", done / max(1, total))

        try:
            # Once more: it may have changed since the server began.
            await asyncio.to_thread(self._enforce_policy, model.source)
            need = await asyncio.to_thread(self._estimate, model.source)
            given: dict[str, Any] = {"progress": progress}
            if model.adapters:
                need = await asyncio.to_thread(need.with_adapters, model.adapters.values())
                given["adapters"] = dict(model.adapters)
            given["kv_memory_bytes"] = await self._reserve(model, need)
            llm = await asyncio.to_thread(self._open, model.source, **given)
            model.nbytes = llm.nbytes
            model.llm = AsyncLLM(
                llm,
                max_waiting=self.settings.max_waiting,
                watch=RecordWatch(model.name, self.observer.answers(model.name)),
                salt=prefix_salt,
            )
        except BaseException as error:
            model.state, model.nbytes = "unloaded", 0
            model.error = str(error)
            self._forget(model)
            self.observer.load_failed(model)
            raise
        finally:
            self._changed.set()
        model.state, model.error, model.progress = "loaded", None, 1.0
        model.loads += 1
        self.observer.loaded(model, time.monotonic() - began)
        for notice in llm.notices:
            _log.warning("%s: %s", model.name, notice)
        self._trim()
        if not model.users:  # those who asked are gone
            self._start_timer(model, None)

    async def _reserve(self, model: ServedModel, need: ServedNeed) -> int:
        """Find memory for a model, which others may have to leave; how much its cache may take."""
        pinned = sum(m.nbytes for m in self._all() if m.pinned and m is not model)
        if need.least > self.memory_bytes - pinned:
            kept = f", of which pinned models keep {_mib(pinned)}" if pinned else ""
            raise RequestError(
                f"{model.name} needs {_mib(need.least)} and there are "
                f"{_mib(self.memory_bytes)} for models{kept}",
                param="model",
                hint="the server's --memory sets it; a shorter --context needs less",
            )
        try:
            async with asyncio.timeout(self.settings.memory_wait), self._room:
                room = await self._make_room(need.least)
                cache = need.cache_of(room, alone=len(self._models) == 1)
                model.nbytes = need.weights + cache
                return cache
        except TimeoutError:
            raise RequestError(
                f"{model.name} needs {_mib(need.least)}, and other models that are in use leave "
                f"{_mib(max(0, self.memory_bytes - self.memory_used))}",
                kind="overloaded",
                retry_after=max(1, math.ceil(self.settings.memory_wait / 2)),
            ) from None

    async def _make_room(self, wanted: int) -> int:
        """Bytes that are free, at least `wanted`; waits for them as long as it takes."""
        while True:
            free = self.memory_bytes - self.memory_used
            if free >= wanted:
                return free
            idle = [model for model in self._all() if model.evictable]
            # Nobody is sent away in vain.
            if idle and free + sum(model.nbytes for model in idle) >= wanted:
                victim = min(idle, key=lambda model: model.last_used)
                _log.info("%s makes room", victim.name)
                await _over(self._unload(victim, "memory"))
            else:
                await self._wait_for_change()

    def _trim(self) -> None:
        """Let idle models go where one turned out larger than was thought."""
        over = self.memory_used - self.memory_bytes
        idle = sorted((m for m in self._all() if m.evictable), key=lambda m: m.last_used)
        for model in idle:
            if over <= 0:
                return
            over -= model.nbytes
            self._unload(model, "memory")

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def retire(self, model: ServedModel) -> None:
        """See `ServedNames.retire`; one that is loaded goes as soon as nobody uses it."""
        super().retire(model)
        if model.evictable:
            self._unload(model, "removed")

    # -- letting go ------------------------------------------------------------------------------
    def _unload(self, model: ServedModel, reason: UnloadReason) -> asyncio.Task[None]:
        """Begin to let a loaded model go; nobody holds it, or its engine has stopped."""
        assert model.state == "loaded"
        self._stop_timer(model)
        self.observer.unloading(model, reason)
        model.state = "unloading"
        model.task = _spawn(self._let_go(model), model.name)
        return model.task

    async def _let_go(self, model: ServedModel) -> None:
        llm = model.loaded
        try:
            if llm.failure is None:
                await llm.drain()
                if isinstance(llm.llm, LLM):
                    await asyncio.to_thread(remember_service, llm.llm)
            else:
                deadline = time.monotonic() + CRASH_GRACE_SECONDS
                while model.holders and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
            self.observer.unloaded(model)
            await asyncio.to_thread(llm.close)
        finally:
            del llm
            model.llm, model.state, model.nbytes, model.progress = None, "unloaded", 0, 0.0
            model.expires_at = None
            self._forget(model)
            self._changed.set()
        await asyncio.to_thread(give_memory_back)

    def _start_timer(self, model: ServedModel, keep_alive: float | None) -> None:
        self._stop_timer(model)
        seconds = self.settings.keep_alive if keep_alive is None else keep_alive
        if model.retired:  # nobody can ask for it again
            seconds = 0.0
        if model.pinned or seconds is None or math.isinf(seconds) or self._closing:
            return
        # A loop's clock takes no arbitrary number; a year is for good.
        seconds = min(max(0.0, seconds), 366 * 86400.0)
        model.expires_at = time.time() + seconds
        model.timer = asyncio.get_running_loop().call_later(seconds, self._expire, model)

    @staticmethod
    def _stop_timer(model: ServedModel) -> None:
        if model.timer is not None:
            model.timer.cancel()
        model.timer = model.expires_at = None

    def _expire(self, model: ServedModel) -> None:
        if model.evictable:
            self._unload(model, "removed" if model.retired else "idle")

    async def close(self) -> None:
        """Wait for what runs, then let all models go."""
        self._closing = True
        self._changed.set()
        for model in self._all():
            self._stop_timer(model)
            if model.state == "loading" and model.task is not None:
                await _over(model.task)
            if model.state == "loaded":
                self._unload(model, "shutdown")
            if model.state == "unloading" and model.task is not None:
                await _over(model.task)

    def _refuse_when_closing(self) -> None:
        if self._closing:
            raise RequestError("the server is shutting down", kind="overloaded", retry_after=5)


def _spawn(work: Any, name: str) -> asyncio.Task[None]:
    """A task whose failure is not reported a second time where nobody waits for it any more."""
    task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)

    def done(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("%s: %s", name, error)

    task.add_done_callback(done)
    return task


async def _over(task: asyncio.Task[None]) -> None:
    """Wait for a task to end, however it ends; it goes on if the caller is cancelled."""
    await asyncio.wait([task])


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
