# SPDX-License-Identifier: Apache-2.0
"""What servers keep for clients: apart by key, and whole after the process was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer, live_server

import tiny_chat
from freehold.server.security.keys import create_key
from freehold.server.settings import ServerSettings


def lines_of(url: str, bodies: list[dict[str, Any]]) -> bytes:
    lines = [
        {"custom_id": f"c{i}", "method": "POST", "url": url, "body": body}
        for i, body in enumerate(bodies)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def start_batch(client: httpx.Client, endpoint: str, bodies: list[dict[str, Any]]) -> str:
    file = client.post(
        "/v1/files", files={"file": ("x", lines_of(endpoint, bodies))}, data={"purpose": "batch"}
    ).json()
    body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
    batch_id: str = client.post("/v1/batches", json=body).json()["id"]
    return batch_id


def finished(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        batch: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
        if batch["status"] in ("completed", "failed"):
            return batch
        assert time.monotonic() < deadline, batch
        time.sleep(0.02)


def content(client: httpx.Client, file_id: str) -> list[dict[str, Any]]:
    text = client.get(f"/v1/files/{file_id}/content").text
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, dict[str, str]]]:
    folder: Path = tmp_path_factory.mktemp("keyed")
    model = str(tiny_chat.write(folder / "tiny.gguf"))
    keys = folder / "keys.json"
    secrets = {
        "alice": create_key(keys, "alice", models=("a",)),
        "bob": create_key(keys, "bob"),
    }
    settings = ServerSettings(
        models=(f"a={model}", f"b={model}"), data_dir=folder / "data", key_file=keys,
        engine={"threads": 1, "context_length": 256},
    )  # fmt: skip
    with live_server(settings) as server:
        yield server, secrets


@contextmanager
def client_of(keyed: tuple[LiveServer, dict[str, str]], name: str) -> Iterator[httpx.Client]:
    server, secrets = keyed
    headers = {"Authorization": f"Bearer {secrets[name]}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def test_what_one_key_left_no_other_finds(keyed):
    with client_of(keyed, "alice") as alice, client_of(keyed, "bob") as bob:
        body = {"model": "a", "input": "Hi", "max_output_tokens": 1}
        response = alice.post("/v1/responses", json=body).json()["id"]
        messages = [{"role": "user", "content": "Hi"}]
        chat = {"model": "a", "messages": messages, "max_tokens": 1}
        batch_id = start_batch(alice, "/v1/chat/completions", [chat])
        batch = finished(alice, batch_id)
        sent = {"requests": [{"custom_id": "a", "params": chat}]}
        message_batch = alice.post("/v1/messages/batches", json=sent).json()["id"]
        files = [batch["input_file_id"], batch["output_file_id"]]
        paths = [
            f"/v1/responses/{response}",
            f"/v1/responses/{response}/input_items",
            f"/v1/batches/{batch_id}",
            f"/v1/messages/batches/{message_batch}",
            *(f"/v1/files/{each}" for each in files),
            *(f"/v1/files/{each}/content" for each in files),
        ]
        for path in paths:
            assert alice.get(path).status_code == 200
            assert bob.get(path).status_code == 404
        for path in (f"/v1/responses/{response}", f"/v1/files/{files[0]}"):
            assert bob.delete(path).status_code == 404
        for path in ("/v1/files", "/v1/batches", "/v1/messages/batches"):
            assert alice.get(path).json()["data"]
            assert bob.get(path).json()["data"] == []
        taken = {
            "input_file_id": files[0], "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }  # fmt: skip
        assert bob.post("/v1/batches", json=taken).status_code == 404
        on = {**body, "previous_response_id": response}
        assert bob.post("/v1/responses", json=on).status_code == 404
        assert alice.post("/v1/responses", json=on).status_code == 200


def test_a_batch_reaches_no_model_that_its_key_does_not(keyed):
    messages = [{"role": "user", "content": "Hi"}]
    bodies = [{"model": m, "messages": messages, "max_tokens": 1} for m in ("a", "b")]
    codes = {}
    for name in ("alice", "bob"):
        with client_of(keyed, name) as client:
            batch = finished(client, start_batch(client, "/v1/chat/completions", bodies))
            counts = batch["request_counts"]
            codes[name] = (counts["completed"], counts["failed"])
    assert codes == {"alice": (1, 1), "bob": (2, 0)}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"model": "a", "prompt": "Once", "max_tokens": 3}),
        ("/v1/embeddings", {"model": "a", "input": ["Once", "twice"]}),
        ("/v1/responses", {"model": "a", "input": "Once", "max_output_tokens": 3}),
    ],
)
def test_batches_of_every_kind_are_answered(keyed, endpoint, body):
    with client_of(keyed, "bob") as client:
        batch = finished(client, start_batch(client, endpoint, [body]))
        (line,) = content(client, batch["output_file_id"])
        alone = client.post(endpoint, json=body).json()
        assert line["response"]["body"]["object"] == alone["object"]
        if endpoint == "/v1/embeddings":
            assert line["response"]["body"]["data"] == alone["data"]


@contextmanager
def process(model: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`freehold serve` as a process of its own, and where it listens."""
    command = [
        sys.executable, "-m", "freehold.cli.main", "serve", str(model), "--port", "0",
        "--data-dir", str(folder), "--threads", "1", "--context", "256",
    ]  # fmt: skip
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert running.stderr is not None
        for line in running.stderr:
            if (found := re.search(r"http://[0-9.:]+", line)) is not None:
                yield running, found[0]
                break
        else:
            pytest.fail("the server did not start")
    finally:
        running.kill()
        running.communicate()


def test_a_killed_server_goes_on_with_its_batch(tmp_path):
    model = tiny_chat.write(tmp_path / "tiny.gguf")
    bodies = [
        {"model": "tiny", "prompt": f"{i}", "max_tokens": 40, "ignore_eos": True, "seed": i}
        for i in range(120)
    ]
    with process(model, tmp_path / "data") as (running, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            batch_id = start_batch(client, "/v1/completions", bodies)
            while client.get(f"/v1/batches/{batch_id}").json()["request_counts"]["completed"] < 5:
                time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        running.wait()
    journal = tmp_path / "data" / "batches" / batch_id / "journal.jsonl"
    done = [json.loads(line) for line in journal.read_text().splitlines()]
    assert 5 <= len(done) < len(bodies)
    with process(model, tmp_path / "data") as (_, url), httpx.Client(base_url=url) as client:
        batch = finished(client, batch_id)
        assert batch["request_counts"] == {"total": 120, "completed": 120, "failed": 0}
        told = content(client, batch["output_file_id"])
        alone = client.post("/v1/completions", json=bodies[-1]).json()
    assert [line["custom_id"] for line in told] == [f"c{i}" for i in range(120)]
    ids = {line["custom_id"]: line["id"] for line in told}
    assert all(ids[record["custom_id"]] == record["id"] for record in done)
    assert told[-1]["response"]["body"]["choices"] == alone["choices"]
