# SPDX-License-Identifier: Apache-2.0
"""Loading, sharing memory and letting go, with models that only pretend to be large."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from freehold.errors import EngineError, InvalidParameterError, MalformedFileError
from freehold.llm import LLM
from freehold.server.failures import RequestError
from freehold.server.models.memory import ServedNeed, memory_need
from freehold.server.models.registry import ModelRegistry
from freehold.server.quantities import parse_bytes, parse_keep_alive
from freehold.server.settings import ServerSettings
from freehold.types import SamplingParams


class FakeEngine:
    """As much of an engine as its thread asks for."""

    config = SimpleNamespace(max_num_seqs=4)

    def __init__(self) -> None:
        self.broken = False

    def add(self, *_: Any, **__: Any) -> None:
        """A request that it will not live to answer."""

    def abort(self, request_id: str) -> None:
        """There is nothing to drop."""

    def has_unfinished(self) -> bool:
        return self.broken

    def step(self) -> list[Any]:
        raise RuntimeError("the device is on fire")


class FakeLLM:
    notices = ()

    def __init__(self, house: House, source: str, cache: int) -> None:
        self.house, self.source, self.cache = house, source, cache
        self.engine = FakeEngine()
        self.nbytes = house.real.get(source, house.sizes[source] + cache)

    def close(self) -> None:
        self.house.closed.append(self.source)


class House:
    """Opens fake models: `sizes` are their weights, and each wants 10 to 40 bytes of cache."""

    def __init__(self, **sizes: int) -> None:
        self.sizes, self.real = sizes, dict[str, int]()
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def open(self, source: str, *, kv_memory_bytes: int, progress: Any) -> Any:
        self.opened.append(source)
        progress(1, 2)
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        return FakeLLM(self, source, kv_memory_bytes)

    def registry(self, memory: int = 1000, **settings: Any) -> ModelRegistry:
        settings = {"memory_bytes": memory, "memory_wait": 5.0, **settings}
        return ModelRegistry(
            ServerSettings(models=tuple(self.sizes), **settings),
            self.open,
            lambda source: ServedNeed(self.sizes[source], 10, 40),
        )


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


async def use(registry: ModelRegistry, name: str, **given: Any) -> None:
    async with registry.lease(name, **given):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_a_model_is_loaded_once_for_all_who_ask() -> None:
    async def work() -> None:
        house = House(a=100)
        registry = house.registry()
        house.gate.clear()
        waiting = [asyncio.create_task(use(registry, "a")) for _ in range(8)]
        model = registry.find("a")
        await until(lambda: model.progress == 0.5)
        assert (model.state, model.users, model.holders) == ("loading", 8, 0)
        assert model.nbytes == 140
        waiting[0].cancel()  # the first to ask goes away, the others are served
        house.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [None] * 7
        assert house.opened == ["a"]
        assert (model.state, model.users, model.holders) == ("loaded", 0, 0)
        await registry.close()
        assert house.closed == ["a"]
        assert registry.memory_used == 0

    run(work)


def test_all_who_wait_learn_why_a_load_failed_and_the_next_may_try_again() -> None:
    async def work() -> None:
        house = House(a=100)
        house.failure = MalformedFileError("a.gguf: the file is cut off")
        registry = house.registry()
        house.gate.clear()
        waiting = [asyncio.create_task(use(registry, "a")) for _ in range(3)]
        await until(lambda: house.opened == ["a"])
        house.gate.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [MalformedFileError] * 3
        model = registry.find("a")
        assert (model.state, model.error) == ("unloaded", "a.gguf: the file is cut off")
        assert registry.memory_used == 0
        house.failure = None
        await use(registry, "a")
        assert (model.state, model.error) == ("loaded", None)
        await registry.close()

    run(work)


def test_the_least_recently_used_model_makes_room_unless_it_is_pinned() -> None:
    async def work() -> None:
        house = House(a=100, b=100, c=100, d=100)
        registry = house.registry(memory=450, pinned=("a",))
        for name in ("a", "b", "c"):
            await use(registry, name)
        await use(registry, "b")  # now c is the one that nobody missed for longest
        await use(registry, "d")
        states = {model.name: model.state for model in registry.models()}
        assert states == {"a": "loaded", "b": "loaded", "c": "unloaded", "d": "loaded"}
        assert registry.memory_used <= 450
        await registry.close()

    run(work)


def test_a_request_waits_for_memory_and_is_told_when_to_come_back() -> None:
    async def work() -> None:
        house = House(a=100, b=100)
        registry = house.registry(memory=160, memory_wait=0.2)
        async with registry.lease("a"):
            with pytest.raises(RequestError) as refused:
                await use(registry, "b")
            assert refused.value.kind == "overloaded"
            assert refused.value.retry_after == 1
            late = asyncio.create_task(use(registry, "b"))
            await asyncio.sleep(0.05)
            assert house.closed == []  # nobody loses a model that he holds
        await late
        assert house.closed == ["a"]
        await registry.close()

    run(work)


def test_what_can_never_fit_is_refused_at_once() -> None:
    async def work() -> None:
        house = House(a=100, b=500)
        registry = house.registry(memory=300)
        with pytest.raises(RequestError, match=r"b needs .* for models") as refused:
            await use(registry, "b")
        assert refused.value.kind == "invalid_request"
        await registry.close()

    run(work)


def test_caches_share_what_is_left() -> None:
    need = ServedNeed(100, 10, 1000)
    assert need.cache_of(500, alone=True) == 400
    assert need.cache_of(500, alone=False) == 10 + 390 // 2
    assert need.cache_of(110, alone=False) == 10
    assert ServedNeed(100, 10, 40).cache_of(500, alone=True) == 40


def test_the_real_size_counts_once_it_is_known() -> None:
    async def work() -> None:
        house = House(a=100, b=100)
        house.real["b"] = 290
        registry = house.registry(memory=300)
        await use(registry, "a")
        async with registry.lease("b") as model:
            assert model.nbytes == 290
            await until(lambda: house.closed == ["a"])
        await registry.close()

    run(work)


@pytest.mark.parametrize("keep_alive", [0.0, 0.05])
def test_a_model_nobody_asks_for_is_let_go(keep_alive: float) -> None:
    async def work() -> None:
        house = House(a=100)
        registry = house.registry(keep_alive=keep_alive)
        model = registry.find("a")
        async with registry.lease("a"):
            await asyncio.sleep(0.1)
            assert (model.state, model.expires_at) == ("loaded", None)
        await until(lambda: model.state == "unloaded")
        await use(registry, "a", keep_alive=math.inf)
        await asyncio.sleep(0.1)
        assert (model.state, model.expires_at) == ("loaded", None)
        await use(registry, "a", keep_alive=0)
        await until(lambda: model.state == "unloaded")
        assert house.opened == ["a", "a"]
        await registry.close()

    run(work)


def test_unloading_waits_for_those_who_hold_the_model() -> None:
    async def work() -> None:
        house = House(a=100)
        registry = house.registry()
        async with registry.lease("a"):
            going = asyncio.create_task(registry.unload("a"))
            await asyncio.sleep(0.03)
            assert house.closed == []
        assert await going
        assert house.closed == ["a"]
        assert not await registry.unload("a")
        await registry.close()

    run(work)


def test_a_broken_engine_is_replaced_for_the_next_request() -> None:
    async def work() -> None:
        house = House(a=100)
        registry = house.registry()
        async with registry.lease("a") as model:
            first = model.loaded
            first.llm.engine.broken = True  # type: ignore[attr-defined]
            with pytest.raises(EngineError):
                async for _ in first._engine.stream([1], SamplingParams()):
                    pass
            await until(lambda: first.failure is not None)
        assert "on fire" in str(first.failure)
        async with registry.lease("a") as model:
            assert model.loaded is not first
            assert model.loads == 2
        await registry.close()
        assert house.closed == ["a", "a"]

    run(work)


def test_random_use_never_exceeds_the_budget_nor_closes_a_model_in_use() -> None:
    async def work() -> None:
        house = House(a=60, b=70, c=80, d=90)
        registry = house.registry(memory=260, keep_alive=0.01)
        done = 0

        async def client(number: int) -> None:
            nonlocal done
            for turn in range(12):
                name = "abcd"[(number * 7 + turn * 3) % 4]
                try:
                    async with asyncio.timeout(0.004 if (number + turn) % 5 == 0 else 10):
                        async with registry.lease(name) as model:
                            held = model.loaded
                            await asyncio.sleep(0.001 * (turn % 3))
                            assert model.llm is held
                            assert model.state == "loaded"
                            assert registry.memory_used <= 260
                    done += 1
                except TimeoutError:
                    continue

        await asyncio.gather(*(client(number) for number in range(8)))
        assert done > 60
        await registry.close()
        assert sorted(house.opened) == sorted(house.closed)
        assert all(model.users == model.holders == 0 for model in registry.models())

    run(work)


def test_the_need_of_a_real_model_is_told_from_its_headers() -> None:
    settings = {"threads": 1, "context_length": 512, "max_num_seqs": 4}
    need = memory_need("seedling", settings)
    with LLM("seedling", kv_memory_bytes=need.full_cache, **settings) as llm:
        assert llm.model.weight_bytes() == pytest.approx(need.weights, rel=0.1)
        assert llm.engine.kv_bytes == pytest.approx(need.full_cache, rel=0.02)
    with LLM("seedling", kv_memory_bytes=need.least_cache, **settings) as llm:
        assert llm.context_length == 512


def test_a_real_model_is_used_while_it_is_loaded_and_unloaded() -> None:
    async def work() -> None:
        settings = ServerSettings(
            models=("one=seedling", "two=seedling"),
            engine={"threads": 1, "context_length": 256, "max_num_seqs": 4},
            memory_bytes=memory_need("seedling", {"context_length": 256}).least * 3 // 2,
        )
        registry = ModelRegistry(settings)
        params = SamplingParams(max_tokens=3, temperature=0)

        async def answer(name: str) -> tuple[int, ...]:
            async with registry.lease(name) as model:
                ids = model.loaded.llm.ids("Once upon a time")
                async for event in model.loaded.stream(ids, params):
                    if event.completion is not None:
                        return event.completion.token_ids
            raise AssertionError

        answers = await asyncio.gather(*(answer(name) for name in ("one", "two", "one", "two")))
        assert len(set(answers)) == 1
        assert sum(model.loads for model in registry.models()) >= 2
        await registry.close()

    run(work)


def test_names_to_pin_and_to_load_first_must_be_served() -> None:
    with pytest.raises(Exception, match="no model is served as 'z'"):
        House(a=1).registry(pinned=("z",))


def test_spans_and_amounts() -> None:
    assert parse_keep_alive("10m") == 600
    assert parse_keep_alive("1h30m") == 5400
    assert parse_keep_alive("0") == parse_keep_alive(0) == 0
    assert parse_keep_alive(-1) == parse_keep_alive("-1m") == math.inf
    assert parse_bytes("8GiB") == parse_bytes("8g") == 8 << 30
    assert parse_bytes("500MB") == 500_000_000
    assert parse_bytes("12345") == 12345
    for bad in ("", "soon", "5 m", "1d", "-", "9" * 400):
        with pytest.raises(InvalidParameterError):
            parse_keep_alive(bad)
    for bad in ("", "-1", "8 pounds", "0", "1e9"):
        with pytest.raises(InvalidParameterError):
            parse_bytes(bad)
