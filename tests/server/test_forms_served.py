# SPDX-License-Identifier: Apache-2.0
"""Forms of answers and calls of tools through OpenAI's own client. The model writes noise: whatever
has a form has it because the form is kept."""

from __future__ import annotations

import json
import re

import httpx
import openai
import pytest
from live_server import LiveServer

HELLO = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "n": {"type": "integer", "maximum": 99, "minimum": 1},
    },
    "required": ["ok", "n"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": {
        "type": "object", "properties": {"at": {"enum": ["left", "right"]}}, "required": ["at"],
        "additionalProperties": False}}},
    {"type": "function", "function": {"name": "wait", "parameters": {
        "type": "object", "properties": {"steps": {"enum": [1, 2]}}, "required": ["steps"],
        "additionalProperties": False}}},
]  # fmt: skip
# No thought first: one of noise has no end.
CALM = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture
def client(thinker: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=thinker.url + "/v1", api_key="unused", max_retries=0)


def ask(client, **fields):
    extra = {**CALM, **fields.pop("extra_body", {})}
    return client.chat.completions.create(
        model="thinker", messages=HELLO, temperature=1.5, seed=4, extra_body=extra, **fields
    )


def check_call(call) -> None:
    arguments = json.loads(call.function.arguments)
    assert call.id
    assert call.function.name in ("look", "wait")
    if call.function.name == "look":
        assert arguments in ({"at": "left"}, {"at": "right"})
    else:
        assert arguments in ({"steps": 1}, {"steps": 2})


def streamed(chunks):
    """(text, calls by index, finish reason) of a stream."""
    text, calls, reason = "", {}, None
    for chunk in chunks:
        delta = chunk.choices[0].delta
        text += delta.content or ""
        reason = chunk.choices[0].finish_reason or reason
        for piece in delta.tool_calls or ():
            known = calls.setdefault(piece.index, piece)
            if known is not piece:
                known.function.arguments += piece.function.arguments or ""
    return text, calls, reason


def test_a_schema_is_kept_whole_and_streamed(client):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answers = [ask(client, response_format=form, n=3).choices[i].message.content for i in range(3)]
    chunks = ask(client, response_format=form, stream=True)
    text, calls, reason = streamed(chunks)
    for answer in (*answers, text):
        value = json.loads(answer)
        assert isinstance(value["ok"], bool)
        assert 1 <= value["n"] <= 99
    assert (calls, reason) == ({}, "stop")
    assert text == answers[0]


def test_a_schema_beside_json_object_is_kept_too(client):
    # How llama.cpp's clients ask for one.
    form = {"type": "json_object", "schema": SCHEMA}
    value = json.loads(ask(client, response_format=form).choices[0].message.content)
    assert [*value] == ["ok", "n"]


def test_json_object_means_an_object(client):
    answer = ask(client, response_format={"type": "json_object"}, max_tokens=4000,
                 logit_bias={str(b): 6 for b in b'"]}'})  # fmt: skip
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


FORMS = {
    "regex": ("[ab]{3}-[0-9]+x", r"[ab]{3}-[0-9]+x"),
    "choice": (["yes", "no", "per haps"], r"yes|no|per haps"),
    "grammar": ('start: "a" b "c"\nb: /[xy]{2}/ | "q"', r"a([xy]{2}|q)c"),
    "json": (SCHEMA, r'\{"ok": (true|false), "n": [1-9][0-9]?\}'),
}


@pytest.mark.parametrize("name", FORMS)
def test_vllms_fields_in_chats_and_completions(client, name):
    value, pattern = FORMS[name]
    spellings = [{"structured_outputs": {name: value}}, {f"guided_{name}": value}]
    if name == "json":
        spellings.append({"structured_outputs": {"json": json.dumps(value)}})
    for fields in spellings:
        answer = ask(client, extra_body=fields, max_tokens=200)
        assert re.fullmatch(pattern, answer.choices[0].message.content)
        plain = client.completions.create(
            model="thinker", prompt="Go:", temperature=1.5, max_tokens=200, extra_body=fields
        )
        assert re.fullmatch(pattern, plain.choices[0].text)
        assert plain.choices[0].finish_reason == "stop"


