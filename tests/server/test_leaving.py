# SPDX-License-Identifier: Apache-2.0
"""Clients of Anthropic's and of Ollama's API that hang up end their answers."""

from __future__ import annotations

import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest
from live_server import LiveServer

HELLO = [{"role": "user", "content": "Hello"}]
# An answer that cannot be over while its client is still there.
LONG = {"type": "array", "items": {"type": "boolean"}, "minItems": 400}
MESSAGES = {
    "model": "thinker", "messages": HELLO, "max_tokens": 1900,
    "output_config": {"format": {"type": "json_schema", "schema": LONG}},
}  # fmt: skip
CHAT = {"model": "thinker", "messages": HELLO, "think": False, "format": LONG}


def given(server: LiveServer) -> float:
    """How many answers were written to their end."""
    series = server.services.metrics.labelled("thinker", "")
    return sum(series.outcomes[name]._value.get() for name in ("stop", "length"))


def let_go(server: LiveServer) -> None:
    """Wait until nothing runs."""
    model = server.services.registry.find("thinker")
    deadline = time.monotonic() + 20
    while model.users or model.loaded.llm.engine.num_unfinished:
        assert time.monotonic() < deadline, "the answer still runs"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/messages", {**MESSAGES, "stream": True}), ("/api/chat", CHAT)]
)
def test_a_stream_that_nobody_reads_is_ended(thinker, path, body):
    httpx.post(thinker.url + "/api/generate", json={"model": "thinker"})
    before = given(thinker)
    gate = threading.Event()
    with httpx.stream("POST", thinker.url + path, json=body, timeout=60) as answer:
        lines = answer.iter_lines()  # letting go of it would hang up
        next(lines)
        engine = thinker.services.registry.find("thinker").loaded._engine
        engine._send(lambda: gate.wait(20))  # the engine waits until the client is gone
    gate.set()
    let_go(thinker)
    assert given(thinker) == before


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/messages", MESSAGES), ("/api/chat", {**CHAT, "stream": False})]
)
def test_a_whole_answer_that_nobody_waits_for_is_ended(thinker, path, body):
    httpx.post(thinker.url + "/api/generate", json={"model": "thinker"})
    before = given(thinker)
    model = thinker.services.registry.find("thinker")
    gate = threading.Event()
    model.loaded._engine._send(lambda: gate.wait(20))
    request = httpx.Request("POST", thinker.url + path, json=body)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection((urlsplit(thinker.url).hostname, request.url.port)) as wire:
        wire.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        deadline = time.monotonic() + 20
        while not model.holders:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    gate.set()
    let_go(thinker)
    assert given(thinker) == before
