# SPDX-License-Identifier: Apache-2.0
"""Grammars of answers: calls come back out of the parser, and text is not in their way."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest
from call_models import TOOLS, WITH_SYNTAX, CallModel, call_model, drawn
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.chat.reasoning import STYLES, THINK, reasoning_style
from freehold.chat.tool_format import NUMBER
from freehold.errors import ConstraintError, InvalidParameterError
from freehold.types import Constraint, ToolChoice

AUTO, REQUIRED = ToolChoice(), ToolChoice("required")
BY_NAME = {tool["function"]["name"]: tool["function"] for tool in TOOLS}
MARKED = [
    name for name in WITH_SYNTAX
    if call_model(name, control=False).answers.tool_format.syntax.marker
]  # fmt: skip
TEXTS = [
    "", "Hello.", "1 < 2 and [x] {y}", 'The JSON is {"a": [1, 2]}.', "```python\nf(x)\n```\n",
    "  spaces \n\n", "Zürich 漢字 🐲", "<b>bold</b> <tool", "[TOOL", "a <", "</think>", "functools",
    "function=x", '{"name": "get_weather", "parameters": {}}', "<|not_a_token|>", "Action:\n",
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["control", "plain"])
def control(request) -> bool:
    """Whether markers are control tokens."""
    params = getattr(request.node, "callspec", None)
    if not request.param and params is not None and params.params.get("name") == "harmony":
        pytest.skip("harmony without control tokens is nobody's")
    return request.param


def check_calls(calls) -> None:
    for call in calls:
        function = BY_NAME[call.name]
        schema = function.get("parameters", {"type": "object", "additionalProperties": False})
        jsonschema.validate(json.loads(call.arguments), schema)


def frame_of(model: CallModel) -> str:
    """What stands before the visible text in formats that structure the whole answer."""
    frame = model.answers.tool_format.frame
    return "" if frame is None else frame.answer


@pytest.mark.parametrize("name", WITH_SYNTAX)
def test_calls_that_the_grammar_writes_are_read_back(name, control):
    model, rng = call_model(name, control=control), random.Random(7)
    grammar = model.grammar(REQUIRED)
    several = 0
    for _ in range(8):
        text = model.text(drawn(model, grammar, rng))
        result = model.parse(text)
        assert result.tool_calls, text
        assert (result.content, result.notes) == ("", ()), text
        assert result.reasoning == "" or name == "harmony"
        check_calls(result.tool_calls)
        assert [c.index for c in result.tool_calls] == list(range(len(result.tool_calls)))
        several += len(result.tool_calls) > 1
    assert several == 0 or model.answers.tool_format.syntax.several


@pytest.mark.parametrize("name", WITH_SYNTAX)
def test_one_call_and_named_calls(name, control):
    model, rng = call_model(name, control=control), random.Random(3)
    for choice in (ToolChoice("named", "note-2"), ToolChoice("required", None, parallel=False)):
        grammar = model.grammar(choice)
        for _ in range(4):
            calls = model.parse(model.text(drawn(model, grammar, rng))).tool_calls
            check_calls(calls)
            if choice.mode == "named":
                assert {call.name for call in calls} == {"note-2"}
            else:
                assert len(calls) == 1


def written(model: CallModel, calls) -> str:
    """Calls as the syntax says."""
    s = model.answers.tool_format.syntax
    parts = [
        (s.before + call + s.between).replace(NUMBER, str(i)) + json.dumps(value) + s.after
        for i, (call, value) in enumerate(calls)
    ]
    return s.opens + s.separator.join(parts) + s.closes


CALLS = [("get_weather", {"city": "Zug", "days": 3, "units": "metric"}), ("now", {})]


@pytest.mark.parametrize("name", WITH_SYNTAX)
def test_calls_of_given_arguments_are_taken_and_read_back(name, control):
    model = call_model(name, control=control)
    calls = CALLS if model.answers.tool_format.syntax.several else CALLS[:1]
    text = written(model, calls)
    choices = [REQUIRED] + [AUTO] * (name in MARKED)
    for choice in choices:
        assert model.grammar(choice).accepts(model.ids(text)), text
    result = model.parse(text)
    assert [(c.name, json.loads(c.arguments)) for c in result.tool_calls] == calls
    wrong = text.replace('"metric"', '"feet"')
    assert wrong != text
    assert not any(model.grammar(choice).accepts(model.ids(wrong)) for choice in choices)


@pytest.mark.parametrize("name", WITH_SYNTAX)
def test_text_is_no_call_where_one_is_required(name, control):
    grammar = call_model(name, control=control).grammar(REQUIRED)
    model = call_model(name, control=control)
    for text in TEXTS:
        ids = model.ids(frame_of(model) + text)
        assert not grammar.accepts(ids)
        assert not grammar.accepts([*ids, model.end])


@pytest.mark.parametrize("name", MARKED)
def test_plain_answers_are_not_hindered(name, control):
    model = call_model(name, control=control)
    grammar = model.grammar(AUTO)
    marker = model.answers.tool_format.syntax.marker
    for text in TEXTS:
        for whole in (text, text + "<|odd|>" + text, "<|im_start|>", text + marker[:-1]):
            ids = model.ids(whole)
            assert grammar.accepts(ids), whole
            assert grammar.accepts([*ids, model.end]), whole
    for text in ("Let me look.\n", "", "<|odd|>", "x<|im_start|><|odd|> y"):
        whole = text + written(model, CALLS)
        assert grammar.accepts(model.ids(whole)), whole
        assert not grammar.accepts([*model.ids(text + marker + "bla"), model.end])


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(max_size=30), st.sampled_from(MARKED), st.booleans())
def test_no_text_without_a_marker_is_hindered(text, name, control):
    model = MODELS[name, control]
    text = text.replace(model.answers.tool_format.syntax.marker, "")
    ids = list(model.tokenizer.encode(text, add_special=False))
    assert GRAMMARS[name, control].accepts([*ids, model.end])


MODELS = {(n, c): call_model(n, control=c) for n in MARKED for c in (True, False)}
GRAMMARS = {key: model.grammar(AUTO) for key, model in MODELS.items()}


@pytest.mark.parametrize("name", [n for n in WITH_SYNTAX if n not in MARKED])
def test_what_has_no_marker_is_left_alone_unless_something_is_asked(name, control):
    model = call_model(name, control=control)
    assert model.grammar(AUTO) is None
    assert model.grammar(ToolChoice("none")) is None
    strict = [{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}]
    with pytest.raises(InvalidParameterError, match=f"{name}.*kept to a form"):
        model.grammar(AUTO, tools=strict)


@pytest.mark.parametrize("name", ["glm", "qwen3_coder", "gemma4", None])
def test_formats_a_grammar_cannot_say_are_refused_where_they_would_have_to_be(name):
    model = call_model(name, control=True)
    assert model.grammar(AUTO) is None
    with pytest.raises(InvalidParameterError, match="forced"):
        model.grammar(REQUIRED)
    with pytest.raises(InvalidParameterError, match="kept to a form"):
        model.grammar(AUTO, body=Constraint("json"))
    assert model.grammar(ToolChoice("none"), body=Constraint("json")) is not None


def test_choices_that_cannot_be():
    model = call_model("hermes", control=False)
    with pytest.raises(InvalidParameterError, match="needs tools"):
        model.grammar(REQUIRED, tools=[])
    with pytest.raises(InvalidParameterError, match="no tool 'x'"):
        model.grammar(ToolChoice("named", "x"))
    with pytest.raises(InvalidParameterError, match="no name"):
        model.grammar(REQUIRED, tools=[{"type": "function", "function": {}}])


def test_schemas_that_cannot_be_kept_bind_strict_tools_only():
    odd = {"name": "odd", "parameters": {"type": "object", "properties": {"a": {"not": {}}}}}
    model = call_model("hermes", control=False)
    loose = model.grammar(AUTO, tools=[{"type": "function", "function": odd}])
    call = '<tool_call>\n{"name": "odd", "arguments": {"a": 1}}\n</tool_call>'
    assert loose.accepts(model.ids(call))
    assert not loose.accepts(model.ids(call.replace('{"a": 1}', "5")))
    with pytest.raises(ConstraintError, match="'odd' is strict, and the schema uses not"):
        model.grammar(AUTO, tools=[{"type": "function", "function": {**odd, "strict": True}}])


@pytest.mark.parametrize("odd", ['a"b', "<|im_end|>", "a\nb", "<tool_call>", "ü"])
def test_names_are_text_whatever_they_look_like(odd):
    tools = [{"type": "function", "function": {"name": odd, "parameters": {"type": "object"}}}]
    for name in ("hermes", "mistral_list"):
        model = call_model(name, control=True)
        grammar = model.grammar(ToolChoice("required", None, parallel=False), tools=tools)
        ids = drawn(model, grammar, random.Random(0))
        calls = [i for i in ids if i in model.tokenizer.special_ids()]
        assert len(calls) <= 2  # the markers
        if odd.isprintable():
            assert model.parse(model.text(ids), tools=tools).tool_calls[0].name == odd


# -- with a body ----------------------------------------------------------------------------------

BODY = Constraint("json_schema", {"type": "object", "properties": {"ok": {"type": "boolean"}},
                                  "required": ["ok"], "additionalProperties": False})  # fmt: skip


@pytest.mark.parametrize("name", MARKED)
def test_a_form_or_calls_and_nothing_else(name, control):
    model = call_model(name, control=control)
    grammar = model.grammar(AUTO, body=BODY)
    assert grammar.accepts(model.ids('{"ok": true}'))
    assert grammar.accepts(model.ids(written(model, CALLS)))
    for text in ("", "hi", '{"ok": 1}', '{"ok": true}' + written(model, CALLS)):
        assert not grammar.accepts([*model.ids(text), model.end])


# -- thoughts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
@pytest.mark.parametrize("opened", [True, False])
def test_a_form_begins_after_the_thought(style, opened, control):
    model = call_model(None, style, control=control)
    prompt = "…" + (style.opening or style.start) if opened else ""
    grammar = model.grammar(AUTO, prompt, tools=(), body=BODY)
    head = "" if opened else style.start
    for thought in ("", "Hm. {\n", 'say {"ok": false}', "a<|odd|>b"):
        for gap in ("", "\n", "\n\n"):
            text = f'{head}{thought}{style.end}{gap}{{"ok": true}}'
            assert grammar.accepts(model.ids(text)), text
            parsed = model.answers.thought_only().parser(prompt)
            parsed.feed(text)
            parsed.finish()
            found = parsed.result()
            assert (json.loads(found.content), found.notes) == ({"ok": True}, ())
    assert grammar.accepts(model.ids('{"ok": true}')) == (not opened)
    assert not grammar.accepts([*model.ids(f"{head}hm{style.end}hi"), model.end])
    assert not grammar.accepts([*model.ids(f"{head}hm"), model.end])


def test_a_thought_that_the_template_has_closed_is_over():
    model = call_model(None, THINK, control=False)
    grammar = model.grammar(AUTO, "<think>\n\n</think>\n\n", tools=(), body=BODY)
    assert grammar.accepts(model.ids('{"ok": true}'))
    assert not grammar.accepts(model.ids('<think>hm</think>{"ok": true}'))


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("style", [THINK, reasoning_style("mistral")], ids=lambda s: s.name)
@pytest.mark.parametrize("opened", [True, False])
def test_thoughts_and_calls(name, style, opened, control):
    model = call_model(name, style, control=control)
    marker = model.answers.tool_format.syntax.marker
    prompt = "…" + style.start if opened else ""
    head = "" if opened else style.start
    auto, required = model.grammar(AUTO, prompt), model.grammar(REQUIRED, prompt)
    calls = written(model, CALLS)
    thought = f"{head}I may call.{style.end}\n\n"
    unthought = [] if opened else ["No thought.", calls]
    for text in (thought, thought + "Done.", thought + calls, thought + "So: " + calls,
                 head + "I never", *unthought):  # fmt: skip
        assert auto.accepts(model.ids(text)), text
        assert text.endswith(calls) or auto.accepts([*model.ids(text), model.end]), text
    assert required.accepts(model.ids(thought + calls))
    assert not required.accepts([*model.ids(thought), model.end])
    assert not auto.accepts([*model.ids(thought + marker + "bla"), model.end])
    if not control and not model.answers.tool_format.ends_reasoning:
        # Written about in a thought, a marker of plain text is no call.
        about = f"{head}I write {marker} and then{style.end}"
        assert auto.accepts([*model.ids(about + "Done."), model.end])
        assert auto.accepts(model.ids(about + calls))
    result = model.parse(thought + calls, prompt)
    assert len(result.tool_calls) == 2
    assert result.reasoning == "I may call."


# -- harmony --------------------------------------------------------------------------------------


def test_harmony_thinks_and_answers_or_calls():
    model, rng = call_model("harmony", control=True), random.Random(11)
    final = '<|channel|>final<|message|>{"ok": true}'
    thought = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    call = ("<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
            '{"city": "Zug"}')  # fmt: skip
    prompt = "<|start|>assistant"
    form = model.grammar(AUTO, prompt, tools=(), body=BODY)
    required = model.grammar(REQUIRED, prompt)
    for text, grammar, calls in (
        (final, form, 0), (thought + final, form, 0), (call, required, 1),
        (thought + call, required, 1),
    ):  # fmt: skip
        assert grammar.accepts(model.ids(text))
        result = model.parse(text, prompt)
        assert len(result.tool_calls) == calls
        assert result.reasoning == ("Hm." if text.startswith(thought) else "")
        assert result.content == ("" if calls else '{"ok": true}')
    assert not form.accepts(model.ids(final.replace("true", "1")))
    for _ in range(6):
        result = model.parse(model.text(drawn(model, form, rng)), prompt)
        assert json.loads(result.content)["ok"] in (True, False)
        result = model.parse(model.text(drawn(model, required, rng)), prompt)
        assert len(result.tool_calls) == 1
        check_calls(result.tool_calls)
