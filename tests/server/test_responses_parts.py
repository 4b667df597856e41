# SPDX-License-Identifier: Apache-2.0
"""The writer and the store of responses, without a model."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai.types.responses import Response
from pydantic import TypeAdapter
from starlette.requests import HTTPConnection

from freehold.server.failures import Failure, RequestError
from freehold.server.openai.responses_events import ResponseWriter
from freehold.server.openai.responses_input import messages, normalised
from freehold.server.openai.responses_request import ResponsesBody, head
from freehold.server.openai.responses_store import ResponseStore, StoredResponse
from freehold.server.request_context import KEY_NAME
from freehold.server.security.caller import caller
from freehold.types import Completion, StreamEvent, ToolCall

BODY = ResponsesBody(model="m", input="x")


def written(writer: ResponseWriter, *events: StreamEvent) -> list[dict]:
    told = writer.begin()
    for event in events:
        told += writer.take(None, event)  # type: ignore[arg-type]
    return told


def test_thought_text_and_calls_are_items_in_their_order():
    writer = ResponseWriter(head(BODY))
    calls = (ToolCall(0, "f", '{"a":1}', "call_1"), ToolCall(1, "g", "{}"))
    told = written(
        writer,
        StreamEvent("", (1, 2), reasoning="Hm"),
        StreamEvent("", (3,)),  # held back; it turns out to be text
        StreamEvent("So", (4,)),
        StreamEvent("", (5, 6), tool_calls=calls),
        StreamEvent("then", (7,)),
    )
    completion = Completion("Sothen", (1, 2, 3, 4, 5, 6, 7), "stop", (9, 9), cached_tokens=1)
    told += writer.finish(None, completion, 2)  # type: ignore[arg-type]
    response = Response.model_validate(told[-1]["response"])
    kinds = [item.type for item in response.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call", "message"]
    assert response.output_text == "Sothen"
    assert response.output[2].call_id == "call_1"
    assert response.output[3].call_id.startswith("call_")
    assert response.usage.output_tokens_details.reasoning_tokens == 2
    assert response.usage.input_tokens_details.cached_tokens == 1
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    added = [e for e in told if e["type"] == "response.output_item.added"]
    done = [e for e in told if e["type"] == "response.output_item.done"]
    assert [e["output_index"] for e in added] == [0, 1, 2, 3, 4]
    assert [e["item"] for e in done] == told[-1]["response"]["output"]
    assert [e["item"]["id"] for e in added] == [e["item"]["id"] for e in done]
    # What was sent first has not changed since.
    assert told[0]["response"]["output"] == []
    # As an input, it is one turn with a thought, and another behind the calls' results.
    back = messages(None, normalised(told[-1]["response"]["output"][:4], lambda _: None))
    assert len(back) == 1
    assert back[0]["reasoning_content"] == "Hm"
    assert back[0]["content"] == "So"
    assert [c["function"]["arguments"] for c in back[0]["tool_calls"]] == [{"a": 1}, {}]


def test_an_empty_answer_has_an_empty_text():
    writer = ResponseWriter(head(BODY))
    written(writer, StreamEvent("", (1,)))
    writer.finish(None, Completion("", (1,), "stop", (9,)), 1)  # type: ignore[arg-type]
    assert Response.model_validate(writer.response).output[0].content[0].text == ""


def test_a_failure_on_the_way_is_the_last_event():
    writer = ResponseWriter(head(BODY))
    told = written(writer, StreamEvent("Hal", (1,)))
    told += writer.fail(Failure("overloaded", "too much"))
    response = Response.model_validate(told[-1]["response"])
    assert told[-1]["type"] == "response.failed"
    assert (response.error.code, response.error.message) == ("server_error", "too much")
    assert response.output[0].status == "incomplete"
    assert response.output_text == "Hal"


def test_system_messages_at_the_beginning_are_one():
    items = normalised(
        [{"role": "developer", "content": "B"}, {"role": "user", "content": "C"}], lambda _: None
    )
    assert messages("A", items) == [
        {"role": "system", "content": "A\n\nB"},
        {"role": "user", "content": "C"},
    ]


def test_what_one_key_stores_no_other_finds():
    async def check() -> None:
        store = ResponseStore(max_bytes=100, max_count=10, max_age=60.0)
        item = json.dumps([{"id": "msg_1"}]).encode()
        store.put(StoredResponse("resp_1", "alice", item, b'{"output": []}'))
        assert store.get("alice", "resp_1").items() == [{"id": "msg_1"}]
        assert store.finder("alice")("msg_1") == {"id": "msg_1"}
        for owner in ("bob", ""):
            assert store.finder(owner)("msg_1") is None
            for act in (store.get, store.delete):
                with pytest.raises(RequestError) as told:
                    act(owner, "resp_1")
                assert told.value.kind == "not_found"
        store.put(StoredResponse("resp_2", "bob", b"x" * 90, b"{}"))  # takes nothing from alice
        store.put(StoredResponse("resp_3", "bob", b"x" * 90, b"{}"))
        assert store.get("alice", "resp_1")
        with pytest.raises(RequestError):
            store.get("bob", "resp_2")
        old = StoredResponse("resp_4", "alice", b"[]", b"{}")
        old.created -= 61
        aged = ResponseStore(max_bytes=100, max_count=10, max_age=60.0)
        aged.put(old)
        with pytest.raises(RequestError):
            aged.get("alice", "resp_4")

    asyncio.run(check())


def test_who_asks_is_what_the_scope_says():
    assert caller(HTTPConnection({"type": "http", "state": {KEY_NAME: "alice"}})) == "alice"
    assert caller(HTTPConnection({"type": "http", "state": {}})) == ""
    assert caller(HTTPConnection({"type": "http"})) == ""


def test_every_event_of_a_stream_is_known_to_the_client():
    from openai.types.responses import ResponseStreamEvent

    writer = ResponseWriter(head(BODY))
    told = written(writer, StreamEvent("", (1,), reasoning="Hm"), StreamEvent("So", (2,)))
    told += writer.finish(None, Completion("So", (1, 2), "length", (9,)), 1)  # type: ignore[arg-type]
    adapter = TypeAdapter(ResponseStreamEvent)
    for event in told:
        assert adapter.validate_python(event).type == event["type"]
