# SPDX-License-Identifier: Apache-2.0
"""Plain completions through OpenAI's own client, their numbers judged by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from live_server import live_server

import tiny_chat
from freehold import LLM, SamplingParams
from freehold.chat.fill_in import FillIn, load_fill_in
from freehold.server.settings import ServerSettings

TEXT = "the Thames at läst"  # "th" is one token, "ä" are two


@pytest.fixture
def client(judged_server):
    return openai.OpenAI(base_url=judged_server.url + "/v1", api_key="unused", max_retries=0)


@pytest.fixture
def ask(client):
    def create(prompt, **options):
        return client.completions.create(model="tiny", prompt=prompt, **options)

    return create


@pytest.fixture(scope="module")
def llm(judged):
    with LLM(judged.path, threads=1, kv_dtype="f32") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def expected(llm):
    return llm.generate(TEXT, SamplingParams(temperature=0.0, max_tokens=12))


def test_text_and_ids_give_what_the_library_gives(ask, llm, expected):
    ids = llm.ids(TEXT)
    for prompt in (TEXT, ids, [TEXT], [ids]):
        answer = ask(prompt, temperature=0, max_tokens=12)
        assert answer.object == "text_completion"
        (choice,) = answer.choices
        assert (choice.text, choice.index) == (expected.text, 0)
        assert choice.finish_reason == "length"
        assert answer.usage.prompt_tokens == len(ids)
        assert answer.usage.completion_tokens == 12
        assert answer.usage.total_tokens == len(ids) + 12


def test_the_default_length_is_openais(ask):
    assert ask(TEXT, temperature=0, extra_body={"ignore_eos": True}).usage.completion_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
def test_many_prompts_keep_their_order(ask, llm, stream):
    prompts = [f"{n} {'x' * n} once" for n in range(40)]
    params = SamplingParams(temperature=0.0, max_tokens=3)
    want = [c.text for c in llm.generate(prompts, params)]
    options = {"temperature": 0, "max_tokens": 3}
    if not stream:
        choices = ask(prompts, **options).choices
        assert [c.index for c in choices] == list(range(40))
        assert [c.text for c in choices] == want
        return
    got = [""] * 40
    chunks = list(ask(prompts, stream=True, stream_options={"include_usage": True}, **options))
    for chunk in chunks[:-1]:
        got[chunk.choices[0].index] += chunk.choices[0].text
    assert got == want
    assert chunks[-1].choices == []
    assert chunks[-1].usage.prompt_tokens == sum(len(llm.ids(p)) for p in prompts)
    assert chunks[-1].usage.completion_tokens == 120


def test_several_answers_to_several_prompts(ask):
    def create():
        answer = ask(["one", "two"], n=3, temperature=2.0, seed=5, max_tokens=8)
        assert [c.index for c in answer.choices] == list(range(6))
        assert answer.usage.prompt_tokens == 6
        assert answer.usage.completion_tokens == sum(8 for _ in range(6))
        return [c.text for c in answer.choices]

    first = create()
    assert len(set(first)) == 6
    assert create() == first


def test_best_of_are_the_likeliest(ask):
    options = {"temperature": 2.0, "seed": 11, "max_tokens": 6, "logprobs": 0}
    options["extra_body"] = {"ignore_eos": True}
    every = ask(TEXT, n=8, **options)
    mean = {c.text: float(np.mean(c.logprobs.token_logprobs)) for c in every.choices}
    best = ask(TEXT, n=2, best_of=8, **options)
    assert [c.text for c in best.choices] == sorted(mean, key=mean.get, reverse=True)[:2]
    assert [c.index for c in best.choices] == [0, 1]
    assert best.usage.completion_tokens == 48
    plain = ask(TEXT, best_of=8, **{**options, "logprobs": None})
    assert plain.choices[0].text == best.choices[0].text
    assert plain.choices[0].logprobs is None


# -- log-probabilities -----------------------------------------------------------------------------


def check_lists(told, judged, ids, text, num_top):
    """Every list against transformers: `ids` are all tokens the lists are about."""
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == len(ids)
    assert told.token_logprobs[0] is None
    assert told.top_logprobs[0] is None
    rows = judged.logprobs(ids)
    for i in range(1, len(ids)):
        assert told.token_logprobs[i] == pytest.approx(rows[i - 1, ids[i]], abs=judged.tolerance)
        top = told.top_logprobs[i]
        assert num_top <= len(top) <= num_top + 1
        best = np.sort(rows[i - 1])[::-1][:num_top]
        assert sorted(top.values(), reverse=True)[:num_top] == pytest.approx(
            best, abs=judged.tolerance
        )
        assert told.token_logprobs[i] == top[told.tokens[i]]
    for token, at in zip(told.tokens, told.text_offset, strict=True):
        assert token.startswith(("bytes:", "<|")) or text[at : at + len(token)] == token


@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_gives_every_token_its_probability(ask, llm, judged, expected, as_ids, stream):
    ids = llm.ids(TEXT)
    answer = ask(
        ids if as_ids else TEXT, temperature=0, max_tokens=12, echo=True, logprobs=3, stream=stream
    )
    if stream:
        chunks = list(answer)
        text = "".join(c.choices[0].text for c in chunks)
        parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
        told = parts[0].model_copy(
            update={
                name: [item for part in parts for item in getattr(part, name)]
                for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
            }
        )
    else:
        text, told = answer.choices[0].text, answer.choices[0].logprobs
    assert text == TEXT + expected.text
    assert told.tokens[:3] == ["th", "e", " "]
    assert told.tokens[-14:-12] == ["s", "t"]
    assert "bytes:\\xc3" in told.tokens
    check_lists(told, judged, [*ids, *expected.token_ids], text, 3)


def test_offsets_count_from_the_prompts_beginning(ask, expected):
    quiet = ask(TEXT, temperature=0, max_tokens=12, logprobs=1).choices[0]
    echoed = ask(TEXT, temperature=0, max_tokens=12, logprobs=1, echo=True).choices[0]
    assert quiet.text == expected.text
    assert quiet.logprobs.text_offset == echoed.logprobs.text_offset[-12:]
    assert quiet.logprobs.text_offset[0] == len(TEXT)
    assert quiet.logprobs.token_logprobs == echoed.logprobs.token_logprobs[-12:]


def test_scoring_without_an_answer(ask, llm, judged):
    ids = llm.ids(TEXT)
    answer = ask([TEXT, "abc"], max_tokens=0, echo=True, logprobs=2)
    assert [c.text for c in answer.choices] == [TEXT, "abc"]
    assert {c.finish_reason for c in answer.choices} == {"length"}
    assert answer.usage.completion_tokens == 0
    check_lists(answer.choices[0].logprobs, judged, ids, TEXT, 2)
    nothing = ask(TEXT, max_tokens=0)
    assert (nothing.choices[0].text, nothing.choices[0].logprobs) == ("", None)
    chunks = list(ask(TEXT, max_tokens=0, echo=True, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_end_token_is_in_the_lists_and_not_in_the_text(ask):
    answer = ask(
        TEXT, temperature=0, max_tokens=5, logprobs=1, logit_bias={"259": 100}, echo=True
    ).choices[0]  # fmt: skip
    assert answer.finish_reason == "stop"
    assert answer.text == TEXT
    assert answer.logprobs.tokens[-1] == "<|im_end|>"
    assert answer.logprobs.token_logprobs[-1] < 0


RIVERS = Path(__file__).parents[1] / "clients" / "lm_eval" / "rivers.jsonl"


@pytest.fixture
def lm_eval(judged_server):
    with httpx.Client(base_url=judged_server.url, timeout=60) as client:
        yield client


def test_multiple_choice_as_lm_eval_asks_it(lm_eval, judged):
    """Its requests one by one: tokens from the server, then batches of ids whose echo is scored,
    one token more than wanted. `tests/clients/run.py` runs lm-eval itself on the same task."""
    assert "eos_token" in lm_eval.get("/tokenizer_info").json()

    def tokens(text: str) -> list[int]:
        body = {"prompt": text, "add_special_tokens": False}
        return lm_eval.post("/tokenize", json=body).json()["tokens"]

    documents = [json.loads(line) for line in RIVERS.read_text("utf-8").splitlines()]
    pairs = []
    for document in documents:
        context = tokens(f"Question: {document['question']}\nAnswer:")
        for choice in document["choices"]:
            whole = tokens(f"Question: {document['question']}\nAnswer: {choice}")
            assert whole[: len(context)] == context
            pairs.append((len(context), whole))
    sums: list[float] = []
    for at in range(0, len(pairs), 8):
        batch = pairs[at : at + 8]
        body = {
            "model": "tiny", "prompt": [whole for _, whole in batch], "temperature": 0,
            "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True,
        }  # fmt: skip
        choices = lm_eval.post("/v1/completions", json=body).json()["choices"]
        assert len(choices) == len(batch)
        reference = judged.logprobs_of_many([whole for _, whole in batch])
        for (first, whole), choice, table in zip(batch, choices, reference, strict=True):
            told = choice["logprobs"]
            got = told["token_logprobs"][first:-1]
            rows = table[first - 1 : -1]
            want = rows[np.arange(len(rows)), whole[first:]]
            assert got == pytest.approx(want, abs=judged.tolerance)
            greedy = [max(top.values()) for top in told["top_logprobs"][first:-1]] == got
            assert greedy == (rows.argmax(axis=1).tolist() == whole[first:])
            sums.append(sum(got))
    right, at = 0, 0
    for document in documents:
        each = sums[at : at + len(document["choices"])]
        at += len(each)
        right += each.index(max(each)) == document["answer"]
    assert right == 2  # what transformers' likelihoods choose, see above


# -- stopping, filling in -----------------------------------------------------------------------


def test_stop_strings_and_an_echo(ask, expected):
    stop = expected.text[4:6]
    answer = ask(TEXT, temperature=0, max_tokens=12, stop=stop, echo=True, logprobs=0).choices[0]
    assert answer.text == TEXT + expected.text.partition(stop)[0]
    assert answer.finish_reason == "stop"
    assert answer.logprobs.top_logprobs is None


@pytest.fixture(scope="module")
def filler(tmp_path_factory):
    """A tiny model whose last merge and two control tokens are marks of a gap."""
    path = tmp_path_factory.mktemp("filler") / "filler.gguf"
    marks = {"fim_pre": 256, "fim_suf": 257, "fim_mid": 258}
    return tiny_chat.write(path, marks=marks), marks


def test_a_suffix_is_put_where_the_model_wants_it(filler):
    path, marks = filler
    settings = ServerSettings(models=(f"filler={path}",), engine={"threads": 1})
    with live_server(settings) as server, LLM(path, threads=1) as llm:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0)
        answer = client.completions.create(
            model="filler", prompt="def f(", suffix="):\n", max_tokens=6, temperature=0
        )
        plain = llm.tokenizer.encode
        before, after = plain("def f("), plain("):\n")
        ids = [marks["fim_pre"], *before, marks["fim_suf"], *after, marks["fim_mid"]]
        params = SamplingParams(
            temperature=0.0, max_tokens=6, stop_token_ids=tuple(marks.values())
        )  # fmt: skip
        assert answer.choices[0].text == llm.generate(ids, params).text
        assert answer.usage.prompt_tokens == len(ids)
        for change, field in (({"echo": True}, "suffix"), ({"prompt": [1, 2]}, "suffix")):
            body = {"model": "filler", "prompt": "a", "suffix": "b", **change}
            refused = httpx.post(server.url + "/v1/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)


def test_marks_of_a_gap_are_found_by_their_names(llm):
    assert load_fill_in({}, llm.tokenizer) is None
    named = {f"tokenizer.ggml.fim_{name}_token_id": i for i, name in enumerate(("pre", "suf"))}
    assert load_fill_in(named, llm.tokenizer) is None
    named |= {"tokenizer.ggml.fim_mid_token_id": 2, "tokenizer.ggml.fim_pad_token_id": 9}
    assert load_fill_in(named, llm.tokenizer) == FillIn(0, 1, 2, (0, 1, 2, 9))
    assert load_fill_in(named | {"tokenizer.ggml.fim_mid_token_id": 10**9}, llm.tokenizer) is None


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [1, True]}, "prompt"),
        ({"prompt": [1.0]}, "prompt"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": ["a"] * 1000, "n": 3}, "n"),
        ({"n": 0}, "n"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 1000}, "best_of"),
        ({"suffix": "b"}, "suffix"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1000, "prompt": ["a" * 400] * 8, "echo": True}, "logprobs"),
        ({"messages": []}, "messages"),
        ({"prompt": [0, 260]}, None),
        ({"prompt": ""}, None),
        ({"prompt": "a" * 512}, None),
        ({"prompt": "\ud800"}, None),
        ({"max_tokens": -1}, None),
        ({"logprobs": -1}, None),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(judged_server, change, param):
    body = {"model": "tiny", "prompt": "a", **change}
    answer = httpx.post(
        judged_server.url + "/v1/completions", content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )  # fmt: skip
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert 0 < len(error["message"]) < 600


def test_one_bad_prompt_of_many_runs_none(judged_server):
    engine = judged_server.services.registry.find("tiny")
    body = {"model": "tiny", "prompt": ["a"] * 20 + ["b" * 600]}
    before = engine.loaded.llm.engine.stats.requests_added if engine.llm else 0
    assert httpx.post(judged_server.url + "/v1/completions", json=body).status_code == 400
    assert engine.loaded.llm.engine.stats.requests_added == before
