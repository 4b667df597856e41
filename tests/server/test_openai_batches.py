# SPDX-License-Identifier: Apache-2.0
"""Files and batches through OpenAI's own client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from live_server import LiveServer, live_server
from openai.types import Batch, FileObject

import tiny_chat
from freehold.server.settings import ServerSettings

ENGINE = {"threads": 1, "context_length": 512, "max_num_seqs": 8}
CHAT = "/v1/chat/completions"
DEEP = json.loads("[" * 200 + "]" * 200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat.write(tmp_path_factory.mktemp("model") / "tiny.gguf")


def settings_of(model: Path, folder: Path, **more: Any) -> ServerSettings:
    return ServerSettings(models=(str(model),), engine=ENGINE, data_dir=folder, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "freehold"


@pytest.fixture(scope="module")
def running(model: Path, folder: Path) -> Iterator[LiveServer]:
    settings = settings_of(model, folder, max_upload_bytes=300_000, data_bytes=1_000_000)
    with live_server(settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(running) as client:
        yield client


def client_of(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)


def chat(custom_id: str, text: str = "Hi", **more: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 4,
            "seed": 1, **more}  # fmt: skip
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def upload(client: openai.OpenAI, data: bytes) -> FileObject:
    return client.files.create(file=("in.jsonl", data), purpose="batch")


def begin(client: openai.OpenAI, lines: list[dict[str, Any]], endpoint: str = CHAT) -> Batch:
    file = upload(client, jsonl(lines))
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h"
    )  # fmt: skip


def wait(client: openai.OpenAI, batch_id: str) -> Batch:
    deadline = time.monotonic() + 30
    while True:
        batch = client.batches.retrieve(batch_id)
        Batch.model_validate(batch.to_dict())
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return batch
        assert time.monotonic() < deadline, f"still {batch.status}"
        time.sleep(0.02)


def answers(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


# -- files ----------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(client, folder):
    data = bytes(range(256)) * 300
    file = client.files.create(file=("../../a\\b\n.jsonl", data), purpose="batch")
    FileObject.model_validate(file.to_dict())
    assert file.bytes == len(data)
    assert "/" not in file.filename
    assert "\\" not in file.filename
    assert client.files.content(file.id).read() == data
    assert client.files.retrieve(file.id).to_dict() == file.to_dict()
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    assert not list((folder / "files").glob(f"{file.id}*"))


def test_files_are_listed_in_pages(client):
    ids = [upload(client, b"{}").id for _ in range(3)]
    listed = [file.id for file in client.files.list(limit=2, purpose="batch")]  # fetches all pages
    assert set(ids) <= set(listed)
    assert len(listed) == len(set(listed))
    both = list(client.files.list(order="asc")), list(client.files.list(order="desc"))
    assert both[0] == both[1][::-1]
    for file_id in ids:
        client.files.delete(file_id)


@pytest.mark.parametrize(
    "file_id", ["..", "%2e%2e%2fbatches", "file-", "file-" + "0" * 24, "x" * 999]
)
def test_no_id_leads_anywhere_else(running, file_id):
    for method, tail in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = httpx.request(method, f"{running.url}/v1/files/{file_id}{tail}")
        assert answer.status_code in (404, 405)


def test_what_a_form_must_not_be(running, folder):
    url = running.url + "/v1/files"

    def post(status: int, **given: Any) -> str:
        answer = httpx.post(url, **given)
        assert answer.status_code == status, answer.text
        message: str = answer.json()["error"]["message"]
        return message

    file = {"file": ("a", b"{}")}
    assert "purpose" in post(400, files=file)
    assert "purpose" in post(400, files=file, data={"purpose": "assistants"})
    assert "other" in post(400, files={"other": ("a", b"{}")}, data={"purpose": "batch"})
    assert "file" in post(400, files={"purpose": (None, b"batch")})
    assert "colour" in post(400, files=file, data={"purpose": "batch", "colour": "red"})
    assert "4096" in post(400, files=file, data={"purpose": "x" * 5000})
    assert "parts" in post(400, files=[("file", ("a", b""))], data={f"f{i}": "" for i in range(20)})
    assert "twice" in post(400, files=[("file", ("a", b"")), ("file", ("b", b""))])
    post(400, files=file, data={"purpose": "batch", "expires_after[seconds]": "1"})
    post(400, json={"purpose": "batch"})
    post(413, files={"file": ("a", b"x" * 300_001)}, data={"purpose": "batch"})
    head = {"Content-Type": "multipart/form-data; boundary=b"}
    post(400, content=b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", headers=head)
    post(400, content=b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\n", headers=head)
    post(
        400, content=b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', headers=head
    )
    post(400, content=b"--c\r\n", headers=head)
    post(400, content=b"", headers=head)
    assert not list((folder / "files").glob("*.part"))


def test_all_files_together_are_limited(running, client):
    used = running.services.batches.files.quota.used
    kept = [upload(client, b"x" * 290_000) for _ in range((1_000_000 - used) // 290_000)]
    with pytest.raises(openai.APIStatusError, match="delete files") as told:
        upload(client, b"x" * 290_000)
    assert told.value.status_code == 413
    for file in kept:
        client.files.delete(file.id)
    assert running.services.batches.files.quota.used == used


# -- batches --------------------------------------------------------------------------------------


def test_a_batch_answers_every_line_as_a_request_would(client):
    lines = [chat(f"line-{i}", f"Number {i}") for i in range(12)]
    lines[5] = chat("bad", messages=[])
    lines[7] = chat("nobody", model="nobody")
    begun = begin(client, lines)
    assert begun.status == "validating"
    batch = wait(client, begun.id)
    assert batch.status == "completed"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (12, 10, 2)
    done = answers(client, batch.output_file_id)
    assert [a["custom_id"] for a in done] == [
        line["custom_id"] for line in lines if line["custom_id"].startswith("line")
    ]
    for answer in (done[0], done[-1]):
        line = next(line for line in lines if line["custom_id"] == answer["custom_id"])
        alone = client.chat.completions.create(**line["body"])
        body = answer["response"]["body"]
        assert answer["response"]["status_code"] == 200
        assert body["choices"][0]["message"]["content"] == alone.choices[0].message.content
    wrong = {a["custom_id"]: a["response"] for a in answers(client, batch.error_file_id)}
    assert {name: told["status_code"] for name, told in wrong.items()} == {
        "bad": 400, "nobody": 404,
    }  # fmt: skip
    assert wrong["nobody"]["body"]["error"]["code"] == "model_not_found"
    assert batch.usage.output_tokens == sum(
        a["response"]["body"]["usage"]["completion_tokens"] for a in done
    )
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"
    assert batch.id in [b.id for b in client.batches.list(limit=1)]


def test_responses_can_be_asked_for_in_a_batch_and_are_not_stored(client):
    body = {"model": "tiny", "input": "Hi", "max_output_tokens": 3}
    line = {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": body}
    batch = wait(client, begin(client, [line], "/v1/responses").id)
    (answer,) = answers(client, batch.output_file_id)
    response = answer["response"]["body"]
    assert response["object"] == "response"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response["id"])


@pytest.mark.parametrize(
    ("data", "code", "number"),
    [
        (b"", "empty_file", None),
        (b"{nonsense\n", "invalid_json_line", 1),
        (b"[]\n", "invalid_json_line", 1),
        (b"[" * 100_000 + b"\n", "invalid_json_line", 1),
        (jsonl([chat("a", metadata=DEEP)]), "invalid_json_line", 1),
        (jsonl([chat("a"), chat("a")]), "duplicate_custom_id", 2),
        (jsonl([chat("a"), {**chat("b"), "url": "/v1/embeddings"}]), "mismatched_url", 2),
        (jsonl([{**chat("a"), "method": "GET"}]), "invalid_method", 1),
        (jsonl([{**chat("a"), "body": "x"}]), "invalid_body", 1),
        (jsonl([{**chat("a"), "colour": "red"}]), "unknown_field", 1),
        (jsonl([chat("a", stream=True)]), "invalid_body", 1),
        (jsonl([{**chat("a"), "custom_id": 3}]), "invalid_custom_id", 1),
    ],
)  # fmt: skip
def test_a_file_with_a_fault_is_not_begun(client, data, code, number):
    file = upload(client, data)
    batch = client.batches.create(
        input_file_id=file.id, endpoint=CHAT, completion_window="24h"
    )  # fmt: skip
    batch = wait(client, batch.id)
    assert batch.status == "failed"
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == (code, number)
    assert batch.output_file_id is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"input_file_id": "file-" + "0" * 24}, 404),
        ({"input_file_id": "../x"}, 404),
        ({"endpoint": "/v1/files"}, 400),
        ({"endpoint": "/v1/images/edits"}, 400),
        ({"completion_window": "soon"}, 400),
        ({"completion_window": "31d"}, 400),
        ({"metadata": {"k": "v" * 600}}, 400),
        ({"colour": "red"}, 400),
    ],
)
def test_what_no_batch_can_be_made_of_is_refused(running, client, change, status):
    file = upload(client, jsonl([chat("a")]))
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **change}
    answer = httpx.post(running.url + "/v1/batches", json=body)
    assert answer.status_code == status, answer.text


def test_a_cancelled_batch_keeps_what_was_answered(running, client):
    lines = [
        chat("quick"),
        *(chat(f"slow-{i}", max_tokens=400, ignore_eos=True) for i in range(40)),
    ]
    batch_id = begin(client, lines).id
    deadline = time.monotonic() + 20
    while not client.batches.retrieve(batch_id).request_counts.completed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.batches.cancel(batch_id).status in ("cancelling", "finalizing", "cancelled")
    batch = wait(client, batch_id)
    assert batch.status == "cancelled"
    done = answers(client, batch.output_file_id)
    left = answers(client, batch.error_file_id)
    assert {a["error"]["code"] for a in left} == {"batch_cancelled"}
    assert len(done) + len(left) == len(lines)
    assert {a["custom_id"] for a in done + left} == {line["custom_id"] for line in lines}
    assert client.batches.cancel(batch_id).status == "cancelled"
    model = running.services.registry.find("tiny")
    deadline = time.monotonic() + 10
    while model.users or model.loaded.llm.engine.num_unfinished:
        assert time.monotonic() < deadline, "a cancelled line still runs"
        time.sleep(0.02)


def test_a_batch_goes_on_after_a_restart_and_does_no_line_twice(model, tmp_path):
    lines = [chat(f"line-{i}", str(i), max_tokens=60, ignore_eos=True) for i in range(30)]
    settings = settings_of(model, tmp_path, batch_lines=2)
    with live_server(settings) as server, client_of(server) as client:
        file = upload(client, jsonl(lines))
        batch_id = client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        ).id
        client.files.delete(file.id)  # the batch has its own
        deadline = time.monotonic() + 20
        while client.batches.retrieve(batch_id).request_counts.completed < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    journal = tmp_path / "batches" / batch_id / "journal.jsonl"
    before = journal.read_bytes()
    done = [json.loads(line) for line in before.splitlines()]
    assert 3 <= len(done) < len(lines)
    journal.write_bytes(before + before[: len(before) // 2].rpartition(b"\n")[2])  # torn by a crash
    with live_server(settings) as server, client_of(server) as client:
        batch = wait(client, batch_id)
        assert batch.request_counts.completed == len(lines)
        told = answers(client, batch.output_file_id)
    assert [a["custom_id"] for a in told] == [line["custom_id"] for line in lines]
    ids = {a["custom_id"]: a["id"] for a in told}
    assert all(ids[record["custom_id"]] == record["id"] for record in done)
    assert not journal.exists()


def test_what_is_not_done_in_time_is_told_as_expired(model, tmp_path):
    with live_server(settings_of(model, tmp_path, batch_lines=1)) as server, client_of(server) as c:
        lines = [chat(f"l{i}", max_tokens=300, ignore_eos=True) for i in range(50)]
        batch_id = begin(c, lines).id
        store = server.services.batches.store
        store.get("", "openai", batch_id).expires = int(time.time())
        batch = wait(c, batch_id)
        assert batch.status == "expired"
        left = answers(c, batch.error_file_id)
        assert left
        assert {a["error"]["code"] for a in left} == {"batch_expired"}


def test_one_server_at_a_time_uses_a_directory(running, model, folder):
    with live_server(settings_of(model, folder)) as other:
        answer = httpx.get(other.url + "/v1/files")
    assert answer.status_code == 503
    assert "another server" in answer.json()["error"]["message"]


def test_without_a_directory_no_files_are_kept(server):
    answer = httpx.get(server.url + "/v1/files")
    assert answer.status_code == 501
    assert "--data-dir" in answer.json()["error"]["message"]
