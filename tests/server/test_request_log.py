# SPDX-License-Identifier: Apache-2.0
"""The log: one line per request that tells how much and how long, and never what."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import live_server

from freehold.server.monitoring import logs
from freehold.server.security import keys
from freehold.server.settings import ServerSettings

CHAT = "/v1/chat/completions"
SECRET = "the goat is in the attic"
BODY = {"model": "seedling", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 5}
SETTINGS = ServerSettings(
    models=("seedling",), engine={"threads": 1, "max_num_seqs": 4, "context_length": 512}
)


class Lines:
    def __init__(self, stream: io.StringIO) -> None:
        self.stream = stream

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Lines about requests, once there are so many: a line follows the answer."""
        deadline = time.monotonic() + 10
        while True:
            lines = [json.loads(line) for line in self.text.splitlines()]
            found = [line for line in lines if line["logger"] == logs.REQUESTS]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def written() -> Iterator[Callable[[str], Lines]]:
    logger = logging.getLogger("freehold")
    before = logger.handlers[:], logger.level, logger.propagate

    def start(style: str) -> Lines:
        stream = io.StringIO()
        logs.set_up(style, stream)
        return Lines(stream)

    yield start
    logger.handlers[:], logger.level, logger.propagate = before


def test_a_line_tells_who_asked_what_and_how_long_it_took(written, tmp_path: Path) -> None:
    lines = written("json")
    path = tmp_path / "keys.json"
    secret = keys.create_key(path, "laptop")
    with live_server(replace(SETTINGS, key_file=path)) as server:
        headers = {"Authorization": f"Bearer {secret}"}
        answer = httpx.post(server.url + CHAT, json=BODY, headers=headers)
        (line,) = lines.requests(1)
        usage = answer.json()["usage"]
        assert line["id"] == answer.headers["x-request-id"]
        assert (line["key"], line["model"], line["dialect"]) == (
            "laptop",
            "seedling",
            "openai_chat",
        )
        assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
        assert line["prompt_tokens"] == usage["prompt_tokens"]
        assert line["completion_tokens"] == usage["completion_tokens"] == 5
        assert 0 <= line["queue_seconds"] <= line["first_token_seconds"] <= line["seconds"]
        assert "cut_off" not in line
        httpx.post(server.url + CHAT, json=BODY, headers=headers)
        assert lines.requests(2)[1]["cached_tokens"] > 0
        httpx.post(server.url + "/api/embed", json={"model": "seedling", "input": "one two"},
                   headers=headers)  # fmt: skip
        assert lines.requests(3)[2]["prompt_tokens"] > 1
        httpx.get(server.url + "/v1/models", headers={"x-api-key": "fh-guessed"})
        line = lines.requests(4)[3]
        assert line["status"] == 401
        assert "key" not in line
        httpx.get(server.url + "/health")
        assert len(lines.requests(4)) == 4
    assert SECRET not in lines.text
    assert answer.json()["choices"][0]["message"]["content"][:12] not in lines.text
    assert secret not in lines.text
    assert "fh-" not in lines.text


def test_prompts_and_answers_are_written_where_that_is_wanted(written) -> None:
    lines = written("json")
    with live_server(replace(SETTINGS, log_prompts=True)) as server:
        answer = httpx.post(server.url + CHAT, json=BODY, headers={"Authorization": "Bearer fh-x"})
        (line,) = lines.requests(1)
        assert json.loads(line["request"]) == BODY
        assert line["answers"] == [answer.json()["choices"][0]["message"]["content"]]
    assert "fh-x" not in lines.text


def test_what_a_client_breaks_off_is_told(written) -> None:
    lines = written("json")
    with live_server(SETTINGS) as server:
        body = {**BODY, "max_tokens": 400, "ignore_eos": True, "stream": True, "n": 8}
        with httpx.stream("POST", server.url + CHAT, json=body) as stream:
            next(stream.iter_lines())
        (line,) = lines.requests(1)
        assert line["cut_off"] is True
        assert line["status"] == 200


@pytest.mark.parametrize("style", ["json", "text"])
def test_nobody_writes_lines_of_their_own(written, style) -> None:
    lines = written(style)
    with live_server(SETTINGS) as server:
        evil = "/x%0A2026-01-01T00:00:00.000Z%20INFO%20forged%0D%1B[2J%C2%85%E2%80%A8%E2%80%AE"
        httpx.get(server.url + evil)
        body = {**BODY, "model": 'a"\n\x1b[31m{"level":"info"}'}
        httpx.post(server.url + CHAT, json=body)
        logging.getLogger("freehold.server").error("bad name: %s", "x\ny\x1b\u2028z")
        try:
            raise ValueError("first\nsecond\x1b")
        except ValueError:
            logging.getLogger("freehold.server").exception("it broke")
    text = lines.text
    assert all(c == "\n" or c.isprintable() for c in text)
    if style == "json":
        events = [json.loads(line) for line in text.splitlines()]
        assert [e["message"] for e in events if e["level"] == "info"] == ["request", "request"]
        assert any(e.get("exception", "").endswith("second\x1b") for e in events)
    else:
        starts = [line for line in text.splitlines() if not line.startswith("    ")]
        assert sorted(line.split()[1] for line in starts) == ["ERROR", "ERROR", "INFO", "INFO"]
        assert "model=" not in text  # it is nobody's


def test_text_is_for_people(written) -> None:
    lines = written("text")
    with live_server(SETTINGS) as server:
        httpx.post(server.url + CHAT, json=BODY)
    assert " INFO request id=req_" in lines.text
    assert f"path={CHAT} dialect=openai_chat status=200 model=seedling" in lines.text
