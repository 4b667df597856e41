# SPDX-License-Identifier: Apache-2.0
"""Coroutines over the engine's thread: order, cancellation, errors, limits, the end.

Every wait has a limit, so that a hang fails instead of hanging; every test checks that the
thread is gone and that nothing was left in the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest
from hash_model import HashModel, HashOps, check_empty, greedy_answer, tokens_of

from freehold.config import EngineConfig
from freehold.engine.async_engine import AsyncEngine
from freehold.engine.engine import Engine
from freehold.errors import CapacityError, ContextLengthError, EngineError, InvalidParameterError
from freehold.types import SamplingParams

VOCAB = 6
LIMIT = 20.0


def greedy(**options):
    return SamplingParams(temperature=0.0, **options)


class Gated(HashModel):
    """A model that can be made slow, and told to fail."""

    def __init__(self, vocab):
        super().__init__(vocab)
        self.delay = 0.0
        self.failure: BaseException | None = None

    def forward(self, batch, cache, ops):
        time.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        return super().forward(batch, cache, ops)


@contextlib.contextmanager
def served(max_waiting=1024, **config):
    model = Gated(VOCAB)
    settings = {"context_length": 600, "num_blocks": 400, "block_size": 4} | config
    engine = Engine(model, HashOps(), EngineConfig(**settings))
    before = threading.active_count()
    bridge = AsyncEngine(engine, max_waiting=max_waiting)
    try:
        yield bridge, engine, model
    finally:
        bridge.close()
        bridge.close()  # twice is fine
        assert threading.active_count() == before
        check_empty(engine)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, LIMIT))


async def collect(bridge, prompt, params, **options):
    return [output async for output in bridge.stream(prompt, params, **options)]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.002)


def over(task):
    """Refused, cut short, or faster than whoever stopped the engine."""
    if task.exception() is None:
        return task.result()[-1].finished == "length"
    return isinstance(task.exception(), EngineError)


def test_many_coroutines_each_get_their_own_answer():
    async def main():
        prompts = [[n % VOCAB, n // VOCAB, 1] for n in range(30)]
        answers = await asyncio.gather(
            *(collect(bridge, prompt, greedy(max_tokens=5 + n)) for n, prompt in enumerate(prompts))
        )
        for n, (prompt, outputs) in enumerate(zip(prompts, answers, strict=True)):
            assert tokens_of(outputs) == greedy_answer(prompt, 5 + n, VOCAB)
            assert [output.finished for output in outputs] == [None] * (4 + n) + ["length"]

    with served(max_num_seqs=7) as (bridge, _, _):
        run(main())


def test_several_loops_share_one_engine():
    answers = {}

    def other_thread(n):
        prompt = [n, 2, 3]
        outputs = run(collect(bridge, prompt, greedy(max_tokens=20)))
        answers[n] = tokens_of(outputs) == greedy_answer(prompt, 20, VOCAB)

    with served() as (bridge, _, _):
        threads = [threading.Thread(target=other_thread, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
    assert answers == dict.fromkeys(range(5), True)


def test_outputs_arrive_while_the_request_runs():
    async def main():
        stream = bridge.stream([1, 2], greedy(max_tokens=500))
        first = await anext(stream)
        assert first.finished is None
        assert engine.num_unfinished == 1
        await stream.aclose()
        await until(lambda: engine.num_unfinished == 0)

    with served() as (bridge, engine, model):
        model.delay = 0.002
        run(main())
        assert engine.stats.requests_aborted == 1
        assert engine.stats.decode_tokens < 500


def test_a_cancelled_task_frees_its_blocks_and_spares_the_others():
    async def main():
        other = asyncio.create_task(collect(bridge, [5, 5], greedy(max_tokens=60)))
        victims = [
            asyncio.create_task(collect(bridge, [n, 1, 2], greedy(max_tokens=590)))
            for n in range(4)
        ]
        await until(lambda: engine.num_unfinished == 5 and engine.stats.decode_tokens > 20)
        for victim in victims:
            victim.cancel()
        results = await asyncio.gather(*victims, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert tokens_of(await other) == greedy_answer([5, 5], 60, VOCAB)
        await until(lambda: engine.num_unfinished == 0)
        assert engine.pools[0].num_free == engine.pools[0].num_blocks

    with served(max_num_seqs=4) as (bridge, engine, model):
        model.delay = 0.001
        run(main())
        assert engine.stats.requests_aborted == 4


def test_leaving_the_loop_early_aborts():
    async def main():
        async for _ in bridge.stream([1, 2], greedy(max_tokens=500)):
            break
        await until(lambda: engine.stats.requests_aborted == 1)
        assert engine.num_unfinished == 0

    with served() as (bridge, engine, model):
        model.delay = 0.002
        run(main())


def test_refusals_and_failures_reach_their_own_stream():
    def fails(ids, logits):
        raise ZeroDivisionError("boom")

    async def main():
        good = asyncio.create_task(collect(bridge, [1, 2, 3], greedy(max_tokens=50)))
        cases = [
            ([], {}, InvalidParameterError, "empty"),
            ([VOCAB], {}, InvalidParameterError, "vocabulary"),
            (["a"], {}, InvalidParameterError, "whole number"),
            ([1] * 600, {}, ContextLengthError, "600 tokens"),
            ([1], {"logits_processor": fails}, InvalidParameterError, "ZeroDivisionError"),
            (None, {}, TypeError, None),  # no caller of ours does this, and it harms no other
        ]
        for prompt, options, kind, words in cases:
            with pytest.raises(kind, match=words):
                await collect(bridge, prompt, greedy(max_tokens=5), **options)
        assert tokens_of(await good) == greedy_answer([1, 2, 3], 50, VOCAB)

    with served() as (bridge, _, _):
        run(main())


def test_too_many_are_turned_away_and_may_come_back():
    async def main():
        tasks = [
            asyncio.create_task(collect(bridge, [n, 1], greedy(max_tokens=40))) for n in range(5)
        ]
        await asyncio.sleep(0)
        await until(lambda: engine.num_unfinished == 5)
        with pytest.raises(CapacityError, match="5 requests"):
            await collect(bridge, [1], greedy(max_tokens=1))
        for n, task in enumerate(tasks):
            assert tokens_of(await task) == greedy_answer([n, 1], 40, VOCAB)
        assert len(await collect(bridge, [1], greedy(max_tokens=1))) == 1

    with served(max_num_seqs=2, max_waiting=3) as (bridge, engine, model):
        model.delay = 0.001
        run(main())


def test_refused_and_cancelled_requests_give_their_place_back():
    async def main():
        for _ in range(20):
            with pytest.raises(InvalidParameterError):
                await collect(bridge, [], greedy())
            stream = bridge.stream([1], greedy(max_tokens=400))
            await anext(stream)
            await stream.aclose()
        assert len(await collect(bridge, [1], greedy(max_tokens=3))) == 3

    with served(max_num_seqs=1, max_waiting=0) as (bridge, _, _):
        run(main())


def test_close_ends_running_and_waiting_streams():
    async def main():
        tasks = [
            asyncio.create_task(collect(bridge, [n, 1], greedy(max_tokens=590))) for n in range(4)
        ]
        await until(lambda: engine.stats.decode_tokens > 10)
        await asyncio.to_thread(bridge.close)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [EngineError] * 4
        with pytest.raises(EngineError, match="shutting down"):
            await collect(bridge, [1], greedy())

    with served(max_num_seqs=2) as (bridge, engine, model):
        model.delay = 0.001
        run(main())


def test_a_request_that_arrives_as_the_engine_stops_gets_an_answer():
    """Admission and hand-over are one: between them nobody may stop the thread."""

    async def main():
        for _ in range(60):
            with served() as (bridge, _, _):
                closer = threading.Thread(target=bridge.close)
                task = asyncio.create_task(collect(bridge, [1], greedy(max_tokens=200)))
                closer.start()
                await asyncio.wait([task], timeout=LIMIT)
                assert task.done()
                assert over(task)
                closer.join()

    run(main())


def test_stopping_between_admission_and_hand_over_leaves_no_one_waiting(monkeypatch):
    """The same, with the unlucky moment made certain: close() tries to get in just there."""
    send = AsyncEngine._send
    closers = []

    def late(self, command):
        closers.append(threading.Thread(target=self.close))
        closers[-1].start()
        closers[-1].join(0.2)  # as far as it gets
        send(self, command)

    async def main():
        monkeypatch.setattr(AsyncEngine, "_send", late)
        task = asyncio.create_task(collect(bridge, [1], greedy(max_tokens=200)))
        await asyncio.wait([task], timeout=5)
        monkeypatch.setattr(AsyncEngine, "_send", send)
        for closer in closers:
            closer.join(LIMIT)
        assert task.done()
        assert over(task)

    with served() as (bridge, _, _):
        run(main())


@pytest.mark.parametrize("failure", [MemoryError("no more"), RuntimeError("odd"), SystemExit(3)])
def test_a_failing_model_is_told_to_all_and_to_those_who_come_later(failure):
    async def main():
        tasks = [
            asyncio.create_task(collect(bridge, [n, 1], greedy(max_tokens=590))) for n in range(3)
        ]
        await until(lambda: engine.stats.decode_tokens > 10)
        model.failure = failure
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [EngineError] * 3
        assert all(str(failure) in str(result) for result in results)
        with pytest.raises(EngineError, match="has stopped"):
            await collect(bridge, [1], greedy())

    with served() as (bridge, engine, model):
        model.delay = 0.001
        run(main())
        model.failure = None


def test_drain_waits_for_the_accepted_and_refuses_the_new():
    async def main():
        tasks = [
            asyncio.create_task(collect(bridge, [n, 1], greedy(max_tokens=40))) for n in range(4)
        ]
        await until(lambda: engine.num_unfinished == 4)
        drain = asyncio.create_task(bridge.drain())
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="shutting down"):
            await collect(bridge, [1], greedy())
        assert not drain.done()
        for n, task in enumerate(tasks):
            assert tokens_of(await task) == greedy_answer([n, 1], 40, VOCAB)
        await drain
        await bridge.drain()  # nothing left: at once

    with served(max_num_seqs=2) as (bridge, engine, model):
        model.delay = 0.001
        run(main())


def test_a_loop_that_is_gone_does_not_stop_the_engine():
    with served() as (bridge, engine, model):
        model.delay = 0.002
        loop = asyncio.new_event_loop()

        async def begin():
            stream = bridge.stream([1, 2], greedy(max_tokens=100))
            await anext(stream)
            return stream

        stream = loop.run_until_complete(begin())
        loop.close()
        outputs = run(collect(bridge, [3, 4], greedy(max_tokens=30)))
        assert tokens_of(outputs) == greedy_answer([3, 4], 30, VOCAB)
        with contextlib.suppress(RuntimeError, StopIteration):
            stream.aclose().send(None)  # its generator has no loop left to close it
        deadline = time.monotonic() + LIMIT
        while engine.num_unfinished and time.monotonic() < deadline:
            time.sleep(0.005)
        assert engine.num_unfinished == 0


def test_an_idle_engine_uses_no_processor():
    with served() as (bridge, _, _):
        run(collect(bridge, [1], greedy(max_tokens=2)))
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.1
