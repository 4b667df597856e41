# SPDX-License-Identifier: Apache-2.0
"""Messages through Anthropic's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Literal

import anthropic
import httpx
import pytest
from live_server import LiveServer
from pydantic import BaseModel

from freehold import LLM, SamplingParams
from freehold.server.anthropic import messages as anthropic_messages
from freehold.server.anthropic import stream as anthropic_stream
from freehold.server.anthropic.content import conversation
from freehold.server.failures import RequestError

GREEDY = {"temperature": 0}  # a field that this client knows no argument for
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "weather",
    "description": "The weather in a town.",
    "input_schema": {
        "type": "object",
        "properties": {"town": {"enum": ["Bern", "Rome"]}, "days": {"type": "boolean"}},
        "required": ["town", "days"],
        "additionalProperties": False,
    },
}
CLOCK = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def client(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def thinking_client(thinker: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=thinker.url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> str:
    with LLM("seedling", threads=1, context_length=1024) as llm:
        return llm.chat(HELLO, SamplingParams(temperature=0.0)).text


def ask(client, messages=HELLO, model="seedling", max_tokens=100, **given):
    return client.messages.create(
        model=model, messages=messages, max_tokens=max_tokens, extra_body=GREEDY, **given
    )


def test_the_answer_is_the_one_of_the_library(client, expected):
    message = ask(client)
    assert [block.type for block in message.content] == ["text"]
    assert message.content[0].text == expected
    assert (message.type, message.role, message.model) == ("message", "assistant", "seedling")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.id.startswith("msg_")
    assert message._request_id.startswith("req_")
    assert message.usage.output_tokens > 0


def test_the_stream_has_the_events_in_order(client, expected):
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event.delta.text for event in events[2:-3]) == expected
    assert events[0].message.content == []
    assert events[0].message.stop_reason is None
    assert events[-2].delta.stop_reason == "end_turn"


def test_the_stream_helper_puts_the_same_message_together(client):
    with client.messages.stream(
        model="seedling", messages=HELLO, max_tokens=100, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    whole = ask(client)
    assert message.content[0].text == text == whole.content[0].text
    assert message.stop_reason == whole.stop_reason
    assert message.usage.output_tokens == whole.usage.output_tokens
    total = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == total


def test_frames_are_named_and_the_first_is_followed_by_a_ping(server):
    body = {"model": "seedling", "messages": HELLO, "max_tokens": 3, "stream": True}
    with httpx.stream("POST", server.url + "/v1/messages", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        frames = answer.read().decode().split("\n\n")[:-1]
    names = [frame.split("\n")[0].removeprefix("event: ") for frame in frames]
    assert names[:2] == ["message_start", "ping"]
    for name, frame in zip(names, frames, strict=True):
        assert json.loads(frame.split("\n")[1].removeprefix("data: "))["type"] == name


def test_silence_is_filled_with_pings():
    async def slow():
        yield 1
        await asyncio.sleep(0.05)
        yield 2

    async def work():
        return [item async for item in anthropic_stream._or_silence(slow(), 0.01)]

    items = asyncio.run(work())
    assert items[0] == 1
    assert items[-1] == 2
    assert len(items) > 2
    assert set(items[1:-1]) == {None}


def test_prompt_tokens_are_counted_and_found_again(client):
    conversation = [{"role": "user", "content": "a b c d " * 40}]
    counted = client.messages.count_tokens(model="seedling", messages=conversation)
    first = ask(client, conversation, max_tokens=1).usage
    again = ask(client, conversation, max_tokens=1).usage
    assert first.input_tokens + first.cache_read_input_tokens == counted.input_tokens
    assert again.cache_read_input_tokens > 0
    assert again.input_tokens + again.cache_read_input_tokens == counted.input_tokens
    tools = client.messages.count_tokens(model="seedling", messages=conversation, tools=[CLOCK])
    assert tools.input_tokens >= counted.input_tokens


def test_a_prompt_can_be_computed_ahead(client):
    conversation = [{"role": "user", "content": "x y z w " * 40}]
    warm = ask(client, conversation, max_tokens=0)
    assert warm.content == []
    assert (warm.stop_reason, warm.usage.output_tokens) == ("max_tokens", 0)
    assert ask(client, conversation, max_tokens=1).usage.cache_read_input_tokens > 100


def test_stop_sequences_and_limits_are_told_apart(client, expected):
    word = expected.split()[2]
    message = ask(client, stop_sequences=[word])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)
    assert message.content[0].text == expected.partition(word)[0]
    assert ask(client, max_tokens=2).stop_reason == "max_tokens"


def test_the_context_that_is_full_is_told_apart(thinking_client):
    conversation = [{"role": "user", "content": "a" * 2000}]
    message = ask(thinking_client, conversation, "thinker", max_tokens=5000)
    assert message.stop_reason == "model_context_window_exceeded"


def test_system_prompts_and_blocks_are_text(client, server):
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    plain = ask(client, system="Be brief.")
    assert ask(client, system=blocks).content[0].text == plain.content[0].text
    user = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert ask(client, user, system="Be brief.").content[0].text == plain.content[0].text


def test_an_answer_that_was_begun_goes_on(client, expected):
    words = expected.split(" ")
    begun = " ".join(words[:2])
    message = ask(client, [*HELLO, {"role": "assistant", "content": begun}])
    assert begun + message.content[0].text == expected


def test_tools_that_must_be_called_are_called(thinking_client):
    message = ask(
        thinking_client, model="thinker", tools=[WEATHER, CLOCK],
        tool_choice={"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
    )  # fmt: skip
    call = message.content[-1]
    assert (message.stop_reason, call.type, call.name) == ("tool_use", "tool_use", "weather")
    assert call.input["town"] in ("Bern", "Rome")
    assert isinstance(call.input["days"], bool)
    with thinking_client.messages.stream(
        model="thinker", messages=HELLO, max_tokens=100, extra_body=GREEDY, tools=[WEATHER],
        tool_choice={"type": "any"},
    ) as stream:  # fmt: skip
        streamed = stream.get_final_message()
    calls = [block for block in streamed.content if block.type == "tool_use"]
    assert calls[0].name == "weather"
    assert calls[0].input["town"] in ("Bern", "Rome")
    assert len({block.id for block in calls}) == len(calls)

    after = [
        *HELLO,
        {"role": "assistant", "content": message.content},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"},
                {"type": "text", "text": "And tomorrow?"},
            ],
        },
    ]
    counted = thinking_client.messages.count_tokens(model="thinker", messages=after)
    assert counted.input_tokens > len("sunny And tomorrow?")
    assert ask(thinking_client, after, "thinker", tools=[WEATHER],
               tool_choice={"type": "none"}).stop_reason != "tool_use"  # fmt: skip


def test_thoughts_are_blocks_and_keep_to_their_budget(thinking_client):
    def think(budget: int, **given):
        return ask(thinking_client, model="thinker", max_tokens=60,
                   thinking={"type": "enabled", "budget_tokens": budget, **given})  # fmt: skip

    message = think(12)
    assert message.content[0].type == "thinking"
    assert message.content[1].type == "text"
    assert len(message.content[0].thinking.encode()) <= 3 * 13
    assert message.content[0].signature
    assert 12 <= message.usage.output_tokens_details.thinking_tokens <= 24
    omitted = think(12, display="omitted")
    assert omitted.content[0].thinking == ""
    assert omitted.content[1].text == message.content[1].text
    back = [*HELLO, {"role": "assistant", "content": message.content}, *HELLO]
    counted = thinking_client.messages.count_tokens(model="thinker", messages=back)
    assert counted.input_tokens > len(message.content[0].thinking)


def test_a_thought_is_cut_before_a_call_that_must_come(thinking_client):
    message = ask(
        thinking_client, model="thinker", tools=[WEATHER], tool_choice={"type": "any"},
        thinking={"type": "enabled", "budget_tokens": 8},
    )  # fmt: skip
    assert [message.content[0].type, message.content[-1].type] == ["thinking", "tool_use"]


def test_nobody_who_did_not_ask_for_thoughts_gets_any(thinking_client):
    for given in ({}, {"thinking": {"type": "disabled"}}):
        message = ask(thinking_client, model="thinker", max_tokens=20, **given)
        assert [block.type for block in message.content] == ["text"]


def test_the_clients_own_loop_runs_tools(thinking_client):
    asked = []

    @anthropic.beta_tool
    def weather(town: Literal["Bern", "Rome"]) -> str:
        """The weather in a town."""
        asked.append(town)
        return "sunny"

    # It asks for a conversation that the server holds, and goes on without when told there is none.
    runner = thinking_client.beta.messages.tool_runner(
        model="thinker", max_tokens=100, messages=HELLO, tools=[weather], extra_body=GREEDY,
        tool_choice={"type": "any", "disable_parallel_tool_use": True}, max_iterations=2,
    )  # fmt: skip
    assert [message.stop_reason for message in runner] == ["tool_use", "tool_use"]
    assert asked
    assert set(asked) <= {"Bern", "Rome"}


class Verdict(BaseModel):
    ok: bool


def test_the_client_reads_answers_into_its_own_types(thinking_client, thinker):
    message = thinking_client.messages.parse(
        model="thinker", max_tokens=100, messages=HELLO, output_format=Verdict, extra_body=GREEDY
    )
    assert isinstance(message.parsed_output, Verdict)
    older = {"type": "json_schema", "schema": Verdict.model_json_schema()}
    body = {"model": "thinker", "max_tokens": 100, "messages": HELLO, **GREEDY}
    answer = httpx.post(thinker.url + "/v1/messages", json={**body, "output_format": older})
    assert json.loads(answer.json()["content"][0]["text"]).keys() == {"ok"}


def test_answers_keep_to_a_schema(thinking_client):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    message = ask(
        thinking_client, model="thinker",
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )  # fmt: skip
    assert isinstance(json.loads(message.content[0].text)["ok"], bool)


def test_what_a_coding_agent_sends_is_understood(thinker):
    cached = {"type": "ephemeral"}
    body = {
        "model": "thinker",
        "max_tokens": 40,
        "stream": True,
        "metadata": {"user_id": "user_1_account__session_2"},
        "system": [
            {"type": "text", "text": "You write code."},
            {"type": "text", "text": "Be careful.", "cache_control": cached},
        ],
        "thinking": {"type": "enabled", "budget_tokens": 8},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "medium"},
        "tools": [
            {**WEATHER, "type": "custom", "eager_input_streaming": True, "cache_control": cached}
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<reminder>Be kind.</reminder>"},
                {"type": "text", "text": "The weather?", "cache_control": cached},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "I look.", "signature": "another vendor's"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather",
                 "input": {"town": "Bern"}, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1",
                 "content": [{"type": "text", "text": "sunny"}], "cache_control": cached},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no town",
                 "is_error": True},
            ]},
        ],
    }  # fmt: skip
    headers = {
        "x-api-key": "sk-ant-anything", "anthropic-version": "2023-06-01",
        "anthropic-beta": "interleaved-thinking-2025-05-14,fine-grained-tool-streaming-2025-05-14",
    }  # fmt: skip
    answer = httpx.post(thinker.url + "/v1/messages?beta=true", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert '"stop_reason"' in answer.text
    prompt = conversation(body["system"], body["messages"])
    assert [message["role"] for message in prompt] == [
        "system", "user", "assistant", "tool", "tool",
    ]  # fmt: skip
    assert prompt[1]["content"] == "<reminder>Be kind.</reminder>\n\nThe weather?"
    assert prompt[2]["reasoning_content"] == "I look."
    assert prompt[3] == {
        "role": "tool", "content": "sunny", "name": "weather", "tool_call_id": "toolu_1",
    }  # fmt: skip
    assert prompt[4]["content"] == "Error: no town"
    counted = httpx.post(
        thinker.url + "/v1/messages/count_tokens", headers=headers,
        json={k: v for k, v in body.items() if k not in ("max_tokens", "stream", "metadata")},
    )  # fmt: skip
    assert counted.json()["input_tokens"] > 100


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "nobody", "content": "x"}]}]}, "nobody"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"colour": "red"}, "colour"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [CLOCK]}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 200}}, "budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "thinking"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "verse"}}}, "output_config.format"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {
            "type": "object", "unevaluatedProperties": {"type": "string"}}}}},
         "output_config.format"),
        ({"container": "c"}, "container"),
        ({"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
         "context_management"),
        ({"stop_sequences": [""]}, "stop"),
        ({"messages": [{"role": "user", "content": "a " * 3000}]}, "context"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(server, change, named):
    body = {"model": "seedling", "messages": HELLO, "max_tokens": 100, **change}
    answer = httpx.post(server.url + "/v1/messages", json=body)
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert told["type"] == "error"
    assert told["error"]["type"] == "invalid_request_error"
    assert named in told["error"]["message"]
    assert answer.headers["request-id"].startswith("req_")


def test_a_number_of_tokens_is_required(server):
    answer = httpx.post(server.url + "/v1/messages", json={"model": "seedling", "messages": HELLO})
    assert answer.status_code == 400
    assert "max_tokens" in answer.json()["error"]["message"]


def test_the_client_raises_what_it_has_for_it(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        ask(client, model="nobody")
    assert caught.value.type == "not_found_error"
    assert caught.value.request_id.startswith("req_")


def test_too_much_work_has_anthropics_own_status(client, server, monkeypatch):
    async def busy(*_args):
        raise RequestError("come back later", kind="overloaded", retry_after=3)

    monkeypatch.setattr(anthropic_messages.Generation, "start", busy)
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
    assert caught.value.response.headers["retry-after"] == "3"


def test_an_error_on_the_way_ends_the_stream(client, monkeypatch):
    async def broken(self):
        yield {"type": "message_start", "message": {}}
        raise RequestError("the wire was cut", kind="overloaded")

    monkeypatch.setattr(anthropic_stream.Answer, "events", broken)
    with pytest.raises(anthropic.APIStatusError, match="the wire was cut"):
        list(ask(client, stream=True))


def test_models_are_listed_in_anthropics_words(client, server):
    assert [model.id for model in client.models.list()] == ["seedling"]
    card = client.models.retrieve("seedling")
    assert (card.type, card.display_name) == ("model", "seedling")
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.type == "not_found_error"
    assert httpx.get(server.url + "/v1/models").json()["object"] == "list"


def test_one_body_is_answered_without_http(thinker):
    async def work():
        services = thinker.services
        body = {"model": "thinker", "messages": HELLO, "max_tokens": 4, "temperature": 0}
        message = await anthropic_messages.answer(services, body)
        assert message["stop_reason"] == "max_tokens"
        with pytest.raises(RequestError, match="unknown parameter"):
            await anthropic_messages.answer(services, {**body, "colour": "red"})
        with pytest.raises(RequestError, match="stream"):
            await anthropic_messages.answer(services, {**body, "stream": True})

    thinker.on_loop(work())


def test_the_asynchronous_client_streams_too(server, expected):
    async def work() -> str:
        async with (
            anthropic.AsyncAnthropic(
                base_url=server.url, api_key="unused", max_retries=0
            ) as client,
            client.messages.stream(
                model="seedling", messages=HELLO, max_tokens=100, extra_body=GREEDY
            ) as stream,
        ):
            return await stream.get_final_text()

    assert asyncio.run(work()) == expected
