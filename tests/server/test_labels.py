# SPDX-License-Identifier: Apache-2.0
"""Labels without decoding: likelihoods judged by the model's own logits and by transformers."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import shutil

import httpx
import numpy as np
import pytest
import tiny_judged
from live_server import live_server

import tiny_chat
from freehold import LLM, SamplingParams
from freehold._llm_labels import LabelTask
from freehold.async_llm import AsyncLLM
from freehold.documents import prompts
from freehold.engine.measuring import Measurement
from freehold.errors import InvalidParameterError
from freehold.server.settings import ServerSettings

LABELS = ["the", "thistle", "a", "läst"]
QUESTION = [{"role": "user", "content": "Which word is it? " * 5}]


@pytest.fixture(scope="module")
def llm(judged):
    with LLM(judged.path, threads=1, kv_dtype="f32") as loaded:
        yield loaded


def softmax(values) -> np.ndarray:
    powers = np.exp(np.array(values, np.float64) - np.max(values))
    return powers / powers.sum()


# -- likelihoods -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [False, True])
def test_label_logprobs_are_those_of_the_logits_and_of_transformers(llm, judged, ends):
    prompt = llm.chat_ids(QUESTION)
    found = llm.label_logprobs(prompt, LABELS, ends=ends)
    for label, got in zip(LABELS, found, strict=True):
        ids = llm.tokenizer.encode(label, add_special=False)
        rows = judged.logprobs([*prompt, *ids])[len(prompt) - 1 :]
        want = list(rows[np.arange(len(ids)), ids])
        if ends:
            want.append(np.logaddexp.reduce(rows[-1, list(llm.tokenizer.eos_ids)]))
        assert got == pytest.approx(want, abs=judged.tolerance)
        logits = llm.logits([*prompt, *ids]).astype(np.float64)[len(prompt) - 1 : -1]
        own = logits[np.arange(len(ids)), ids] - np.logaddexp.reduce(logits, axis=1)
        assert got[: len(ids)] == pytest.approx(own, abs=2e-6)  # float32 of the same numbers


def test_the_end_may_be_any_of_several_tokens(llm, judged):
    prompt = llm.ids("the Thames ")
    endings = (257, tiny_judged.END)
    (got,) = llm.engine.measure([Measurement(prompt, "scores", len(prompt) - 1, endings)])
    last = judged.logprobs(prompt)[-1]
    assert got[-1] == pytest.approx(np.logaddexp(last[257], last[259]), abs=judged.tolerance)
    assert len(got) == 2


def test_text_and_label_are_split_together(llm, judged):
    """Where a label's first letter joins the prompt's last token, all are scored from there on."""
    labels = ["h", "a"]  # "at" + "h" ends in the token "th"
    found = llm.label_logprobs("at", labels)
    for label, got in zip(labels, found, strict=True):
        ids = llm.ids("at" + label)
        assert np.abs(got - judged.continuation(ids[:1], ids[1:])).max() < judged.tolerance
    assert [len(got) for got in found] == [1, 2]


def test_the_prompt_is_computed_once(llm):
    prompt = llm.ids("never said before, and long: " * 12)
    before = llm.engine.stats.prefill_tokens
    llm.label_logprobs(prompt, [f"label {n}" for n in range(20)])
    computed = llm.engine.stats.prefill_tokens - before
    assert len(prompt) <= computed <= len(prompt) + 20 * (10 + 16)  # a block of 16 at most each


def test_measuring_shares_steps_and_keeps_what_others_bring(llm):
    params = SamplingParams(temperature=0.0, max_tokens=20)
    streams = [llm.generate(text, params, stream=True) for text in ("ab", "abab")]
    want = [c.text for c in llm.generate(["ab", "abab"], params)]
    first = [next(stream).text for stream in streams]
    steps = llm.engine.stats.steps
    llm.embed([f"text {n}" for n in range(16)])
    assert llm.engine.stats.steps - steps < 16
    got = [begin + "".join(event.text for event in stream)
           for begin, stream in zip(first, streams, strict=True)]  # fmt: skip
    assert got == want


def test_many_coroutines_measure_and_generate_at_once(judged):
    """What is measured beside streams is what is measured alone, and the streams lose nothing."""
    texts = [f"{n} bottles of beer" for n in range(12)]
    with LLM(judged.path, threads=1, kv_dtype="f32") as llm:
        vectors = llm.embed(texts)
        scores = [llm.score(text) for text in texts]
        params = SamplingParams(temperature=0.0, max_tokens=15)
        answers = [c.text for c in llm.generate(texts, params)]
        ids = [llm.ids(text) for text in texts]
    shared = AsyncLLM(LLM(judged.path, threads=1, kv_dtype="f32", max_num_seqs=5))

    async def answer(prompt):
        return "".join([e.text async for e in shared.stream(prompt, params, continues=True)])

    async def everything():
        return await asyncio.gather(
            shared.embed(ids), *(shared.score(each) for each in ids), *(map(answer, ids))
        )

    try:
        got_vectors, *rest = asyncio.run(everything())
    finally:
        shared.close()
    assert np.array_equal(got_vectors, vectors)
    for got, want in zip(rest[:12], scores, strict=True):
        assert np.array_equal(got, want)
    assert rest[12:] == answers


def test_a_measurement_nobody_waits_for_is_dropped(judged):
    shared = AsyncLLM(LLM(judged.path, threads=1))

    async def leave():
        work = asyncio.create_task(shared.embed([[1, 2, 3] * 100] * 20))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        with pytest.raises(InvalidParameterError):  # one of many: the others are dropped
            await shared.embed([[1, 2, 3] * 100] * 20 + [[999]])
        return await shared.on_engine(lambda engine: engine.num_unfinished)

    try:
        assert asyncio.run(leave()) == 0
    finally:
        shared.close()


# -- probabilities ---------------------------------------------------------------------------------


def test_probabilities_are_defined_as_documented(llm, judged):
    prompt = llm.chat_ids(QUESTION)
    free = [llm.chat_ids([{"role": "user", "content": text}]) for text in ("", "N/A")]

    def sums(ids):
        endings = [llm.tokenizer.encode(label, add_special=False) for label in LABELS]
        tables = judged.logprobs_of_many([ids + ending for ending in endings])
        return [table[np.arange(len(ids) - 1, len(table) - 1), ending].sum()
                for table, ending in zip(tables, endings, strict=True)]  # fmt: skip

    behind = sums(prompt)
    behind_free = [sums(ids) for ids in free]
    lengths = [len(llm.tokenizer.encode(label)) for label in LABELS]
    for tokens, calibrated, temperature in itertools.product((0, 1), (0, 1), (1.0, 2.5)):
        found = llm.classify(
            prompt, LABELS, content_free=free if calibrated else (), temperature=temperature,
            normalization="tokens" if tokens else "none",
        )  # fmt: skip
        over = np.array(lengths) if tokens else 1
        scores = np.array(behind) / over
        if calibrated:
            prior = np.log(np.mean([softmax(np.array(s) / over) for s in behind_free], axis=0))
            assert [s.prior for s in found.scores] == pytest.approx(prior, abs=2e-3)
            scores = scores - prior
        want = softmax(scores / temperature)
        assert [s.probability for s in found.scores] == pytest.approx(want, abs=2e-3)
        assert found.label == LABELS[int(np.argmax(want))]
        assert [s.logprob for s in found.scores] == pytest.approx(behind, abs=2e-3)
        assert [s.num_tokens for s in found.scores] == lengths
        assert found.coverage == pytest.approx(np.exp(behind).sum(), rel=1e-2)


def test_with_ends_coverage_is_a_probability():
    """Labels that begin each other: with an end they exclude each other, so their sum is at most
    1, and all texts of a length make the rest."""
    likely = [np.log(np.array(p, np.float32)) for p in ([0.6, 0.5], [0.6, 0.4, 0.9])]
    task = LabelTask(("a", "ab"), (), 0, "none", 1.0)
    (found,) = task.results(likely)
    assert found.coverage == pytest.approx(0.6 * 0.5 + 0.6 * 0.4 * 0.9)
    assert found.scores[0].probability == pytest.approx(0.5 / (0.5 + 0.36))


def test_labels_that_never_come_make_no_nan():
    never = np.array([-np.inf], np.float32)
    task = LabelTask(("a", "b"), (), 1, "none", 1.0)
    (found,) = task.results([np.array([-1.0], np.float32), never, never, np.zeros(1, np.float32)])
    assert all(math.isfinite(s.probability) for s in found.scores)
    task = LabelTask(("a", "b"), (), 0, "tokens", 1.0)
    (found,) = task.results([never, never])
    assert [s.probability for s in found.scores] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (["a"], {}), (["a", "a"], {}), (["a", ""], {}), ([], {}), (["a", 1], {}),
        (["a", "b"], {"temperature": 0.0}), (["a", "b"], {"temperature": math.inf}),
        (["a", "b"], {"normalization": "bytes"}),
    ],
)  # fmt: skip
def test_labels_and_settings_that_mean_nothing(llm, labels, options):
    with pytest.raises(InvalidParameterError):
        llm.classify("the", labels, **options)
    with pytest.raises(InvalidParameterError, match="prompt"):
        llm.classify("", ["a", "b"])


# -- over HTTP -------------------------------------------------------------------------------------


@pytest.fixture
def post(judged_server):
    def send(path, **body):
        return httpx.post(judged_server.url + path, json={"model": "tiny", **body}, timeout=60)

    return send


def test_classify_asks_as_the_document_tasks_do(post, llm):
    documents = ["Dear Sir", "Total: 30"]
    answer = post("/v1/classify", labels=LABELS, input=documents).json()
    want = llm.classify(
        [llm.chat_ids(prompts.classify(text, LABELS)) for text in documents], LABELS, ends=True
    )
    assert answer["object"] == "list"
    for i, (got, found) in enumerate(zip(answer["data"], want, strict=True)):
        assert (got["index"], got["label"], got["num_classes"]) == (i, found.label, 4)
        assert got["probs"] == [s.probability for s in found.scores]
        assert sum(got["probs"]) == pytest.approx(1)
        assert got["coverage"] == found.coverage
        assert [s["label"] for s in got["scores"]] == LABELS
        assert [s["logprob"] for s in got["scores"]] == [s.logprob for s in found.scores]
        assert {s["prior_logprob"] for s in got["scores"]} == {None}
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    one = post("/v1/classify", labels=LABELS, input=documents[1], calibration="content_free").json()
    assert all(s["prior_logprob"] < 0 for s in one["data"][0]["scores"])


def test_a_conversation_or_a_prompt_may_ask(post, llm):
    spoken = post("/v1/classify", labels=LABELS, messages=QUESTION).json()["data"][0]
    want = llm.classify(llm.chat_ids(QUESTION), LABELS, ends=True)
    assert spoken["probs"] == [s.probability for s in want.scores]
    text = post("/v1/classify", labels=LABELS, prompt="at ", temperature=3).json()["data"][0]
    want = llm.classify("at ", LABELS, temperature=3.0)
    assert text["probs"] == [s.probability for s in want.scores]
    ids = post("/v1/classify", labels=LABELS, prompt=llm.ids("at "), temperature=3.0, ends=False)
    assert ids.json()["data"][0]["probs"] == text["probs"]


def test_rerank_by_likelihood_and_by_cosine(post, llm):
    documents = ["cats sleep", "the Thames floods", "Thames", "a cat on the Thames"]
    asked = post("/v1/rerank", query="Thames", documents=documents).json()
    found = [
        llm.classify(llm.chat_ids(prompts.relevant(text, "Thames")), ["yes", "no"], ends=True)
        for text in documents
    ]
    want = [each.scores[0].probability for each in found]
    assert asked["method"] == "likelihood"
    assert [r["index"] for r in asked["results"]] == list(np.argsort(-np.array(want)))
    for result in asked["results"]:
        assert result["relevance_score"] == want[result["index"]]
        assert result["coverage"] == found[result["index"]].coverage
        assert "document" not in result
    vectors = llm.embed(["Thames", *documents])
    near = post(
        "/v1/rerank", query="Thames", method="embedding", top_n=2, return_documents=True,
        documents=[{"text": text} for text in documents],
    ).json()  # fmt: skip
    cosines = vectors[1:] @ vectors[0]
    assert near["method"] == "embedding"
    assert [r["index"] for r in near["results"]] == list(np.argsort(-cosines)[:2])
    assert near["results"][0]["relevance_score"] == pytest.approx(1, abs=1e-6)
    assert near["results"][0]["document"] == {"text": "Thames"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/classify", {"labels": ["a"], "input": "x"}, "labels"),
        ("/v1/classify", {"labels": ["a", "a"], "input": "x"}, "labels"),
        ("/v1/classify", {"labels": [f"{n}" for n in range(1001)], "input": "x"}, "labels"),
        ("/v1/classify", {"labels": ["a", "b"]}, "input"),
        ("/v1/classify", {"labels": ["a", "b"], "input": "x", "prompt": "x"}, "prompt"),
        ("/v1/classify", {"labels": ["a", "b"], "input": []}, "input"),
        ("/v1/classify", {"labels": ["a", "b"], "input": ["x"] * 5000}, "input"),
        ("/v1/classify", {"labels": ["a", "b"], "messages": []}, "messages"),
        ("/v1/classify", {"labels": ["a", "b"], "prompt": "x", "calibration": "content_free"},
         "calibration"),
        ("/v1/classify", {"labels": ["a", "b"], "prompt": ""}, None),
        ("/v1/classify", {"labels": ["a", "b"], "prompt": [900]}, None),
        ("/v1/classify", {"labels": ["a", "b"], "prompt": "x", "temperature": 0}, "temperature"),
        ("/v1/classify", {"labels": ["a", "b"], "input": "x" * 600}, None),
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"] * 1001}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "method": "magic"}, "method"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_refused_by_name(post, path, body, param):
    answer = post(path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


# -- models of other kinds -------------------------------------------------------------------------


def test_a_model_without_a_template_is_asked_in_plain_text(tmp_path):
    path = tiny_chat.write(tmp_path / "plain.gguf", template=None)
    with LLM(path, threads=1) as llm, live_server(
        ServerSettings(models=(f"plain={path}",), engine={"threads": 1})
    ) as server:  # fmt: skip
        body = {"model": "plain", "labels": ["a", "the"], "input": "some text"}
        (got,) = httpx.post(server.url + "/v1/classify", json=body).json()["data"]
        asked = prompts.classify("some text", ["a", "the"])[0]["content"]
        want = llm.classify(f"{asked}\n\nAnswer:", [" a", " the"])
        assert got["probs"] == [score.probability for score in want.scores]
        assert [score["label"] for score in got["scores"]] == ["a", "the"]
        body = {"model": "plain", "query": "a", "documents": ["b", "a"]}
        for address in ("/v1/rerank", "/rerank", "/v2/rerank"):
            ranks = httpx.post(server.url + address, json=body).json()
            assert (ranks["method"], ranks["results"][0]["index"]) == ("embedding", 1)
        asked = {"model": "plain", "labels": ["a", "b"], "messages": QUESTION}
        refused = httpx.post(server.url + "/v1/classify", json=asked)
        assert (refused.status_code, "template" in refused.text) == (400, True)


def test_a_thought_that_the_template_opens_is_closed(tmp_path):
    opened = tiny_chat.TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    closes = opened.replace(
        "<|im_end|>", "{% if message.role == 'x' %}</think>{% endif %}<|im_end|>"
    )
    with LLM(tiny_chat.write(tmp_path / "thinks.gguf", template=closes), threads=1) as llm:
        assert llm.tokenizer.decode(llm.chat_ids(QUESTION)).endswith("assistant\n<think>\n")
        begun = llm.tokenizer.decode(llm.answer_start(QUESTION))
        assert begun.endswith("assistant\n<think>\n</think>\n\n")


def test_pooling_is_what_the_files_say(judged, tmp_path):
    with LLM(judged.path, threads=1, kv_dtype="f32") as llm:
        assert llm.pooling == "mean"
        last = llm.embed("the Thames", "last")
    for said, want in ((True, "last"), (False, "mean")):
        folder = tmp_path / want
        shutil.copytree(judged.path, folder)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps({"pooling_mode_lasttoken": said})
        )
        with LLM(folder, threads=1, kv_dtype="f32") as llm:
            assert llm.pooling == want
            assert np.array_equal(llm.embed("the Thames"), last) == said
    gguf = tiny_chat.write(tmp_path / "last.gguf", numbers={"llama.pooling_type": 3})
    with LLM(gguf, threads=1) as llm:
        assert llm.pooling == "last"
