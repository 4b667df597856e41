# SPDX-License-Identifier: Apache-2.0
"""What Open WebUI asks of an Ollama and of an OpenAI backend, in its order and with its fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest
from live_server import LiveServer

HEADERS = {
    "Authorization": "Bearer sk-anything",
    "Content-Type": "application/json",
    "X-OpenWebUI-User-Name": "Ada%20L",
    "X-OpenWebUI-User-Id": "b3c0",
    "X-OpenWebUI-User-Email": "ada@example.org",
    "X-OpenWebUI-User-Role": "user",
    "X-OpenWebUI-Chat-Id": "c1",
}
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Hello"}
TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Search the notes.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "what for"}},
            "required": ["query"],
        },
    },
}


@pytest.fixture
def backend(thinker: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=thinker.url, headers=HEADERS, timeout=60) as client:
        yield client


def ndjson(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def sse(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert data.pop() == "[DONE]"
    return [json.loads(item) for item in data]


def test_an_ollama_connection_is_set_up_and_chatted_over(backend):
    version = backend.get("/api/version").json()["version"]
    assert [int(n) for n in version.partition("-")[0].split(".")]
    listed = {model["model"]: model for model in backend.get("/api/tags").json()["models"]}
    name = "thinker:latest"
    assert {"name", "modified_at", "size", "digest", "details"} <= set(listed[name])
    assert "tools" in backend.post("/api/show", json={"model": name}).json()["capabilities"]
    assert backend.post("/api/show", json={"name": name}).status_code == 200

    # A chat with the advanced parameters set.
    options = {
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 7,
        "mirostat": 0,
        "mirostat_eta": 0.1,
        "mirostat_tau": 5.0,
        "num_ctx": 2048,
        "num_batch": 512,
        "num_keep": 24,
        "num_predict": 12,
        "repeat_last_n": 64,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": ["\n\n\n"],
        "num_gpu": 0,
        "use_mmap": True,
        "use_mlock": False,
        "num_thread": 2,
    }
    lines = ndjson(
        backend.post(
            "/api/chat",
            json={
                "model": name,
                "messages": [SYSTEM, USER],
                "stream": True,
                "options": options,
                "keep_alive": "5m",
                "think": False,
            },
        )
    )
    assert all(line["message"]["role"] == "assistant" for line in lines)
    last = lines[-1]
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert last["eval_count"] / (last["eval_duration"] / 1e9) > 0
    assert last["prompt_eval_count"] > 0
    assert last["total_duration"] > 0

    # What is loaded, and until when.
    loaded = {m["name"]: m["expires_at"] for m in backend.get("/api/ps").json()["models"]}
    assert datetime.fromisoformat(loaded[name]).timestamp() > 0

    # The title of the chat: not streamed, its limit beside the options.
    title = backend.post(
        "/api/chat",
        json={
            "model": name,
            "messages": [USER],
            "stream": False,
            "num_predict": 4,
            "options": {"temperature": 0.0},
        },
    ).json()
    assert (title["eval_count"], title["done_reason"]) == (4, "length")

    # An answer of a tool on its way back.
    call = {
        "index": 0,
        "id": "call_1",
        "function": {"name": "search", "arguments": {"query": "cats"}},
    }
    messages = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "no cats", "tool_call_id": "call_1"},
    ]
    body = {
        "model": name,
        "messages": messages,
        "tools": [TOOL],
        "stream": True,
        "options": {"num_predict": 3},
    }
    assert ndjson(backend.post("/api/chat", json=body))[-1]["done"]

    # Documents, and unloading from the menu.
    vectors = backend.post("/api/embed", json={"model": name, "input": ["a", "b"]}).json()
    assert len(vectors["embeddings"]) == 2
    gone = {"model": name, "keep_alive": 0, "prompt": ""}
    assert ndjson(backend.post("/api/generate", json=gone))[-1]["done_reason"] == "unload"
    assert backend.get("/api/ps").json()["models"] == []


def test_an_openai_connection_is_set_up_and_chatted_over(backend):
    (model,) = backend.get("/v1/models").json()["data"]
    name = model["id"]

    # Tasks first: a title, tags, follow-ups.
    task = backend.post(
        "/v1/chat/completions",
        json={
            "model": name,
            "messages": [USER],
            "stream": False,
            "max_completion_tokens": 4,
            "temperature": 0,
        },
    ).json()
    assert task["choices"][0]["finish_reason"] == "length"
    assert isinstance(task["choices"][0]["message"]["content"], str)

    body = {
        "model": name,
        "messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "max_tokens": 12,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "seed": 7,
        "stop": ["\n\n\n"],
        "logit_bias": {"65": -100},
        "reasoning_effort": "low",
        "response_format": {"type": "text"},
        "chat_template_kwargs": {"enable_thinking": True},
    }
    chunks = sse(backend.post("/v1/chat/completions", json=body))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert chunks[-1]["usage"]["completion_tokens"] == 12

    # Native calling of tools, and the answer of one on its way back.
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "search", "arguments": '{"query": "cats"}'},
    }
    messages = [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "no cats"},
    ]
    body = {
        "model": name,
        "messages": messages,
        "tools": [TOOL],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 3,
    }
    assert sse(backend.post("/v1/chat/completions", json=body))


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        ("/api/chat", {"options": {"reasoning_effort": "low"}}, "options.reasoning_effort"),
        ("/api/chat", {"options": {"num_ctx": 10**6}}, "options.num_ctx"),
        ("/api/chat", {"messages": [{**USER, "images": ["AAAA"]}]}, "images"),
        ("/v1/chat/completions", {"repeat_penalty": 1.1}, "repeat_penalty"),
        ("/v1/chat/completions", {"num_ctx": 4096}, "num_ctx"),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image_url",
                                "image_url": {"url": "data:image/png;base64,AAAA"},
                            }
                        ],
                    }
                ]
            },
            "image_url",
        ),
    ],
)
def test_settings_that_mean_nothing_here_are_named_to_its_user(backend, path, change, named):
    answer = backend.post(path, json={"model": "thinker", "messages": [USER], **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert named in (error if isinstance(error, str) else error["message"])