def test_words_of_a_text(client):
    wanted = {"type": "object", "properties": {"who": {"type": "string", "x-in-text": True}},
              "required": ["who"], "additionalProperties": False}  # fmt: skip
    text = "Jürgen met Ms Smith in 東京"
    fields = {"structured_outputs": {"grounded": {"schema": wanted, "text": text}}}
    for _ in range(3):
        answer = ask(client, extra_body=fields, max_tokens=200)
        assert json.loads(answer.choices[0].message.content)["who"] in text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
         "response_format"),
        ({"response_format": {"type": "json_object", "schema": {"not": {}}}}, "response_format"),
        ({"response_format": {"type": "json_object", "schema": 5}}, "response_format"),
        ({"structured_outputs": {"json": {"if": {}, "then": {}}}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "start: nobody"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"grounded": {"text": "a"}}}, "structured_outputs.grounded"),
        ({"structured_outputs": {"grounded": {"schema": {}, "text": 5}}},
         "structured_outputs.grounded"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"verse": 1}}, "structured_outputs.verse"),
        ({"guided_json": {"type": "array", "uniqueItems": True}}, "guided_json"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
        ({"response_format": {"type": "verse"}}, "response_format"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_the_name_of_its_field(thinker, fields, param):
    for path, body in (
        ("chat/completions", {"messages": HELLO}), ("completions", {"prompt": "Go:"}),
    ):  # fmt: skip
        answer = httpx.post(f"{thinker.url}/v1/{path}", json={"model": "thinker", **body, **fields})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_calls_that_must_be_made(client, stream):
    for choice, names in (
        ("required", {"look", "wait"}),
        ({"type": "function", "function": {"name": "wait"}}, {"wait"}),
    ):
        answer = ask(client, tools=TOOLS, tool_choice=choice, stream=stream)
        if stream:
            text, found, reason = streamed(answer)
            calls = [found[i] for i in sorted(found)]
        else:
            message, reason = answer.choices[0].message, answer.choices[0].finish_reason
            text, calls = message.content or "", message.tool_calls
        assert (text, reason) == ("", "tool_calls")
        assert calls
        for call in calls:
            check_call(call)
        assert {call.function.name for call in calls} <= names


def test_one_call_at_most_where_several_are_not_wanted(client):
    several = 0
    for seed in range(6):
        for parallel in (True, False):
            answer = client.chat.completions.create(
                model="thinker", messages=HELLO, temperature=1.5, seed=seed, tools=TOOLS,
                tool_choice="required", parallel_tool_calls=parallel, extra_body=CALM,
            )  # fmt: skip
            calls = answer.choices[0].message.tool_calls
            several += len(calls) > 1
            assert parallel or len(calls) == 1
    assert several > 0


@pytest.mark.parametrize("choice", ["auto", None, "none"])
def test_free_answers_beside_tools_are_the_models_own(client, thinker, choice):
    """Tools that are on offer change the prompt and nothing else: the tokens are those of the
    prompt without any grammar."""
    letters = {str(byte): 20 for byte in b"abcdefghijklmnopqrstuvwxyz <>_/{}\n"}
    fields = {"tools": TOOLS, "max_tokens": 60, "logit_bias": letters}
    if choice is not None:
        fields["tool_choice"] = choice
    answer = ask(client, **fields)
    llm = thinker.services.registry.find("thinker").loaded.llm
    tools = None if choice == "none" else TOOLS
    rendered = llm.chat_ids(HELLO, tools=tools, enable_thinking=False)
    plain = client.completions.create(
        model="thinker", prompt=rendered, temperature=1.5, seed=4, max_tokens=60,
        logit_bias=letters,
    )  # fmt: skip
    message = answer.choices[0].message
    assert message.tool_calls is None
    assert message.content.strip() == plain.choices[0].text.strip()
    assert answer.usage.prompt_tokens == len(rendered)


def test_strict_tools_and_tools_beside_a_form(client, thinker):
    strict = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    answer = ask(client, tools=strict, tool_choice="required")
    check_call(answer.choices[0].message.tool_calls[0])
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    for seed in range(4):
        answer = client.chat.completions.create(
            model="thinker", messages=HELLO, temperature=2.0, seed=seed, tools=TOOLS,
            response_format=form, extra_body=CALM,
        )  # fmt: skip
        message = answer.choices[0].message
        if message.tool_calls:
            check_call(message.tool_calls[0])
        else:
            assert isinstance(json.loads(message.content)["ok"], bool)
    function = {"name": "odd", "strict": True,
                "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}  # fmt: skip
    body = {"model": "thinker", "messages": HELLO,
            "tools": [{"type": "function", "function": function}]}  # fmt: skip
    refused = httpx.post(thinker.url + "/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "tools"
    assert "odd" in refused.json()["error"]["message"]


def test_logprobs_cover_every_token_of_a_form(client):
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    answer = ask(client, response_format=form, logprobs=True, top_logprobs=1)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    joined = b"".join(bytes(e.bytes) for e in entries).decode()
    assert joined == answer.choices[0].message.content


def test_a_stop_string_ends_even_what_is_forced(client):
    form = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    answer = ask(client, response_format=form, stop='"n')
    assert re.fullmatch(r'\{"ok": (true|false), ', answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    cut = ask(client, response_format=form, max_tokens=3)
    assert cut.choices[0].message.content == '{"o'
    assert cut.choices[0].finish_reason == "length"
