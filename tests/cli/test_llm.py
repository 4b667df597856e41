# SPDX-License-Identifier: Apache-2.0
"""`LLM` on real small models: exact answers, streams, batches, and refusals."""

from __future__ import annotations

import gc
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import BABY_Q8, DEVICES, STORIES, STORIES_ANSWERS, STORIES_HF, model

from freehold import LLM, SamplingParams
from freehold.errors import (
    ContextLengthError,
    InvalidParameterError,
    TemplateError,
    TokenizerError,
)

GREEDY = SamplingParams(temperature=0.0, max_tokens=24)
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if tools %}tools: {{ tools | length }}\n{% endif %}"
    "{% if add_generation_prompt %}Once upon a time{% endif %}{{ tail | default('') }}"
)


@pytest.fixture(scope="module", params=DEVICES)
def llm(request):
    with LLM(model(*STORIES), backend=request.param, max_num_seqs=8) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference():
    with LLM(model(*STORIES), backend="reference", context_length=256) as loaded:
        yield loaded


def answers() -> list[dict]:
    return json.loads(Path(model(*STORIES_ANSWERS)).read_text())["greedy"]


def test_greedy_text_is_the_references(llm):
    for answer in answers():
        wanted = answer["continuation_ids"]
        params = SamplingParams(temperature=0.0, max_tokens=len(wanted))
        completion = llm.generate(answer["prompt"], params)
        assert list(completion.prompt_token_ids) == answer["prompt_ids"]
        assert list(completion.token_ids) == wanted
        whole = llm.tokenizer.decode(answer["prompt_ids"][1:] + wanted)
        assert answer["prompt"] + completion.text == whole
        assert completion.finish_reason == "length"


def test_both_formats_of_a_model_give_the_same_story(reference):
    with LLM(model(*STORIES_HF), backend="reference") as other:
        prompt = "The little dog"
        assert (
            other.generate(prompt, GREEDY).token_ids == reference.generate(prompt, GREEDY).token_ids
        )


def test_a_batch_answers_in_order_and_as_one_by_one(llm):
    prompts = [answer["prompt"] for answer in answers()] + ["Tim", "A big red ball"]
    batch = llm.generate(prompts, GREEDY)
    assert [c.text for c in batch] == [llm.generate(prompt, GREEDY).text for prompt in prompts]


def test_a_batch_shares_its_steps(reference):
    before = reference.engine.stats.steps
    reference.generate(["One", "Two", "Three", "Four"], GREEDY)
    assert reference.engine.stats.steps - before <= GREEDY.max_tokens + 4


def test_each_prompt_may_have_its_own_params(reference):
    lengths = [3, 7, 5]
    params = [SamplingParams(temperature=0.0, max_tokens=n) for n in lengths]
    completions = reference.generate(["One day", "Lily", "The dog"], params)
    assert [len(c.token_ids) for c in completions] == lengths
    with pytest.raises(InvalidParameterError, match="2 params for 1 prompts"):
        reference.generate(["One day"], params[:2])


def test_text_and_its_ids_are_the_same_prompt(reference):
    ids = reference.tokenizer.encode("Once upon a time")
    for prompt in (ids, tuple(ids), np.array(ids)):
        assert reference.generate(prompt, GREEDY).text == reference.generate(
            "Once upon a time", GREEDY
        ).text  # fmt: skip


@pytest.mark.parametrize(
    "params",
    [
        GREEDY,
        SamplingParams(max_tokens=30, seed=7, temperature=0.9, top_k=20),
        SamplingParams(temperature=0.0, max_tokens=40, stop=("Lily",)),
        SamplingParams(temperature=0.0, max_tokens=10, logprobs=2),
    ],
    ids=["greedy", "seeded", "stop", "logprobs"],
)
def test_a_stream_adds_up_to_the_answer(reference, params):
    whole = reference.generate("Once upon a time", params)
    events = list(reference.generate("Once upon a time", params, stream=True))
    assert "".join(event.text for event in events) == whole.text
    assert sum((event.token_ids for event in events), ()) == whole.token_ids
    last = events[-1].completion
    assert last is not None
    assert (last.text, last.token_ids, last.stop_reason) == (
        whole.text, whole.token_ids, whole.stop_reason
    )  # fmt: skip
    assert all(event.completion is None for event in events[:-1])
    if params.logprobs is not None:
        assert sum((event.logprobs for event in events), ()) == last.logprobs == whole.logprobs


