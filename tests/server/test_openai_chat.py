# SPDX-License-Identifier: Apache-2.0
"""Chat completions through OpenAI's own client."""

from __future__ import annotations

import time

import httpx
import openai
import pytest
from live_server import LiveServer

from freehold import LLM, SamplingParams

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def client(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def expected() -> str:
    with LLM("seedling", threads=1, context_length=1024) as llm:
        return llm.chat(HELLO, SamplingParams(temperature=0.0)).text


def test_the_answer_is_the_one_of_the_library(client, expected):
    answer = client.chat.completions.create(model="seedling", messages=HELLO, temperature=0)
    choice = answer.choices[0]
    assert choice.message.content == expected
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer.model == "seedling"


def test_a_stream_brings_the_same_text_and_usage_last(client, expected):
    chunks = list(
        client.chat.completions.create(
            model="seedling", messages=HELLO, temperature=0, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens > 0
    assert len({c.id for c in chunks}) == 1


def test_several_answers_with_a_seed_differ_and_repeat(client):
    def ask() -> list[str]:
        answer = client.chat.completions.create(
            model="seedling", messages=HELLO, temperature=3.0, seed=-7, n=3, max_tokens=12
        )
        assert [c.index for c in answer.choices] == [0, 1, 2]
        return [c.message.content for c in answer.choices]

    first = ask()
    assert len(set(first)) == 3
    assert ask() == first


def test_logprobs_name_tokens_and_bytes(client):
    answer = client.chat.completions.create(
        model="seedling", messages=HELLO, temperature=0, max_tokens=3, logprobs=True,
        top_logprobs=2,
    )  # fmt: skip
    entries = answer.choices[0].logprobs.content
    assert len(entries) == 3
    assert all(e.logprob <= 0 and len(e.top_logprobs) == 2 for e in entries)
    joined = b"".join(bytes(e.bytes) for e in entries).decode()
    assert joined.strip() == answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason == "length"


def test_stop_strings_end_the_answer_before_themselves(client, expected):
    word = expected.split()[2]
    answer = client.chat.completions.create(
        model="seedling", messages=HELLO, temperature=0, stop=word
    )
    assert answer.choices[0].message.content == expected.partition(word)[0]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "nobody"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0]"),
        ({"temperature": -1}, 400, None),
        ({"temperature": "0.5"}, 400, "temperature"),
        ({"n": 0}, 400, "n"),
        ({"colour": "red"}, 400, "colour"),
        ({"top_logprobs": 3}, 400, "top_logprobs"),
        ({"logit_bias": {"x": 1}}, 400, "logit_bias"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "max_completion_tokens"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"response_format": {"type": "verse"}}, 400, "response_format"),
        ({"messages": [{"role": "user", "content": "a " * 3000}]}, 400, None),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(server, change, status, param):
    body = {"model": "seedling", "messages": HELLO, **change}
    answer = httpx.post(server.url + "/v1/chat/completions", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"]


def test_a_client_that_leaves_ends_its_request(server):
    body = {
        "model": "seedling", "messages": HELLO, "stream": True, "ignore_eos": True,
        "temperature": 1.0,
    }  # fmt: skip
    with httpx.stream("POST", server.url + "/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    model = server.services.registry.find("seedling")
    deadline = time.monotonic() + 10
    while model.users or model.loaded.llm.engine.num_unfinished:
        assert time.monotonic() < deadline, "the request still runs"
        time.sleep(0.02)


def test_unknown_routes_are_told_in_the_same_words(server):
    answer = httpx.get(server.url + "/v1/nothing")
    assert answer.status_code == 404
    assert "error" in answer.json()
