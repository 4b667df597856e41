# SPDX-License-Identifier: Apache-2.0
"""Ollama's API through Ollama's own client."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import ollama
import pytest
import thinking_model
from live_server import LiveServer, live_server

import tiny_chat
from freehold import LLM, SamplingParams
from freehold.server.failures import RequestError
from freehold.server.ollama import answers as ollama_answers
from freehold.server.ollama.requests import chat_request
from freehold.server.settings import ServerSettings
from freehold.types import ToolChoice

HELLO = [{"role": "user", "content": "Hello"}]
GREEDY = {"temperature": 0}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "enum": ["Bern", "Rome"]}},
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture
def client(server: LiveServer) -> Iterator[ollama.Client]:
    with ollama.Client(server.url) as client:
        yield client


@pytest.fixture
def thinking_client(thinker: LiveServer) -> Iterator[ollama.Client]:
    with ollama.Client(thinker.url) as client:
        yield client


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    greedy = SamplingParams(temperature=0.0, max_tokens=40)
    with LLM("seedling", threads=1, context_length=1024) as llm:
        return {
            "chat": llm.chat(HELLO, greedy).text,
            "raw": llm.generate("Once upon", greedy).text,
        }


def test_models_are_listed_and_described(client, server):
    (model,) = client.list().models
    assert model.model == "seedling:latest"
    assert len(model.digest) == 64
    assert model.size > 1_000_000
    assert model.details.format == "gguf"
    shown = client.show("seedling")
    assert shown.details.family == model.details.family
    assert "completion" in shown.capabilities
    assert shown.template
    family = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{family}.context_length"] >= 1024
    assert shown.modelinfo["general.parameter_count"] > 1000
    assert json.dumps(shown.modelinfo).count("/") < 200  # no paths of this machine
    assert client.show("seedling:latest").details == shown.details
    old = httpx.post(server.url + "/api/show", json={"name": "seedling", "verbose": True})
    assert old.json()["details"]["family"] == family


def test_what_a_model_can_do_is_told(thinking_client):
    assert {"completion", "tools", "thinking"} <= set(thinking_client.show("thinker").capabilities)


def test_a_chat_is_answered_as_the_library_does(client, expected):
    answer = client.chat("seedling", HELLO, options={**GREEDY, "num_predict": 40})
    assert answer.message.content == expected["chat"]
    assert answer.message.role == "assistant"
    assert answer.done
    assert answer.done_reason == "stop"
    assert answer.model == "seedling"
    assert answer.eval_count > 0
    assert answer.prompt_eval_count > 0
    assert answer.total_duration >= answer.eval_duration > 0
    assert answer.created_at.endswith("Z")


def test_a_streamed_chat_says_the_same(client, expected):
    lines = list(client.chat("seedling", HELLO, stream=True, options={**GREEDY, "num_predict": 40}))
    assert "".join(line.message.content for line in lines) == expected["chat"]
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].message.content == ""
    assert lines[-1].done_reason == "stop"
    assert lines[-1].eval_count > 0
    assert lines[0].eval_count is None


def test_an_answer_that_was_begun_goes_on(client, expected):
    begun = " ".join(expected["chat"].split(" ")[:2])
    messages = [*HELLO, {"role": "assistant", "content": begun}]
    answer = client.chat("seedling", messages, options={**GREEDY, "num_predict": 40})
    assert begun + answer.message.content == expected["chat"]


def test_prompts_are_answered_with_and_without_the_template(client, expected):
    options = {**GREEDY, "num_predict": 40}
    answer = client.generate("seedling", "Hello", options=options)
    assert answer.response == expected["chat"]
    assert answer.context[: answer.prompt_eval_count]
    assert len(answer.context) == answer.prompt_eval_count + answer.eval_count
    raw = client.generate("seedling", "Once upon", raw=True, options=options)
    assert raw.response == expected["raw"]
    assert raw.context is None
    streamed = client.generate("seedling", "Once upon", raw=True, stream=True, options=options)
    assert "".join(line.response for line in streamed) == expected["raw"]


def test_a_conversation_goes_on_from_its_context(client):
    options = {**GREEDY, "num_predict": 5}
    first = client.generate("seedling", "Hello", options=options)
    second = client.generate("seedling", "And then?", context=first.context, options=options)
    assert second.context[: len(first.context)] == list(first.context)
    alone = client.generate("seedling", "And then?", options=options)
    extra = second.prompt_eval_count - len(first.context)
    assert alone.prompt_eval_count - 1 <= extra <= alone.prompt_eval_count


def test_streaming_is_the_default_and_curl_needs_no_header(server):
    body = json.dumps(
        {"model": "seedling", "prompt": "Hello", "options": {"num_predict": 2, "temperature": 0}}
    )
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = httpx.post(server.url + "/api/generate", content=body, headers=headers)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1]["done_reason"] == "length"
    assert "error" in httpx.post(server.url + "/api/generate", content="{").json()


def test_options_reach_the_sampling(client):
    def ask(**options):
        return client.chat(
            "seedling", HELLO, options={"num_predict": 12, **options}
        ).message.content

    wild = {"temperature": 3.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert ask(**wild, seed=1) == ask(**wild, seed=1)
    assert ask(**wild, seed=1) != ask(**wild, seed=2)
    greedy = ask(temperature=0)
    assert ask(temperature=3.0, top_k=1) == greedy
    assert ask(temperature=0, stop=[greedy.split()[1]]) == greedy.partition(greedy.split()[1])[0]
    assert ask(temperature=0, num_ctx=512, num_gpu=99, num_thread=4, mirostat=0) == greedy


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        ("chat", {"options": {"colour": 1}}, "options.colour"),
        ("chat", {"options": {"mirostat": 2}}, "options.mirostat"),
        ("chat", {"options": {"tfs_z": 0.5}}, "options.tfs_z"),
        ("chat", {"options": {"num_ctx": 100_000}}, "options.num_ctx"),
        ("chat", {"options": {"num_predict": 0}}, "options.num_predict"),
        ("chat", {"options": {"temperature": "warm"}}, "temperature"),
        ("chat", {"format": "verse"}, "format"),
        ("chat", {"format": {"type": "object", "unevaluatedProperties": {}}}, "format"),
        ("chat", {"think": "deeply"}, "think"),
        ("chat", {"think": True}, "think"),
        ("chat", {"keep_alive": "soon"}, "soon"),
        ("chat", {"colour": "red"}, "colour"),
        ("chat", {"top_logprobs": 3}, "top_logprobs"),
        ("chat", {"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ("chat", {"messages": [{**HELLO[0], "images": ["AAAA"]}]}, "messages[0].images"),
        ("chat", {"tools": [{"type": "function"}]}, "tools[0].function"),
        ("chat", {"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ("chat", {"messages": [{"role": "assistant", "tool_calls": 7}]}, "messages[0].tool_calls"),
        ("chat", {"messages": [{"role": "tool", "tool_call_id": []}]}, "messages[0].tool_call_id"),
        ("generate", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ("generate", {"prompt": "x", "images": ["AAAA"]}, "images"),
        ("generate", {"prompt": "x", "raw": True, "system": "y"}, "system"),
        ("generate", {"prompt": "x", "context": [10**9]}, "10000"),
        ("generate", {"prompt": "a " * 3000}, "context"),
        ("embed", {"input": "a " * 3000}, "truncate"),
        ("embed", {"input": "a", "dimensions": 10**6}, "dimensions"),
        ("embed", {"input": ["a", 7]}, "input"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_by_name(server, path, change, named):
    body = {"model": "seedling", **({"messages": HELLO} if path == "chat" else {}), **change}
    answer = httpx.post(f"{server.url}/api/{path}", json=body)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert named in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/v1/chat/completions"])
def test_names_that_no_encoding_has_are_refused_like_others(server, path):
    for field in (
        r'"messages":[{"role":"user","content":"x","\ud800":1}]',
        r'"messages":[{"role":"user","content":"x"}],"options":{"\ud800":1}',
        r'"messages":[{"role":"\ud800","content":"x"}]',
        r'"messages":[{"role":"user","content":"\ud800"}],"stream":false',
        r'"\ud800":1',
    ):
        body = '{"model":"seedling","max_tokens":1,"stream":false,' + field + "}"
        headers = {"content-type": "application/json"}
        answer = httpx.post(server.url + path, content=body, headers=headers)
        assert 200 <= answer.status_code < 500
        assert path == "/v1/chat/completions" or answer.status_code == 400


def test_the_client_raises_what_it_has_for_it(client):
    for ask in (
        lambda: client.chat("nobody", HELLO),
        lambda: list(client.chat("nobody", HELLO, stream=True)),
        lambda: client.show("nobody"),
        lambda: client.embed("nobody", "x"),
    ):
        with pytest.raises(ollama.ResponseError, match="nobody") as caught:
            ask()
        assert caught.value.status_code == 404


def test_an_error_on_the_way_is_the_last_line(client, monkeypatch):
    async def broken(self):
        yield '{"message":{"role":"assistant","content":"He"},"done":false}\n'
        raise RequestError("the wire was cut", kind="overloaded")

    monkeypatch.setattr(ollama_answers.Answer, "lines", broken)
    with pytest.raises(ollama.ResponseError, match="the wire was cut"):
        list(client.chat("seedling", HELLO, stream=True))


def test_answers_keep_to_a_form(thinking_client):
    options = {"temperature": 1.5, "seed": 4, "num_predict": 60}
    chat = thinking_client.chat("thinker", HELLO, format=SCHEMA, options=options)
    assert set(json.loads(chat.message.content)) == {"ok"}
    prompt = thinking_client.generate("thinker", "Hello", format=SCHEMA, options=options)
    assert isinstance(json.loads(prompt.response)["ok"], bool)


def test_calls_are_objects_and_their_answers_are_read(thinking_client):
    call = {"function": {"name": "weather", "arguments": {"town": "Bern"}}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "thinking": "I look.", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_name": "weather"},
    ]
    answer = thinking_client.chat(
        "thinker", messages, tools=[WEATHER], options={**GREEDY, "num_predict": 3}
    )
    plain = thinking_client.chat("thinker", HELLO, options={**GREEDY, "num_predict": 3})
    assert answer.prompt_eval_count > plain.prompt_eval_count + len("I look. sunny")


def test_a_call_is_one_line_of_a_stream(thinking_client, monkeypatch):
    def forced(body, recommended):  # Ollama's API has no word for it, and noise calls nothing
        return replace(chat_request(body, recommended), tool_choice=ToolChoice("required"))

    monkeypatch.setattr("freehold.server.ollama.requests.chat_request", forced)
    body = {"model": "thinker", "messages": HELLO, "think": False, "options": GREEDY}
    # Not through the client, which leaves `additionalProperties` out of tools.
    url = f"{thinking_client._client.base_url}/api/chat"
    answer = httpx.post(url, json={**body, "tools": [WEATHER]})
    lines = [ollama.ChatResponse(**json.loads(line)) for line in answer.text.splitlines()]
    calls = [call for line in lines for call in line.message.tool_calls or ()]
    assert calls[0].function.name == "weather"
    assert calls[0].function.arguments["town"] in ("Bern", "Rome")
    answer = httpx.post(url, json={**body, "tools": [WEATHER], "stream": False})
    whole = ollama.ChatResponse(**answer.json()).message
    assert whole.tool_calls == calls
    assert whole.content == ""


def test_text_of_calls_that_nobody_offered_is_text(thinking_client):
    schema = {"const": "<tool_call>"}
    answer = thinking_client.chat("thinker", HELLO, format=schema, options=GREEDY)
    assert answer.message.content == '"<tool_call>"'
    assert answer.message.tool_calls is None


def test_thoughts_are_told_apart(thinking_client):
    options = {**GREEDY, "num_predict": 20}
    answer = thinking_client.chat("thinker", HELLO, think=True, options=options)
    assert answer.message.thinking
    assert answer.message.content == ""
    assert answer.done_reason == "length"
    without = thinking_client.chat("thinker", HELLO, think=False, options=options)
    assert without.message.content
    assert not without.message.thinking
    prompt = thinking_client.generate("thinker", "Hello", think="low", options=options)
    assert prompt.thinking == answer.message.thinking
    lines = list(thinking_client.chat("thinker", HELLO, think=True, stream=True, options=options))
    assert "".join(line.message.thinking or "" for line in lines) == answer.message.thinking


def test_logprobs_name_tokens(client):
    answer = client.chat("seedling", HELLO, logprobs=True, top_logprobs=2,
                         options={**GREEDY, "num_predict": 3})  # fmt: skip
    assert len(answer.logprobs) == 3
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in answer.logprobs)


def test_texts_become_vectors(client):
    answer = client.embed("seedling", ["one", "two", "one"])
    assert len(answer.embeddings) == 3
    assert answer.embeddings[0] == pytest.approx(answer.embeddings[2], abs=1e-5)
    assert math.hypot(*answer.embeddings[1]) == pytest.approx(1, abs=1e-5)
    assert answer.prompt_eval_count >= 3
    old = client.embeddings("seedling", "one")
    assert old.embedding == pytest.approx(answer.embeddings[0], abs=1e-5)
    short = client.embed("seedling", "one", dimensions=8).embeddings[0]
    assert len(short) == 8
    assert math.hypot(*short) == pytest.approx(1, abs=1e-5)
    cut = client.embed("seedling", "a " * 3000, truncate=True)
    assert cut.prompt_eval_count == 1024


def test_what_stands_before_a_suffix_is_filled_in(tmp_path):
    marks = {"fim_pre": 256, "fim_suf": 257, "fim_mid": 258}
    path = tiny_chat.write(tmp_path / "filler.gguf", marks=marks)
    settings = ServerSettings(models=(str(path),), engine={"threads": 1})
    with live_server(settings) as running, ollama.Client(running.url) as client:
        answer = client.generate(
            "filler", "def f(", suffix="):\n", options={**GREEDY, "num_predict": 6}
        )
        assert "insert" in client.show("filler").capabilities
        with pytest.raises(ollama.ResponseError, match="system"):
            client.generate("filler", "def f(", suffix="):\n", system="Be brief.")
    with LLM(path, threads=1) as llm:
        plain = llm.tokenizer.encode
        ids = [256, *plain("def f("), 257, *plain("):\n"), 258]
        stops = SamplingParams(temperature=0.0, max_tokens=6, stop_token_ids=(256, 257, 258))
        assert answer.response == llm.generate(ids, stops).text
    assert answer.prompt_eval_count == len(ids)
    assert answer.context is None


def test_models_are_loaded_listed_and_let_go(tmp_path):
    path = thinking_model.write(tmp_path)
    settings = ServerSettings(models=(str(path),), engine={"threads": 1, "max_num_seqs": 2})
    with live_server(settings) as running, ollama.Client(running.url) as client:
        assert client.ps().models == []
        loaded = client.generate("thinker", keep_alive="10m")
        assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
        (model,) = client.ps().models
        assert model.model == "thinker:latest"
        assert model.context_length == 2048
        assert 500 < model.expires_at.timestamp() - time.time() < 700
        assert client.chat("thinker", [], keep_alive=-1).done_reason == "load"
        assert client.ps().models[0].expires_at.year > 2300
        assert client.chat("thinker", [], keep_alive=0).done_reason == "unload"
        assert client.ps().models == []
        client.chat("thinker", HELLO, keep_alive=0, options={"num_predict": 1})
        deadline = time.monotonic() + 10
        while client.ps().models:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_what_changes_models_is_refused_unless_the_operator_allows_it(client, server):
    assert client.pull("seedling").status == "success"
    assert [line.status for line in client.pull("seedling", stream=True)] == ["success"]
    for ask in (
        lambda: client.pull("nobody"),
        lambda: list(client.pull("nobody", stream=True)),
        lambda: client.copy("seedling", "new"),
        lambda: client.delete("seedling"),
    ):
        with pytest.raises(ollama.ResponseError, match="models for clients") as caught:
            ask()
        assert caught.value.status_code == 403
    for ask in (lambda: client.push("seedling"), lambda: client.create("new", from_="seedling")):
        with pytest.raises(ollama.ResponseError, match="neither publishes nor makes"):
            ask()


def test_probes_find_a_server(server):
    assert httpx.get(server.url).text == "freehold is running"
    assert httpx.head(server.url).status_code == 200
    version = httpx.get(server.url + "/api/version").json()["version"]
    assert [int(part) for part in version.partition("-")[0].split(".")] >= [0, 12, 0]
    assert httpx.get(server.url + "/api/nothing").json()["error"]


def test_the_asynchronous_client_works_too(server, expected):
    async def work() -> None:
        client = ollama.AsyncClient(server.url)
        async with client._client:
            assert (await client.list()).models
            options = {**GREEDY, "num_predict": 40}
            answer = await client.chat("seedling", HELLO, options=options)
            assert answer.message.content == expected["chat"]
            stream = await client.generate("seedling", "Hello", stream=True, options=options)
            assert "".join([line.response async for line in stream]) == expected["chat"]
            assert len((await client.embed("seedling", "x")).embeddings) == 1

    asyncio.run(work())