def test_a_seed_repeats_and_another_does_not(reference):
    def text(seed: int) -> str:
        return reference.generate("Once", SamplingParams(max_tokens=30, seed=seed)).text

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_a_stop_string_ends_the_text_before_it(reference):
    whole = reference.generate("Once upon a time", GREEDY).text
    stop = whole[10:14]
    params = SamplingParams(temperature=0.0, max_tokens=24, stop=(stop,))
    completion = reference.generate("Once upon a time", params)
    assert completion.text == whole[: whole.index(stop)]
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop)
    assert not reference.engine.has_unfinished()


def test_a_stop_token_ends_the_answer_and_is_not_in_the_text(reference):
    whole = reference.generate("Once upon a time", GREEDY)
    token = whole.token_ids[5]
    first = whole.token_ids.index(token)
    params = SamplingParams(temperature=0.0, max_tokens=24, stop_token_ids=(token,))
    completion = reference.generate("Once upon a time", params)
    assert (completion.finish_reason, completion.stop_reason) == ("stop", token)
    assert completion.token_ids == whole.token_ids[: first + 1]
    assert whole.text.startswith(completion.text)
    assert len(completion.text) < len(whole.text)


def test_log_probabilities_describe_the_chosen_tokens(reference):
    params = SamplingParams(temperature=0.0, max_tokens=6, logprobs=3, prompt_logprobs=0)
    completion = reference.generate("Once upon a time", params)
    assert [entry.token_id for entry in completion.logprobs] == list(completion.token_ids)
    for entry in completion.logprobs:
        assert entry.rank == 1
        assert entry.top[0] == (entry.token_id, entry.logprob)
        assert len(entry.top) == 3
    assert completion.prompt_logprobs[0] is None
    assert len(completion.prompt_logprobs) == len(completion.prompt_token_ids)


def test_streams_share_the_engine_without_mixing(reference):
    alone = {p: reference.generate(p, GREEDY).text for p in ("Once upon a time", "The little dog")}
    first = reference.generate("Once upon a time", GREEDY, stream=True)
    pieces = [next(first).text]
    assert reference.generate("The little dog", GREEDY).text == alone["The little dog"]
    pieces += [event.text for event in first]
    assert "".join(pieces) == alone["Once upon a time"]


@pytest.mark.parametrize("read", [0, 2])
def test_a_dropped_stream_stops_costing(reference, read):
    stream = reference.generate("Once", SamplingParams(max_tokens=200), stream=True)
    for _ in range(read):
        next(stream)
    del stream
    gc.collect()
    assert not reference.engine.has_unfinished()


def test_a_batch_with_an_impossible_prompt_starts_nothing(reference):
    with pytest.raises(ContextLengthError):
        reference.generate(["fine", [5] * 1000], GREEDY)
    assert not reference.engine.has_unfinished()


def test_an_answer_that_fills_the_context_says_so():
    with LLM(model(*STORIES), backend="reference", context_length=40) as llm:
        completion = llm.generate("Once", SamplingParams(temperature=0.0, ignore_eos=True))
        assert completion.finish_reason == "length"
        assert len(completion.prompt_token_ids) + len(completion.token_ids) == 40
        assert llm.context_is_full(completion)
        short = llm.generate("Once", SamplingParams(temperature=0.0, max_tokens=3))
        assert not llm.context_is_full(short)


