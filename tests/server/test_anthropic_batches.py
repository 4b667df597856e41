# SPDX-License-Identifier: Apache-2.0
"""Message batches through Anthropic's own client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from live_server import LiveServer, live_server

import tiny_chat
from freehold.server.settings import ServerSettings


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("anthropic")
    settings = ServerSettings(
        models=(str(tiny_chat.write(folder / "tiny.gguf")),), data_dir=folder / "data",
        engine={"threads": 1, "context_length": 512, "max_num_seqs": 8}, batch_lines=2,
    )  # fmt: skip
    with live_server(settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key="unused", max_retries=0) as client:
        yield client


def ask(custom_id: str, text: str = "Hi", **more: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    params = {"model": "tiny", "max_tokens": 4, "messages": messages, "temperature": 0, **more}
    return {"custom_id": custom_id, "params": params}


def wait(client: anthropic.Anthropic, batch_id: str) -> MessageBatch:
    deadline = time.monotonic() + 30
    while True:
        batch = client.messages.batches.retrieve(batch_id)
        if batch.processing_status == "ended":
            return batch
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.02)


def test_every_message_gets_its_result(running, client):
    asked = [ask(f"m-{i}", f"Number {i}") for i in range(5)] + [ask("nobody", model="nobody")]
    begun = client.messages.batches.create(requests=asked)
    MessageBatch.model_validate(begun.to_dict())
    assert begun.processing_status == "in_progress"
    assert begun.request_counts.processing == 6
    ended = wait(client, begun.id)
    MessageBatch.model_validate(ended.to_dict())
    counts = ended.request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (5, 1, 0)
    told = list(client.messages.batches.results(begun.id))
    for one in told:
        MessageBatchIndividualResponse.model_validate(one.to_dict())
    assert [one.custom_id for one in told] == [each["custom_id"] for each in asked]
    for one, each in zip(told[:5], asked, strict=False):
        assert one.result.type == "succeeded"
        alone = httpx.post(running.url + "/v1/messages", json=each["params"]).json()
        assert [block.to_dict() for block in one.result.message.content] == alone["content"]
    assert told[5].result.type == "errored"
    assert told[5].result.error.error.type == "not_found_error"
    assert client.messages.batches.delete(begun.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(begun.id)


def test_a_cancelled_batch_tells_what_was_not_asked(running, client):
    asked = [ask("quick"), *(ask(f"slow-{i}", "x" * 300, max_tokens=200) for i in range(60))]
    batch_id = client.messages.batches.create(requests=asked).id
    with pytest.raises(anthropic.BadRequestError, match="cancel it first"):
        client.messages.batches.delete(batch_id)
    assert httpx.get(f"{running.url}/v1/messages/batches/{batch_id}/results").status_code == 404
    client.messages.batches.cancel(batch_id)
    counts = wait(client, batch_id).request_counts
    assert counts.succeeded + counts.canceled == len(asked)
    assert counts.canceled > 0
    kinds = [one.result.type for one in client.messages.batches.results(batch_id)]
    assert kinds.count("canceled") == counts.canceled
    assert len(kinds) == len(asked)


def test_batches_are_listed_in_pages_of_their_dialect(running, client):
    made = [client.messages.batches.create(requests=[ask("a")]).id for _ in range(3)]
    listed = [batch.id for batch in client.messages.batches.list(limit=2)]
    assert set(made) <= set(listed)
    first = client.messages.batches.list(limit=1)
    second = client.messages.batches.list(limit=1, after_id=first.last_id)
    assert [b.id for b in first.data + second.data] == listed[:2]
    back = client.messages.batches.list(limit=1, before_id=second.first_id)
    assert [b.id for b in back.data] == listed[:1]
    assert httpx.get(running.url + "/v1/batches").json()["data"] == []
    for batch_id in made:
        wait(client, batch_id)
        assert httpx.get(f"{running.url}/v1/batches/{batch_id}").status_code == 404


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [ask("a"), ask("a")],
        [ask("not an id")],
        [ask("")],
        [ask("a", stream=True)],
        [{"custom_id": "a"}],
        [{"custom_id": "a", "params": {}, "colour": "red"}],
    ],
)
def test_what_no_batch_can_be_made_of_is_refused(running, requests):
    answer = httpx.post(running.url + "/v1/messages/batches", json={"requests": requests})
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
