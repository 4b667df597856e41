# SPDX-License-Identifier: Apache-2.0
"""The end of a server: what runs is finished, what is new refused, and a second signal obeyed.

Against processes of `freehold serve`, with signals as systemd and a terminal send them.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from freehold.server.security import keys

CHAT = "/v1/chat/completions"
BODY = {"model": "seedling", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
LONG = {**BODY, "max_tokens": 400, "ignore_eos": True, "n": 6, "temperature": 1, "stream": True}


class Process:
    """One `freehold serve`, and what it has written to stderr."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self.running = running
        self.lines: list[str] = []
        assert running.stderr is not None
        while not (
            found := re.search(r"serving on (http://\S+)", line := running.stderr.readline())
        ):
            assert line, "".join(self.lines)
            self.lines.append(line)
        self.url = found.group(1)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.running.stderr is not None
        self.lines += self.running.stderr

    def end(self, timeout: float = 30) -> int:
        code = self.running.wait(timeout)
        self._reader.join(10)
        return code


@contextmanager
def serving(home: Path, *flags: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "freehold.cli.main", "serve", "seedling", "--port", "0",
               "--threads", "1", "--context", "1024", "--log-format", "json", *flags]  # fmt: skip
    environment = {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            yield Process(running)
        finally:
            running.kill()


def test_what_runs_is_finished_and_what_is_new_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as process:
        assert httpx.post(process.url + CHAT, json=BODY, timeout=30).status_code == 200
        with httpx.stream("POST", process.url + CHAT, json=LONG, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.running.send_signal(signal.SIGTERM)
            answer = httpx.post(process.url + CHAT, json=BODY, timeout=30)
            while answer.status_code == 200:  # the signal is on its way
                answer = httpx.post(process.url + CHAT, json=BODY, timeout=30)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) > 0
            assert "shutting down" in answer.json()["error"]["message"]
            assert httpx.get(process.url + "/health").status_code == 200
            ready = httpx.get(process.url + "/ready")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert sum('"finish_reason":"length"' in line for line in rest) == 6
        assert process.end() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(process.url + "/health")
    events = [json.loads(line) for line in process.lines if line.strip()]
    assert {event["status"] for event in events if event["message"] == "request"} >= {200, 503}
    assert not any(event["level"] == "error" for event in events)


def test_what_takes_longer_than_the_grace_time_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "200ms") as process:
        assert httpx.post(process.url + CHAT, json=BODY, timeout=30).status_code == 200
        body = {**LONG, "n": 128, "max_tokens": 990}
        with httpx.stream("POST", process.url + CHAT, json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.running.send_signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert process.end() == 0
    assert "Traceback" not in "".join(process.lines)
    (line,) = [line for line in process.lines if '"cut_off": true' in line]
    assert json.loads(line)["status"] == 200


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--grace", "10m") as process:
        assert httpx.post(process.url + CHAT, json=BODY, timeout=30).status_code == 200
        with httpx.stream(
            "POST", process.url + CHAT, json={**LONG, "n": 128}, timeout=60
        ) as stream:
            lines = stream.iter_lines()  # letting go of it would close the stream
            next(lines)
            process.running.send_signal(signal.SIGINT)
            deadline = time.monotonic() + 20
            while httpx.get(process.url + "/ready").status_code != 503:
                assert time.monotonic() < deadline
            process.running.send_signal(signal.SIGINT)
            assert process.end() == 130
    assert "Traceback" not in "".join(process.lines)


def test_with_a_key_it_listens_outside_and_revoking_shuts_the_door(tmp_path: Path) -> None:
    file = tmp_path / "freehold" / "keys.json"
    secret = keys.create_key(file, "laptop")
    with serving(tmp_path, "--host", "0.0.0.0") as process:
        url = process.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(url + "/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(url + "/v1/models", headers=headers).status_code == 200
        keys.revoke_key(file, "laptop")
        assert httpx.get(url + "/v1/models", headers=headers).status_code == 401
        assert httpx.get(url + "/health").json() == {"status": "ok"}
        process.running.send_signal(signal.SIGINT)  # there is nothing to wait for
        assert process.end() == 0