# -- numbers -------------------------------------------------------------------------------------


def log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def test_logits_hold_the_references_best_tokens(llm):
    for answer in answers():
        logits = llm.logits(answer["prompt_ids"])
        assert logits.shape == (len(answer["prompt_ids"]), llm.config.vocab_size)
        assert logits.dtype == np.float32
        for token, value in answer["top5_logits_after_prompt"]:
            assert math.isclose(logits[-1, token], value, rel_tol=2e-2, abs_tol=2e-2)


def test_scores_are_log_likelihoods(reference):
    ids = reference.tokenizer.encode("Once upon a time")
    wanted = log_softmax(reference.logits(ids))
    wanted = [wanted[i, ids[i + 1]] for i in range(len(ids) - 1)]
    np.testing.assert_allclose(reference.score(ids), wanted, atol=1e-4)
    np.testing.assert_allclose(reference.score("Once upon a time"), wanted, atol=1e-4)
    np.testing.assert_allclose(reference.score(ids[:3], ids[3:]), wanted[2:], atol=1e-4)


def test_the_loss_of_a_text_is_the_references(reference):
    for case in json.loads(Path(model(*STORIES_ANSWERS)).read_text())["nll"]:
        key = next(k for k in case if "nll" in k or "loss" in k)
        loss = -float(np.mean(reference.score(case["text"])))
        assert math.isclose(loss, case[key], rel_tol=2e-3), case


def test_a_continuation_is_scored_as_text_after_text(reference):
    likely = reference.score("Once upon a", " time").sum()
    unlikely = reference.score("Once upon a", " banana").sum()
    assert likely > unlikely


def test_embeddings_are_unit_vectors_that_tell_texts_apart(reference):
    texts = ["The cat sat on the mat.", "The cat sat on a mat.", "12 + 7 = 19"]
    vectors = reference.embed(texts)
    assert vectors.shape == (3, reference.config.hidden_size)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    np.testing.assert_allclose(reference.embed(texts[0])[0], vectors[0], atol=1e-5)
    raw = reference.embed(texts, normalize=False)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), vectors, atol=1e-5)
    last = reference.embed(texts, pooling="last")
    assert not np.allclose(last, vectors)
    with pytest.raises(InvalidParameterError, match="pooling"):
        reference.embed(texts, pooling="median")


# -- without a tokenizer -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mute(tmp_path_factory):
    """The model with its tokenizer left out."""
    target = tmp_path_factory.mktemp("mute")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(model(*STORIES_HF)) / name, target / name)
    with LLM(target, backend="reference") as loaded:
        yield loaded


def test_ids_work_without_a_tokenizer(mute, reference):
    ids = answers()[0]["prompt_ids"]
    np.testing.assert_allclose(mute.logits(ids), reference.logits(ids), rtol=1e-4, atol=1e-4)
    completion = mute.generate(ids, GREEDY)
    assert list(completion.token_ids) == answers()[0]["continuation_ids"][: GREEDY.max_tokens]
    assert completion.text == ""


def test_text_without_a_tokenizer_is_refused(mute):
    for call in (
        lambda: mute.generate("Once", GREEDY),
        lambda: mute.score("Once"),
        lambda: mute.embed(["Once"]),
        lambda: mute.tokenizer,
        lambda: mute.generate([1, 2], SamplingParams(stop=("a",))),
    ):
        with pytest.raises(TokenizerError):
            call()


# -- chat ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """The model with a chat template beside it."""
    target = tmp_path_factory.mktemp("chatty")
    for file in Path(model(*STORIES_HF)).iterdir():
        shutil.copy(file, target / file.name)
    (target / "chat_template.jinja").write_text(TEMPLATE)
    with LLM(target, backend="reference") as loaded:
        yield loaded


