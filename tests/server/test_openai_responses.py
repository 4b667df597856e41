# SPDX-License-Identifier: Apache-2.0
"""OpenAI's responses through OpenAI's own client; every event is held against its type."""

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
from openai.types.responses import Response
from openai.types.responses.response_item_list import ResponseItemList

import tiny_chat
from freehold import LLM, SamplingParams
from freehold.server.settings import ServerSettings

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"model": "seedling", "temperature": 0}
TOOL_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINK_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
SWITCH = {
    "type": "function", "name": "switch", "description": "Turn a lamp on or off",
    "parameters": {
        "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": False,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tools = tiny_chat.write(folder / "tools.gguf", template=TOOL_TEMPLATE)
    think = tiny_chat.write(folder / "think.gguf", template=THINK_TEMPLATE)
    settings = ServerSettings(
        models=(str(tools), str(think)), engine={"threads": 1, "context_length": 1024},
        responses_bytes=20_000, responses_count=4,
    )  # fmt: skip
    with live_server(settings) as running:
        yield running


def client_of(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


@pytest.fixture(scope="module")
def tiny_client(tiny: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(tiny) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> str:
    with LLM("seedling", threads=1, context_length=1024) as llm:
        return llm.chat(HELLO, SamplingParams(temperature=0.0)).text


def events_of(stream: Any) -> list[Any]:
    """All events, each valid as the client declares it, in order, building up to the last."""
    events = list(stream)
    for event in events:
        type(event).model_validate(event.to_dict())
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(events)))
    return events


def kinds(events: list[Any]) -> list[str]:
    """Types of events without their common beginning, repeated deltas once."""
    names = [event.type.removeprefix("response.") for event in events]
    return [n for i, n in enumerate(names) if i == 0 or n != names[i - 1]]


def wait_until_over(client: openai.OpenAI, response_id: str) -> Response:
    deadline = time.monotonic() + 20
    while True:
        response = client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.02)


def test_the_answer_is_the_one_of_the_library(client, expected):
    answer = client.responses.create(**GREEDY, input="Hello", metadata={"a": "b"})
    Response.model_validate(answer.to_dict())
    assert answer.output_text == expected
    assert answer.status == "completed"
    assert answer.metadata == {"a": "b"}
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens_details.reasoning_tokens == 0
    again = client.responses.retrieve(answer.id)
    assert again.to_dict() == answer.to_dict()


def test_a_stream_tells_the_same_in_the_order_of_the_protocol(client, expected):
    events = events_of(client.responses.create(**GREEDY, input=HELLO, stream=True))
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert events[0].sequence_number == 0
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == expected
    final = events[-1].response
    assert final.output_text == expected
    assert client.responses.retrieve(final.id).to_dict() == final.to_dict()


def test_the_clients_own_accumulator_reads_the_stream(client, expected):
    with client.responses.stream(**GREEDY, input="Hello") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == expected


def test_a_conversation_goes_on_from_a_stored_response(client):
    first = client.responses.create(**GREEDY, input="Hello", max_output_tokens=6)
    assert first.status == "incomplete"
    assert first.incomplete_details.reason == "max_output_tokens"
    second = client.responses.create(
        **GREEDY, previous_response_id=first.id, instructions="Be brief.", input="And now?",
    )  # fmt: skip
    messages = [
        {"role": "system", "content": "Be brief."}, *HELLO,
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    same = client.chat.completions.create(**GREEDY, messages=messages)
    assert second.output_text == same.choices[0].message.content
    assert second.usage.input_tokens == same.usage.prompt_tokens
    counted = client.responses.input_tokens.count(
        model="seedling", previous_response_id=first.id, instructions="Be brief.", input="And now?"
    )
    assert counted.input_tokens == second.usage.input_tokens
    listed = client.responses.input_items.list(second.id, order="asc")
    ResponseItemList.model_validate(listed.to_dict() | {"object": "list"})
    assert [i.content[0].text for i in listed.data] == [m["content"] for m in messages[1:]]
    pages = client.responses.input_items.list(second.id, order="desc", limit=2)
    assert [i.id for i in pages] == [i.id for i in reversed(listed.data)]
    reference = {"type": "item_reference", "id": first.output[0].id}
    third = client.responses.create(
        **GREEDY, instructions="Be brief.", input=[*HELLO, reference, messages[-1]], store=False
    )
    assert third.output_text == second.output_text


def test_what_is_not_stored_or_deleted_is_not_found(client):
    kept = client.responses.create(**GREEDY, input="Hello", max_output_tokens=1)
    gone = client.responses.create(**GREEDY, input="Hello", max_output_tokens=1, store=False)
    client.responses.delete(kept.id)
    for response_id in (kept.id, gone.id, "resp_" + "0" * 24, "../x"):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response_id)
    with pytest.raises(openai.NotFoundError, match="send the conversation"):
        client.responses.create(**GREEDY, input="x", previous_response_id=kept.id)


def test_the_store_forgets_the_oldest_and_takes_nothing_larger_than_itself(tiny, tiny_client):
    ask = {"model": "tools", "input": "Hi", "max_output_tokens": 2}
    ids = [tiny_client.responses.create(**ask).id for _ in range(6)]
    found = []
    for response_id in ids:
        answer = httpx.get(f"{tiny.url}/v1/responses/{response_id}")
        found.append(answer.status_code == 200)
    assert found == [False, False, True, True, True, True]
    with pytest.raises(openai.BadRequestError, match="store: false"):
        tiny_client.responses.create(**ask | {"input": "x" * 20_000})


def test_log_probabilities_belong_to_the_text(client):
    stream = client.responses.create(
        **GREEDY, input="Hello", max_output_tokens=4, top_logprobs=2, stream=True,
        include=["message.output_text.logprobs"],
    )  # fmt: skip
    events = events_of(stream)
    told = [p for e in events if e.type == "response.output_text.delta" for p in e.logprobs]
    whole = events[-1].response.output[0].content[0].logprobs
    assert len(whole) == 4
    assert [p.token for p in told] == [p.token for p in whole[: len(told)]]
    assert all(len(p.top_logprobs) == 2 for p in whole)


def test_a_schema_is_kept(client):
    schema = {
        "type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}, "required": ["ok"],
        "additionalProperties": False,
    }  # fmt: skip
    answer = client.responses.create(
        model="seedling", temperature=1.5, extra_body={"seed": 3}, input="Well?",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert json.loads(answer.output_text)["ok"] in ("yes", "no")
    assert answer.text.format.type == "json_schema"


def test_calls_are_items_and_their_results_are_taken_back(tiny_client):
    ask = {
        "model": "tools", "tools": [SWITCH], "extra_body": {"seed": 1}, "max_output_tokens": 200,
    }  # fmt: skip
    stream = tiny_client.responses.create(
        **ask, input="On, please", tool_choice="required", parallel_tool_calls=False, stream=True
    )
    events = events_of(stream)
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    final = events[-1].response
    call = final.output[0]
    assert call.name == "switch"
    assert isinstance(json.loads(call.arguments)["on"], bool)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    named = tiny_client.responses.create(
        **ask, previous_response_id=final.id, input=[result],
        tool_choice={"type": "function", "name": "switch"},
    )  # fmt: skip
    assert named.output[0].type == "function_call"
    spelled = tiny_client.responses.create(
        **ask, input=[{"role": "user", "content": "On, please"}, call.to_dict(), result],
        tool_choice={
            "type": "allowed_tools", "mode": "required",
            "tools": [{"type": "function", "name": "switch"}],
        },
    )  # fmt: skip
    assert spelled.usage.input_tokens == named.usage.input_tokens
    free = tiny_client.responses.create(
        **ask | {"max_output_tokens": 3}, input="x", tool_choice="none"
    )
    assert free.output[0].type == "message"


def test_thoughts_are_items_of_their_own(tiny_client):
    stream = tiny_client.responses.create(
        model="think", input="Hm", max_output_tokens=20, stream=True,
        extra_body={"seed": 5, "ignore_eos": True},
        reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"],
    )  # fmt: skip
    events = events_of(stream)
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added",
        "reasoning_text.delta", "reasoning_text.done", "content_part.done", "output_item.done",
        "incomplete",
    ]  # fmt: skip
    final = events[-1].response
    thought = final.output[0]
    assert thought.type == "reasoning"
    assert thought.content[0].text == "".join(
        e.delta for e in events if e.type == "response.reasoning_text.delta"
    )
    assert final.usage.output_tokens_details.reasoning_tokens > 10
    back = {"model": "think", "max_output_tokens": 1}
    said = {"role": "assistant", "content": "Aha"}
    with_thought = tiny_client.responses.create(**back, input=[thought.to_dict(), said])
    without = tiny_client.responses.create(**back, input=[said])
    extra = with_thought.usage.input_tokens - without.usage.input_tokens
    assert extra > len("<think></think>")


def test_in_the_background_an_answer_is_written_and_can_be_followed(client, expected):
    begun = client.responses.create(**GREEDY, input="Hello", background=True)
    assert begun.status == "queued"
    done = wait_until_over(client, begun.id)
    assert done.output_text == expected
    stream = client.responses.create(**GREEDY, input="Hello", background=True, stream=True)
    first = next(iter(stream))
    stream.close()  # whoever leaves may come back
    events = events_of(client.responses.retrieve(first.response.id, stream=True))
    assert kinds(events)[:4] == ["created", "queued", "in_progress", "output_item.added"]
    assert events[-1].response.output_text == expected
    rest = events_of(client.responses.retrieve(first.response.id, stream=True, starting_after=4))
    assert [e.to_dict() for e in rest] == [e.to_dict() for e in events[5:]]
    with pytest.raises(openai.BadRequestError):
        client.responses.retrieve(begun.id, stream=True)


def test_what_runs_in_the_background_can_be_cancelled(server, client):
    endless = {"ignore_eos": True, "temperature": 1.0, "seed": 1}
    begun = client.responses.create(
        model="seedling", input="Hello", background=True, extra_body=endless
    )
    cancelled = client.responses.cancel(begun.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(begun.id).status == "cancelled"
    deleted = client.responses.create(
        model="seedling", input="Hello", background=True, extra_body=endless
    )
    client.responses.delete(deleted.id)
    model = server.services.registry.find("seedling")
    deadline = time.monotonic() + 10
    while model.users or model.loaded.llm.engine.num_unfinished:
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.02)
    whole = client.responses.create(**GREEDY, input="Hello", max_output_tokens=1)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(whole.id)


def test_what_fails_in_the_background_says_why(client):
    begun = client.responses.create(**GREEDY, input="a " * 3000, background=True)
    failed = wait_until_over(client, begun.id)
    assert failed.status == "failed"
    assert failed.error.code == "invalid_prompt"
    assert failed.error.message
    with pytest.raises(openai.BadRequestError, match="failed"):
        client.responses.create(**GREEDY, input="x", previous_response_id=begun.id)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"input": []}, 400, "input"),
        ({"input": [{"role": "wizard", "content": "x"}]}, 400, "input[0].role"),
        ({"input": [{"type": "web_search_call"}]}, 400, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
         400, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]},
         400, "input[0].content[0]"),
        ({"input": [{"type": "reasoning", "encrypted_content": "x"}]}, 400,
         "input[0].encrypted_content"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{"}]},
         400, "input[0].arguments"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0]"),
        ({"tools": [SWITCH], "tool_choice": {"type": "web_search"}}, 400, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, 400, "tool_choice"),
        ({"text": {"format": {"type": "verse"}}}, 400, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "#/a"}}}},
         400, "text.format"),
        ({"truncation": "auto"}, 400, "truncation"),
        ({"conversation": "c"}, 400, "conversation"),
        ({"background": True, "store": False}, 400, "background"),
        ({"background": True, "model": "nobody"}, 404, "model"),
        ({"metadata": {"x": "y" * 513}}, 400, "metadata"),
        ({"temperature": -1}, 400, None),
        ({"input": "a " * 3000}, 400, None),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(server, change, status, param):
    body = {"model": "seedling", "input": "Hello", **change}
    for stream in (False, True):
        answer = httpx.post(server.url + "/v1/responses", json=body | {"stream": stream})
        assert answer.status_code == status, answer.text
        assert answer.json()["error"]["param"] == param
        assert answer.json()["error"]["message"]


def test_half_a_character_is_refused(server):
    body = rb'{"model": "seedling", "input": [{"role": "user", "content": "\ud800"}]}'
    answer = httpx.post(server.url + "/v1/responses", content=body,
                        headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code == 400


def test_a_stream_that_is_left_ends_its_request(server):
    body = {
        "model": "seedling", "input": "Hello", "stream": True, "ignore_eos": True,
        "temperature": 1.0,
    }  # fmt: skip
    with httpx.stream("POST", server.url + "/v1/responses", json=body) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: response.created"
        response_id = json.loads(next(lines).removeprefix("data: "))["response"]["id"]
    model = server.services.registry.find("seedling")
    deadline = time.monotonic() + 10
    while model.users or model.loaded.llm.engine.num_unfinished:
        assert time.monotonic() < deadline, "the request still runs"
        time.sleep(0.02)
    assert httpx.get(f"{server.url}/v1/responses/{response_id}").status_code == 404
