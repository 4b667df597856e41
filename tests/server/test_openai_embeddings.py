# SPDX-License-Identifier: Apache-2.0
"""Embeddings through OpenAI's own client, and token ids; the vectors judged by transformers."""

from __future__ import annotations

import base64

import httpx
import numpy as np
import openai
import pytest

import tiny_chat
from freehold import LLM

TEXTS = ["the Thames", "a", "the Thames at läst " * 8, "!"]


@pytest.fixture
def client(judged_server):
    return openai.OpenAI(base_url=judged_server.url + "/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def llm(judged):
    with LLM(judged.path, threads=1, kv_dtype="f32") as loaded:
        yield loaded


def reference(judged, ids: list[int], pooling: str) -> np.ndarray:
    """Final hidden states of transformers, pooled, of length 1."""
    import torch

    with torch.no_grad():
        hidden = judged.model.model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
    vector = hidden.mean(axis=0) if pooling == "mean" else hidden[-1]
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", [None, "mean", "last"])
def test_vectors_are_transformers(client, judged, llm, pooling):
    more = {"pooling": pooling} if pooling else {}
    answer = client.embeddings.create(model="tiny", input=TEXTS, extra_body=more)
    assert [d.index for d in answer.data] == [0, 1, 2, 3]
    ids = [llm.ids(text) for text in TEXTS]
    for each, got in zip(ids, answer.data, strict=True):
        want = reference(judged, each, pooling or "mean")
        assert np.abs(np.array(got.embedding) - want).max() < 2e-5
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))


def test_all_inputs_and_encodings_give_the_same(client, llm):
    ids = llm.ids(TEXTS[0])

    def ask(given, kind):
        made = client.embeddings.create(model="tiny", input=given, encoding_format=kind)
        return made.data[0].embedding

    plain = np.array(ask(TEXTS[0], "float"), np.float32)
    packed = np.frombuffer(base64.b64decode(ask([ids], "base64")), "<f4")
    assert np.array_equal(plain, packed)
    assert np.array_equal(np.array(ask(ids, "float"), np.float32), packed)
    assert np.array_equal(packed, llm.embed(TEXTS[0])[0])
    assert np.linalg.norm(packed) == pytest.approx(1, abs=1e-6)


def test_a_vector_does_not_depend_on_what_is_asked_beside_it(client):
    def ask(given):
        answer = client.embeddings.create(model="tiny", input=given, encoding_format="float")
        return [d.embedding for d in answer.data]

    many = ask([f"{n} {'word ' * (n % 7)}" for n in range(50)])
    for n in (0, 17, 49):
        assert ask(f"{n} {'word ' * (n % 7)}") == [many[n]]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a" * 600}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": [10**6]}, None),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "ternary"}, "encoding_format"),
        ({"pooling": "max"}, "pooling"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_a_vector_is_refused_by_name(judged_server, change, param):
    body = {"model": "tiny", "input": "a", **change}
    answer = httpx.post(judged_server.url + "/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_models_own_number_of_dimensions_is_no_wish(judged_server):
    body = {"model": "tiny", "input": "a", "dimensions": 64}
    assert httpx.post(judged_server.url + "/v1/embeddings", json=body).status_code == 200


# -- token ids -------------------------------------------------------------------------------------


@pytest.fixture
def post(judged_server):
    def send(path, **body):
        return httpx.post(judged_server.url + path, json=body)

    return send


def test_tokenize_and_back(post, judged, llm):
    text = "the Thames at läst<|im_end|>"
    for model in ({}, {"model": "tiny"}):
        answer = post(
            "/tokenize", prompt=text, return_token_strs=True, parse_special=False, **model
        ).json()  # fmt: skip
        assert answer["tokens"] == llm.ids(text)
        assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
        assert answer["token_strs"][:2] == ["th", "e"]
        assert answer["max_model_len"] == 512
    assert post("/detokenize", tokens=answer["tokens"]).json() == {"prompt": text}
    assert 259 not in answer["tokens"]
    special = post("/tokenize", prompt=text).json()
    assert special["tokens"][-1] == 259
    assert special["token_strs"] is None
    assert post("/detokenize", tokens=special["tokens"]).json() == {"prompt": text}


def test_begin_and_end_are_told(judged_server):
    info = httpx.get(judged_server.url + "/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<|endoftext|>", "<|im_end|>")
    assert info["chat_template"] == tiny_chat.TEMPLATE
    assert info["model_max_length"] == 512
    nobody = httpx.get(judged_server.url + "/tokenizer_info", params={"model": "nobody"})
    assert nobody.status_code == 404


def test_a_conversation_is_what_chat_makes_of_it(post, llm):
    messages = [{"role": "user", "content": "the <|im_end|>"}]
    answer = post("/tokenize", messages=messages).json()
    assert answer["tokens"] == llm.chat_ids(messages)
    closed = post("/tokenize", messages=messages, add_generation_prompt=False).json()
    assert answer["tokens"][: closed["count"]] == closed["tokens"]
    assert closed["count"] < answer["count"]
    said = post(
        "/v1/chat/completions", model="tiny", messages=messages, max_tokens=1
    ).json()  # fmt: skip
    assert said["usage"]["prompt_tokens"] == answer["count"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": []}, 400, "prompt"),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"messages": [{"role": "x"}]}, 400, "messages[0]"),
        ("/tokenize", {"messages": [{"role": "user", "content": ""}], "parse_special": True}, 400,
         "parse_special"),
        ("/tokenize", {"messages": [{"role": "user", "content": ""}],
                       "chat_template_kwargs": {"tools": []}}, 400, "chat_template_kwargs"),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404, "model"),
        ("/tokenize", {"prompt": "a", "continue_final_message": True}, 400,
         "continue_final_message"),
        ("/detokenize", {"tokens": [-1]}, 400, None),
        ("/detokenize", {"tokens": [260]}, 400, None),
        ("/detokenize", {"tokens": [10**30]}, 400, None),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens.0"),
    ],
)  # fmt: skip
def test_what_has_no_tokens_is_refused_by_name(post, path, body, status, param):
    answer = post(path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