def test_chat_renders_the_template_and_answers(chatty):
    messages = [{"role": "user", "content": "Tell me a story"}]
    rendered = "user: Tell me a story\nOnce upon a time"
    assert chatty.chat_ids(messages) == chatty.tokenizer.encode(rendered)
    completion = chatty.chat(messages, GREEDY)
    assert completion.token_ids == chatty.generate(rendered, GREEDY).token_ids
    assert list(completion.prompt_token_ids) == chatty.tokenizer.encode(rendered)
    events = list(chatty.chat(messages, GREEDY, stream=True))
    assert "".join(event.text for event in events) == completion.text


def test_chat_takes_many_conversations_tools_and_variables(chatty):
    conversations = [[{"role": "user", "content": text}] for text in ("a", "b", "c")]
    batch = chatty.chat(conversations, GREEDY)
    assert [c.text for c in batch] == [chatty.chat(c, GREEDY).text for c in conversations]
    with_tools = chatty.chat(conversations[0], GREEDY, tools=[{"name": "f"}], tail=" there")
    text = chatty.tokenizer.decode(with_tools.prompt_token_ids[1:])
    assert text == "user: a\ntools: 1\nOnce upon a time there"


def test_chat_without_a_template_is_refused_with_a_hint(reference):
    assert not reference.has_chat_template
    with pytest.raises(TemplateError) as caught:
        reference.chat([{"role": "user", "content": "hi"}])
    assert "generate" in caught.value.hint


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"context_length": 0}, {"context_length": 10**9}, {"kv_dtype": "f8"}, {"max_num_seqs": 0},
        {"max_num_batched_tokens": 0}, {"speculative_tokens": -1}, {"kv_memory_bytes": 0},
        {"backend": "abacus"}, {"threads": 0, "backend": "cpu"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    from freehold.errors import UserError

    with pytest.raises(UserError):
        LLM(model(*STORIES), **{"backend": "reference", **settings})


@pytest.mark.parametrize("prompt", [[-1], [512], [10**20], [], 3.5, None, [[1, 600]]], ids=repr)
def test_prompts_outside_the_vocabulary_are_refused(reference, prompt):
    with pytest.raises(InvalidParameterError):
        reference.generate(prompt if prompt != [] else [[]], GREEDY)


def test_a_closed_model_says_so_and_gives_its_memory_back():
    llm = LLM(model(*STORIES), backend="reference")
    kind = type(llm.model)
    loaded = sum(type(thing) is kind for thing in gc.get_objects())
    stream = llm.generate("Once", SamplingParams(max_tokens=50), stream=True)
    next(stream)
    llm.close()
    llm.close()
    gc.collect()
    assert sum(type(thing) is kind for thing in gc.get_objects()) == loaded - 1
    stream.close()
    for call in (llm.generate, llm.score, llm.embed):
        with pytest.raises(InvalidParameterError, match="closed"):
            call("Once")
    with pytest.raises(InvalidParameterError, match="closed"):
        llm.logits([1, 2])


def test_no_prompts_no_completions(reference):
    assert reference.generate([], GREEDY) == []


def test_a_long_context_is_cut_to_the_memory_and_says_so():
    with LLM(model(*BABY_Q8), backend="reference", kv_memory_bytes=100_000) as llm:
        assert 16 <= llm.context_length < 256
        assert any("--context" in notice for notice in llm.notices)
    with LLM(model(*BABY_Q8), backend="reference") as llm:
        assert llm.context_length == 256
        assert llm.notices == []


def test_recommended_sampling_is_exposed_and_not_applied(tmp_path):
    for file in Path(model(*STORIES_HF)).iterdir():
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / "generation_config.json").write_text('{"temperature": 5.0, "top_k": 1}')
    with LLM(tmp_path, backend="reference") as llm:
        assert llm.recommended_sampling == {"temperature": 5.0, "top_k": 1}
        texts = {
            llm.generate("Once", SamplingParams(max_tokens=12, seed=seed)).text for seed in range(4)
        }
        assert len(texts) > 1  # top_k 1 would have made them equal
