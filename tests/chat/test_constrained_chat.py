# SPDX-License-Identifier: Apache-2.0
"""Forms of answers from `LLM` down: thoughts first, batches, streams, cuts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

import tiny_chat
from freehold import LLM, SamplingParams
from freehold.async_llm import AsyncLLM
from freehold.errors import ConstraintError, InvalidParameterError
from freehold.types import Constraint, ToolChoice

HELLO = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 22, 333]}},
    "required": ["ok"],
    "additionalProperties": False,
}
FORMS = [
    (Constraint("json_schema", SCHEMA), r'\{"ok": (true|false)(, "n": (1|22|333))?\}'),
    (Constraint("regex", "[a-c]{2,6}!"), r"[a-c]{2,6}!"),
    (Constraint("choice", ["one", "two", "twenty"]), r"one|two|twenty"),
    (Constraint("lark", 'start: ("x" | "yz")~3\n'), r"(x|yz){3}"),
    (Constraint("lark", 'start: p p\np: "(" /[01]/ ")"'), r"(\([01]\)){2}"),
]
HOT = SamplingParams(temperature=1.5, seed=3, max_tokens=400)


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Iterator[LLM]:
    path = tiny_chat.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")
    with LLM(str(path), threads=1, max_num_seqs=8) as model:
        yield model


@pytest.mark.parametrize(("form", "pattern"), FORMS, ids=lambda x: getattr(x, "kind", ""))
def test_every_kind_in_texts_and_chats(llm, form, pattern):
    for temperature in (0.0, 1.5, 10.0):
        params = SamplingParams(temperature=temperature, seed=1, max_tokens=400)
        plain = llm.generate("a", params, constraint=form)
        chat = llm.chat(HELLO, params, constraint=form)
        events = list(llm.chat(HELLO, params, constraint=form, stream=True))
        for answer in (plain, chat):
            assert re.fullmatch(pattern, answer.text)
            assert answer.finish_reason == "stop"
        assert "".join(event.text for event in events) == chat.text


def test_a_batch_of_forms_and_free_ones_is_its_singles(llm):
    forms = [*(form for form, _ in FORMS), None, None]
    params = [SamplingParams(temperature=1.5, seed=i, max_tokens=30) for i in range(len(forms))]
    prompts = [f"prompt {i}" for i in range(len(forms))]
    batch = llm.generate(prompts, params, constraint=forms)
    for prompt, each, form, answer in zip(prompts, params, forms, batch, strict=True):
        alone = llm.generate(prompt, each, constraint=form)
        assert (answer.token_ids, answer.text) == (alone.token_ids, alone.text)
    assert llm.engine.stats.forced_tokens > 0
    with pytest.raises(InvalidParameterError, match="2 constraints for 1"):
        llm.generate(["a"], HOT, constraint=[None, None])


def test_a_form_refused_starts_nothing(llm):
    before = llm.engine.stats.requests_added
    bad = [FORMS[0][0], Constraint("json_schema", {"not": {}})]
    with pytest.raises(ConstraintError, match="uses not"):
        llm.generate(["a", "b"], HOT, constraint=bad)
    assert llm.engine.stats.requests_added == before
    assert llm.engine.num_unfinished == 0


@pytest.mark.parametrize(
    "form",
    [
        Constraint("regex", "("), Constraint("regex", ""), Constraint("regex", 5),
        Constraint("regex", "a" * 70_000), Constraint("choice", []), Constraint("choice", "ab"),
        Constraint("choice", ["a", ""]), Constraint("choice", [1]),
        Constraint("choice", ["\ud800"]), Constraint("choice", ["x"] * 20_001),
        Constraint("lark", "start: ("), Constraint("lark", ""),
        Constraint("lark", "start: " + "(" * 5000 + '"a"' + ")" * 5000),
        Constraint("lark", 'start: x\nx: %json {"type": "null"}'),
        Constraint("lark", 'root ::= "a"'), Constraint("lark", "start: x\n" + "#" * 140_000),
        Constraint("json_schema", 5),
        Constraint("verse", None),  # type: ignore[arg-type]
    ],
    ids=lambda f: f"{f.kind}-{f.value!r:.20}",
)  # fmt: skip
def test_forms_that_are_none(llm, form):
    with pytest.raises(ConstraintError) as caught:
        llm.generate("a", HOT, constraint=form)
    assert len(str(caught.value)) < 600


def test_a_long_chain_of_rules_ends_no_process(llm):
    rules = "\n".join(f'q{i}: "x" q{i + 1}?' for i in range(4000))
    form = Constraint("lark", f'start: q0\n{rules}\nq4000: "y"')
    answer = llm.generate("a", SamplingParams(max_tokens=20), constraint=form)
    assert set(answer.text) == {"x"}


def test_stop_strings_and_cuts(llm):
    form = FORMS[0][0]
    stopped = llm.generate("a", SamplingParams(stop=("ok",)), constraint=form)
    assert (stopped.text, stopped.finish_reason, stopped.stop_reason) == ('{"', "stop", "ok")
    for limit in range(1, 9):
        cut = llm.generate("a", SamplingParams(max_tokens=limit, seed=1), constraint=form)
        assert (cut.text, cut.finish_reason) == ('{"ok": true'[:limit], "length") or limit > 7


def test_log_probabilities_beside_a_form_change_nothing(llm):
    form = FORMS[0][0]
    plain = llm.generate("a", HOT, constraint=form)
    told = llm.generate("a", SamplingParams(temperature=1.5, seed=3, max_tokens=400, logprobs=2),
                        constraint=form)  # fmt: skip
    assert told.token_ids == plain.token_ids
    assert [entry.token_id for entry in told.logprobs] == list(told.token_ids)
    ids = list(told.prompt_token_ids + told.token_ids)
    scores = llm.engine.score(ids, len(told.prompt_token_ids))
    assert np.allclose([entry.logprob for entry in told.logprobs], scores, atol=1e-4)


def test_forcing_changes_no_token(tmp_path, llm):
    path = llm.path
    form = FORMS[0][0]
    with LLM(path, threads=1, forced_tokens=False) as asked:
        for seed in range(4):
            params = SamplingParams(temperature=0.0, logit_bias={ord("t"): seed, ord(","): -seed})
            one = llm.generate("a", params, constraint=form)
            other = asked.generate("a", params, constraint=form)
            assert one.token_ids == other.token_ids
        assert asked.engine.stats.forced_tokens == 0


# -- thoughts -------------------------------------------------------------------------------------

THOUGHTS = {
    "think": ("{# <think></think> #}", "<think>I see {\n it.</think>\n\n", "I see {\n it."),
    "mistral": ("{# [THINK][/THINK] #}", "[THINK]I see.[/THINK]", "I see."),
    "gemma4": ("{# <|channel>thought <channel|> #}", "<|channel>thought\nI see.<channel|>",
               "I see."),
    "harmony": (
        "{# <|channel|><|message|> #}",
        "<|channel|>analysis<|message|>I see.<|end|><|start|>assistant",
        "I see.",
    ),
    "calls": ("{# <think></think> <tool_call> #}", "<think>A <tool_call>?</think>\n\n",
              "A <tool_call>?"),
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "look", "parameters": {
    "type": "object", "properties": {"at": {"enum": ["left", "right"]}}, "required": ["at"],
    "additionalProperties": False}}}  # fmt: skip


class Says:
    """A model that begins as it is told, and goes on as it likes."""

    def __init__(self, ids) -> None:
        self._ids = list(ids)

    def __call__(self, so_far, logits):
        if len(so_far) < len(self._ids):
            logits[:] = -50.0
            logits[self._ids[len(so_far)]] = 50.0
        return logits


def answers(llm: LLM, head: str, params, constraint=None, tools=(), choice=None):
    """A completion whose beginning is `head`, through `AsyncLLM`."""

    async def run():
        model = AsyncLLM(llm)
        ids = llm.chat_ids(HELLO, tools=list(tools) or None)
        grammar = llm.chat_grammar(ids, constraint, tools=tools, choice=choice)
        parser = llm.chat_parser(ids, constraint, tools)
        events = [
            event
            async for event in model.stream(
                ids, params, parser=parser, constraint=grammar,
                logits_processor=Says(llm.tokenizer.encode(head, add_special=False)),
            )
        ]  # fmt: skip
        await model.drain()
        model.close()
        return events

    return asyncio.run(run())


@pytest.mark.parametrize("name", THOUGHTS)
@pytest.mark.parametrize("with_tools", [False, True])
def test_the_form_begins_after_the_thought(tmp_path, name, with_tools):
    note, head, thought = THOUGHTS[name]
    path = tiny_chat.write(tmp_path / "t.gguf", template=tiny_chat.TEMPLATE + note)
    if with_tools and name != "calls":
        pytest.skip("this one calls no tools")
    with LLM(str(path), threads=1) as llm:
        params = SamplingParams(temperature=1.5, seed=5, max_tokens=300)
        if with_tools:
            events = answers(llm, head, params, tools=[TOOL], choice=ToolChoice("required"))
        else:
            events = answers(llm, head, params, FORMS[0][0])
    whole = events[-1].completion
    assert whole.finish_reason == "stop"
    assert whole.reasoning == thought
    assert "".join(event.reasoning for event in events) == thought
    if with_tools:
        assert whole.text == ""
        assert {call.name for call in whole.tool_calls} == {"look"}
        assert all(json.loads(c.arguments)["at"] in ("left", "right") for c in whole.tool_calls)
    else:
        assert re.fullmatch(FORMS[0][1], whole.text.strip())
        assert "".join(event.text for event in events) == whole.text


def test_free_answers_beside_tools_may_think_about_calls(tmp_path):
    note, head, thought = THOUGHTS["calls"]
    path = tiny_chat.write(tmp_path / "t.gguf", template=tiny_chat.TEMPLATE + note)
    with LLM(str(path), threads=1) as llm:
        params = SamplingParams(temperature=1.5, seed=5, max_tokens=150, stop=("\n\n\n",))
        said = head + "Well: "
        whole = answers(llm, said, params, tools=[TOOL])[-1].completion
        assert whole.reasoning == thought
        assert whole.text.startswith("Well: ")
    with LLM(str(path), threads=1) as llm:
        params = SamplingParams(temperature=1.5, seed=5, max_tokens=300)
        whole = answers(llm, head + "Well: <tool_call>", params, tools=[TOOL])[-1].completion
        assert whole.finish_reason == "stop"
        assert whole.text == "Well:"
        assert [call.name for call in whole.tool_calls] == ["look"] * len(whole.tool_calls)
        assert whole.tool_calls
