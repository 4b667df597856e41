# SPDX-License-Identifier: Apache-2.0
"""Limits of bodies, connections, time and keys, on real sockets."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import LiveServer, live_server
from test_registry import House

from freehold.formats.json_limits import JsonLimits
from freehold.server.failures import RequestError
from freehold.server.limits.request_caps import check_caps
from freehold.server.request_context import RequestRecord, set_current
from freehold.server.settings import ServerSettings
from freehold.server.sse import stream_response

CHAT = "/v1/chat/completions"
BODY = {"model": "seedling", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)
SMALL = ServerSettings(
    models=("seedling",),
    engine={"threads": 1, "max_num_seqs": 4, "context_length": 512},
    max_body_bytes=20_000,
    max_upload_bytes=30_000,
    header_timeout=0.3,
    body_timeout=0.3,
    max_connections=6,
)


@pytest.fixture(scope="module")
def small() -> Iterator[LiveServer]:
    with live_server(SMALL) as running:
        yield running


def talk(server: LiveServer, *pieces: bytes, timeout: float = 10) -> bytes:
    """All that the server says to these bytes, until it closes the connection."""
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), timeout) as connection:
        for piece in pieces:
            connection.sendall(piece)
        said = b""
        try:
            while part := connection.recv(65536):
                said += part
        except ConnectionResetError:
            pass
        return said


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


# -- bodies --------------------------------------------------------------------------------------


def test_a_body_of_any_length_is_counted(small) -> None:
    body = json.dumps({**BODY, "user": "x" * 30_000}).encode()
    answer = httpx.post(
        small.url + CHAT, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413
    assert "20,000 bytes" in answer.json()["error"]["message"]

    def pieces() -> Iterator[bytes]:
        yield body[:9000]
        yield body[9000:]

    answer = httpx.post(
        small.url + CHAT, content=pieces(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_a_length_that_lies_is_refused_before_anything_is_sent(small) -> None:
    said = talk(small, HEAD + b"Content-Length: 99999999999999\r\n\r\n", b"{")
    assert status(said) == 413
    said = talk(small, HEAD + b"Expect: 100-continue\r\nContent-Length: 30000\r\n\r\n")
    assert status(said) == 413  # and not 100


@pytest.mark.parametrize(
    "lines",
    [b"Content-Length: -5", b"Content-Length: 1e3", b"Content-Length: " + b"9" * 5000,
     b"Content-Length: 5\r\nContent-Length: 6", b"Transfer-Encoding: gzip, chunked",
     b"X: " + b"x" * 100_000],
)  # fmt: skip
def test_heads_that_are_not_http_are_refused(small, lines) -> None:
    said = talk(small, HEAD + b"Connection: close\r\n" + lines + b"\r\n\r\n{}")
    assert not said or status(said) in (400, 413, 415, 501)


def test_a_body_that_ends_early_is_nobodys_request(small) -> None:
    where = urlsplit(small.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        connection.sendall(HEAD + b'Content-Length: 1000\r\n\r\n{"model"')
    wait_until(lambda: not small.services.active)


def test_slow_heads_and_slow_bodies_are_ended(small) -> None:
    assert talk(small) == b""  # nothing was sent at all
    assert talk(small, b"GET / HTTP/1.1\r\nHost: lo") == b""
    said = talk(small, HEAD + b'Content-Length: 1000\r\n\r\n{"model"')
    assert status(said) == 408
    assert small.services.active == 0


def test_drops_of_a_head_do_not_buy_time(small) -> None:
    where = urlsplit(small.url)
    with socket.create_connection((where.hostname, where.port), 10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        try:
            for byte in b"GET /health HTTP/1.1\r\nX: " + b"x" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
            pytest.fail("the server waited")
        except (BrokenPipeError, ConnectionResetError):
            pass


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"a":' * 3000, '{"model":"x","messages":' + "[" * 200 + "]" * 200 + "}"]
)
def test_depth_is_limited(small, text) -> None:
    answer = httpx.post(
        small.url + CHAT, content=text.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "128 levels" in answer.json()["error"]["message"]


def test_uploads_are_counted_too(small, tmp_path: Path) -> None:
    with live_server(replace(SMALL, data_dir=tmp_path)) as server:

        def send(size: int, **how: object) -> int:
            form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
            form += b"x" * size + b"\r\n--x--\r\n"
            content = iter([form[:100], form[100:]]) if how else form
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            return httpx.post(
                server.url + "/v1/files", content=content, headers=headers
            ).status_code

        assert send(40_000) == send(200_000) == send(200_000, chunked=True) == 413


def test_json_is_measured_as_a_parser_sees_it() -> None:
    rng = random.Random(5)

    def value(depth: int) -> object:
        kind = rng.randrange(5 if depth else 3)
        if kind == 0:
            return rng.choice(["", '"', "\\", '\\"', "[[[", "é]", "a,b:{", '\\\\"[', "\n"])
        if kind < 3:
            return rng.choice([None, 1, -2.5, True])
        if kind == 3:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {f'k{i}"\\': value(depth - 1) for i in range(rng.randrange(4))}

    def deep(item: object) -> int:
        inner = (
            item.values() if isinstance(item, dict) else item if isinstance(item, list) else None
        )
        return 0 if inner is None else 1 + max((deep(i) for i in inner), default=0)

    for _ in range(300):
        item = value(6)
        data = json.dumps(item, ensure_ascii=rng.random() < 0.5).encode()
        size = rng.randrange(1, 9)
        pieces = [data[i : i + size] for i in range(0, len(data), size)]
        for limit, ok in ((deep(item), True), (deep(item) - 1, False)):
            shape = JsonLimits(max_depth=limit)
            assert all(shape.feed(piece) is None for piece in pieces) is ok or limit < 0


def test_values_are_counted() -> None:
    shape = JsonLimits(max_values=100)
    assert shape.feed(b"[" + b"1," * 50) is None
    assert shape.feed(b'"' + b"1," * 500 + b'"') is None
    assert "100 values" in (shape.feed(b",1" * 60) or "")
    assert shape.feed(b"") is None


# -- lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"stop": ["x"] * 65}, {"stop": "x" * 5000}, {"stop": ["x" * 5000]},
        {"logit_bias": {str(n): 1 for n in range(5000)}}, {"stop_token_ids": [1] * 2000},
        {"dry_sequence_breakers": ["x"] * 65}, {"dry_sequence_breakers": ["x" * 300]},
        {"messages": [{"role": "user", "content": ""}] * 5000}, {"n": 129}, {"n": 10**30},
        {"logprobs": True, "top_logprobs": 101},
        {"tools": [{"type": "function", "function": {"name": "f"}}] * 1025},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_long_lists_are_refused_by_name(server, change) -> None:
    answer = httpx.post(server.url + CHAT, json={**BODY, **change})
    assert answer.status_code == 400
    assert any(name in answer.json()["error"]["message"] for name in (*change, "logprobs"))


def test_lists_within_their_limits_pass() -> None:
    check_caps({"stop": ["x"] * 64, "logit_bias": {1: 2.0}, "logprobs": 100}, [{}] * 4096, [])
    check_caps({"stop": "x", "dry_sequence_breakers": None})
    with pytest.raises(RequestError, match="stop"):
        check_caps({"stop": ("x",) * 65})


# -- connections -----------------------------------------------------------------------------------


def test_there_are_so_many_connections_and_no_more(small) -> None:
    where = urlsplit(small.url)
    address = (where.hostname, where.port)
    held = [socket.create_connection(address, 10) for _ in range(6)]
    try:
        for connection in held:  # all of them are known to the server once it answers
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        said = talk(small)
        assert status(said) == 503
        assert b"Retry-After: 5" in said
        head, _, body = said.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)["error"]["message"] == "too many connections"
    finally:
        for connection in held:
            connection.close()


def test_a_client_that_stops_reading_is_let_go() -> None:
    settings = replace(SMALL, write_timeout=0.3, max_body_bytes=1 << 20)
    with live_server(settings) as server:
        from starlette.responses import StreamingResponse

        ended = threading.Event()

        async def flood():
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                ended.set()

        server.app.add_api_route("/flood", lambda: StreamingResponse(flood()))
        where = urlsplit(server.url)
        with socket.create_connection((where.hostname, where.port)) as connection:
            connection.sendall(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert ended.wait(10)


# -- time ------------------------------------------------------------------------------------------


def test_a_request_that_takes_too_long_ends_with_504() -> None:
    settings = replace(SMALL, request_timeout=0.3)
    body = {**BODY, "n": 64, "max_tokens": 480, "ignore_eos": True, "temperature": 1}
    with live_server(settings) as server:
        model = server.services.registry.find("seedling")
        httpx.post(server.url + CHAT, json=BODY)  # loads it
        answer = httpx.post(server.url + CHAT, json=body, timeout=30)
        assert answer.status_code == 504
        with httpx.stream("POST", server.url + CHAT, json={**body, "stream": True}) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["type"] == "server_error"
        wait_until_idle(server, model)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def wait_until_idle(server: LiveServer, model) -> None:
    """No sequence runs, no request is open, and every block of the cache is free."""

    def idle() -> bool:
        if model.users or model.llm is None:
            return not model.users
        engine = model.llm.llm.engine
        free = all(pool.num_free == pool.num_blocks for pool in engine.pools)
        return free and not (engine.num_unfinished or server.services.active)

    wait_until(idle)


def test_a_streams_clock_interrupts_what_makes_frames_and_nobody_else() -> None:
    async def work() -> None:
        closed: list[str] = []

        async def frames(name: str):
            try:
                yield "one"
                await asyncio.sleep(60)
                yield "two"
            finally:
                closed.append(name)

        def stream(name: str):
            return stream_response(frames(name), lambda failure: failure.kind).body_iterator

        now = asyncio.get_running_loop().time()
        set_current(RequestRecord(deadline=now + 0.05))
        assert [piece async for piece in stream("late")] == [b"one", b"timeout"]
        set_current(RequestRecord(deadline=now + 60))
        body = stream("left")
        assert await anext(body) == b"one"
        waiting = asyncio.create_task(anext(body))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        set_current(RequestRecord(deadline=now + 0.1))
        slow = stream("slow reader")
        assert await anext(slow) == b"one"
        await asyncio.sleep(0.15)  # time runs out while a frame is sent
        assert [piece async for piece in slow] == [b"timeout"]
        assert closed == ["late", "left", "slow reader"]
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0

    asyncio.run(asyncio.wait_for(work(), 20))


def test_a_timeout_takes_nobody_elses_model_away() -> None:
    """Whoever waits for a model that loads may give up; the load goes on for those who stay."""
    house = House(a=100)
    registry = house.registry()
    house.gate.clear()
    settings = replace(SMALL, models=("a",), request_timeout=0.3)
    with live_server(settings, registry) as server:
        body = {**BODY, "model": "a"}
        answers = [httpx.post(server.url + CHAT, json=body, timeout=20)]
        model = registry.find("a")
        assert answers[0].status_code == 504
        assert "0.3 s" in answers[0].json()["error"]["message"]
        wait_until(lambda: house.opened == ["a"])  # its thread may begin late on a busy machine
        assert (model.state, model.users) == ("loading", 0)
        house.gate.set()
        wait_until(lambda: model.state == "loaded")
        assert house.opened == ["a"]
        assert house.closed == []


def test_a_client_that_leaves_while_a_model_loads_is_noticed() -> None:
    house = House(a=100)
    registry = house.registry()
    house.gate.clear()
    with live_server(replace(SMALL, models=("a",)), registry) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + CHAT, json={**BODY, "model": "a"}, timeout=0.3)
        model = registry.find("a")
        wait_until(lambda: not (model.users or server.services.active))
        assert model.state == "loading"
        house.gate.set()


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/api/generate", "/v1/messages",
                                  "/v1/responses"])  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
def test_nothing_runs_for_a_client_that_is_gone(server, path, stream) -> None:
    body = {"model": "seedling", "max_tokens": 900, "stream": stream, "ignore_eos": True}
    if path == "/v1/messages":
        body = {"model": "seedling", "max_tokens": 900, "stream": stream,
                "messages": BODY["messages"]}  # fmt: skip
    elif path == CHAT:
        body["messages"] = BODY["messages"]
    elif path == "/v1/responses":
        body = {"model": "seedling", "input": "x", "stream": stream}
    elif path == "/api/generate":
        body = {"model": "seedling", "prompt": "x", "stream": stream}
    else:
        body["prompt"] = "x"
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    where = urlsplit(server.url)
    with socket.create_connection((where.hostname, where.port), 10) as connection:
        connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(raw) + raw)
        if stream:
            assert connection.recv(20).startswith(b"HTTP/1.1 200")
    wait_until_idle(server, server.services.registry.find("seedling"))


def test_a_full_queue_says_when_to_come_back() -> None:
    settings = replace(SMALL, max_waiting=1, engine={**SMALL.engine, "max_num_seqs": 1})
    gate = threading.Event()
    with live_server(settings) as server, ThreadPoolExecutor(3) as pool:

        def ask(stream: bool = False) -> httpx.Response:
            return httpx.post(server.url + CHAT, json={**BODY, "stream": stream}, timeout=30)

        assert ask().status_code == 200
        model = server.services.registry.find("seedling")
        pool.submit(server.on_loop, model.loaded.on_engine(lambda _: gate.wait(20)))
        held = [pool.submit(ask) for _ in range(2)]
        wait_until(lambda: model.loaded.load().waiting >= 2)
        answer, streamed = ask(), ask(stream=True)
        gate.set()
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "error" in streamed.text
        assert [each.result().status_code for each in held] == [200, 200]
        wait_until_idle(server, model)
