# SPDX-License-Identifier: Apache-2.0
"""Taking answers apart: every syntax once, cut anywhere, broken anywhere, and hostile."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.chat.output_parser import OutputParser, parse_output
from freehold.chat.parse_events import MalformedCall, TextDelta, ToolCallStart, merge_events
from freehold.chat.reasoning import reasoning_style
from freehold.chat.tool_format import Evidence
from freehold.chat.tool_formats import detect_tool_format, tool_format, tool_formats
from freehold.errors import InvalidParameterError

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "s": {"type": "string"},
        "o": {"type": ["string", "null"]},
    },
}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": SCHEMA}} for n in ("f", "g")]
QUOTE = '<|"|>'
# Per syntax: an answer with the calls f(n=1, s="5 <b>") and g(), and what else is in it.
ANSWERS = {
    "apertus": '<|tools_prefix|>[{"f": {"n": 1, "s": "5 <b>"}}, {"g": {}}]<|tools_suffix|>',
    "apriel": '<tool_calls>[{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]</tool_calls>',
    "command_r7b": '<|START_ACTION|>[\n{"tool_name": "f", "parameters": {"n": 1, "s": "5 <b>"}},'
    '\n{"tool_name": "g", "parameters": {}}\n]<|END_ACTION|>',
    "command_r_plus": 'Action:\n```json\n[{"tool_name": "f", "parameters": {"n": 1, "s": "5 <b>"}},'
    ' {"tool_name": "g", "parameters": {}}]\n```',
    "deepseek_dsml": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n'
    '<｜DSML｜parameter name="n" string="false">1</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="s" string="true">5 <b></｜DSML｜parameter>\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="g">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
    '{"n": 1, "s": "5 <b>"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n'
    "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek_v31": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>"
    '{"n": 1, "s": "5 <b>"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "firefunction": ' functools[{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]',
    "functionary_v31": '<function=f>{"n": 1, "s": "5 <b>"}</function><function=g>{}</function>',
    "functionary_v32": 'f\n{"n": 1, "s": "5 <b>"}>>>g\n{}',
    "gemma4": f"<|tool_call>call:f{{n:1,s:{QUOTE}5 <b>{QUOTE}}}<tool_call|><|tool_call>call:g{{}}"
    "<tool_call|>",
    "gigachat": '<|function_call|>[{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]',
    "glm": "<tool_call>f\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n<arg_key>s</arg_key>\n"
    "<arg_value>5 <b></arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
    "granite": '<|tool_call|>[{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]',
    "harmony": "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
    '{"n": 1, "s": "5 <b>"}<|end|><|start|>assistant<|channel|>commentary to=functions.g '
    "<|constrain|>json<|message|>{}",
    "hermes": '<tool_call>\n{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}\n</tool_call>\n'
    '<tool_call>\n{"arguments": {}, "name": "g"}\n</tool_call>',
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0"
    '<|tool_call_argument_begin|>{"n": 1, "s": "5 <b>"}<|tool_call_end|><|tool_call_begin|>'
    "functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
    "lfm2": "<|tool_call_start|>[f(n=1, s='5 <b>'), g()]<|tool_call_end|>",
    "llama3_json": '{"name": "f", "parameters": {"n": 1, "s": "5 <b>"}}; '
    '{"name": "g", "parameters": {}}',
    "llama4_pythonic": '[f(n=1, s="5 <b>"), g()]',
    "minimax_m2": '<minimax:tool_call>\n<invoke name="f">\n<parameter name="n">1</parameter>\n'
    '<parameter name="s">5 <b></parameter>\n</invoke>\n<invoke name="g">\n</invoke>\n'
    "</minimax:tool_call>",
    "mistral_args": '[TOOL_CALLS]f[ARGS]{"n": 1, "s": "5 <b>"}[TOOL_CALLS]g[ARGS]{}',
    "mistral_list": '[TOOL_CALLS][{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]',
    "muse": " to=f<|message|><atem:function_calls>\n"
    '<atem:invoke name="f">\n<atem:parameter name="n">1</atem:parameter>\n'
    '<atem:parameter name="s">5 <b></atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
    '<|eom|><|start|>assistant to=g<|message|><atem:function_calls><atem:invoke name="g">'
    "</atem:invoke></atem:function_calls>",
    "nemotron_v2": '<TOOLCALL>[{"name": "f", "arguments": {"n": 1, "s": "5 <b>"}}, '
    '{"name": "g", "arguments": {}}]</TOOLCALL>',
    "qwen3_coder": "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n<parameter=s>\n"
    "5 <b>\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n"
    "</tool_call>",
    "seed_oss": "<seed:tool_call>\n<function=f>\n<parameter=n>1</parameter>\n<parameter=s>5 <b>"
    "</parameter>\n</function>\n<function=g>\n</function>\n</seed:tool_call>",
}
DRIVEN = {"harmony", "muse", "functionary_v32"}  # they structure the whole answer
BARE = {"llama3_json", "llama4_pythonic"}
THINK = reasoning_style("think")


def _events(name, text, sizes, **options):
    parser = OutputParser(tool_format(name), THINK, tools=TOOLS, **options)
    events, at, i = [], 0, 0
    while at < len(text):
        step = sizes[i % len(sizes)] if sizes else len(text)
        events += parser.feed(text[at : at + step])
        at += step
        i += 1
    events += parser.finish()
    return merge_events(events), parser.result()


def test_every_syntax_has_an_answer_here():
    assert set(ANSWERS) == set(tool_formats())


@pytest.mark.parametrize("name", ANSWERS)
def test_every_syntax(name):
    result = parse_output(ANSWERS[name], tool_format(name), tools=TOOLS)
    assert [(c.name, json.loads(c.arguments)) for c in result.tool_calls] == [
        ("f", {"n": 1, "s": "5 <b>"}),
        ("g", {}),
    ]
    assert (result.content, result.reasoning, result.notes) == ("", "", ())


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - DRIVEN))
def test_text_and_reasoning_round_calls(name):
    before = "" if name in BARE else "Hello.\n"
    text = f"<think>\nWhy <tool?\n</think>\n\n{before}{ANSWERS[name]}"
    result = parse_output(text, tool_format(name), THINK, tools=TOOLS)
    assert (result.content, result.reasoning) == (before.strip(), "Why <tool?")
    assert len(result.tool_calls) == 2


@pytest.mark.parametrize("name", ANSWERS)
def test_cutting_changes_nothing(name):
    @settings(max_examples=12, deadline=None)
    @given(
        st.lists(st.integers(1, 9), min_size=1, max_size=6),
        st.integers(0, 400),
        st.sampled_from(["", "<", "\n\n", "<think>a</think>", "x <tool_call> y", "{", "[f("]),
        st.booleans(),
    )
    def check(sizes, end, more, stream):
        answer = ANSWERS[name]
        text = more + answer[: end % (len(answer) + 1)] + more + answer
        whole = _events(name, text, [], stream_arguments=stream)
        assert _events(name, text, sizes, stream_arguments=stream) == whole

    check()


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - DRIVEN - {"apriel"}))
def test_nothing_is_lost_where_an_answer_ends_early(name):
    answer = ANSWERS[name]
    for end in range(1, len(answer)):
        result = parse_output(answer[:end], tool_format(name), tools=TOOLS)
        kept = result.content + "".join(c.name + c.arguments for c in result.tool_calls)
        if not result.tool_calls:
            assert result.content == answer[:end]
            assert result.notes or not any(answer[:end].startswith(s) for s in _marks(name))
        else:
            assert "f" in kept


def _marks(name):
    return tool_format(name).starts


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ('{"name": "f", "arguments": {bad}}', "bad_syntax"),
        ('{"name": "f", "arguments": {"a": NaN}}', "bad_syntax"),
        ('{"name": "f", "arguments": {"a": 01}}', "bad_syntax"),
        ('{"name": "f", "arguments": [1]}', "bad_arguments"),
        ('{"name": "f", "arguments": "[1]"}', "bad_arguments"),
        ('{"name": "", "arguments": {}}', "bad_name"),
        ('{"arguments": {}}', "bad_name"),
        ('{"name": 5, "arguments": {}}', "bad_name"),
        ('{"name": "f", "arguments": {"a": "\\q"}}', "bad_syntax"),
        ('{"name": "f", "arguments": ' + '{"a": ' * 100 + "1" + "}" * 101, "too_deep"),
        ('{"name": "f", "arguments": {"a": ' + "1" * 500 + "}}", "too_long"),
        ('{"name": "f", "arguments": {}', "bad_syntax"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_malformed_calls_come_back_as_text(call, kind, stream):
    text = f"A <tool_call>{call}</tool_call> B"
    parser = OutputParser(tool_format("hermes"), stream_arguments=stream)
    events = parser.feed(text) + parser.finish()
    result = parser.result()
    assert result.content == text
    assert result.tool_calls == ()
    assert [note.kind for note in result.notes] == [kind]
    void = [e for e in events if isinstance(e, MalformedCall)]
    assert [e.note for e in void] == list(result.notes)
    started = [e.index for e in events if isinstance(e, ToolCallStart)]
    assert [e.index for e in void if e.index is not None] == started


def test_a_sound_call_after_a_malformed_one_counts():
    good = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
    for bad in ("<tool_call>{oops}</tool_call>", "<tool_call>", "<tool_call>{"):
        result = parse_output(bad + good, tool_format("hermes"))
        assert result.content == bad
        assert [c.name for c in result.tool_calls] == ["g"]


def test_a_sound_call_stays_when_something_odd_follows():
    text = '<tool_call>{"name": "f", "arguments": {}}}</tool_call>'
    result = parse_output(text, tool_format("hermes"))
    assert [c.name for c in result.tool_calls] == ["f"]
    assert (result.content, result.notes[0].kind) == ("}</tool_call>", "stray_text")


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 5}', '{"name": "Ann", "age": 5}', "[link](there)", "[f] (x)", "{",
        '{"type": "circle", "name": "f"}', "[h(a=1)]", " [1, 2]\n", '{"name": "f"}',
    ],
)  # fmt: skip
def test_json_answers_are_no_calls(text):
    result = parse_output(text, tool_format("llama3_json"), tools=TOOLS)
    assert (result.content, result.tool_calls, result.notes) == (text, (), ())


def test_arguments_are_sound_json():
    raw = '{"name": "f", "arguments": {"a": "x\ny\t\\ud800z\\ud83d\\ude00", "b": True, "c":[ ] }}'
    result = parse_output(f"<tool_call>{raw}</tool_call>", tool_format("hermes"))
    value = json.loads(result.tool_calls[0].arguments)
    assert value == {"a": "x\ny\t\ufffdz\U0001f600", "b": True, "c": []}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("n", "1", 1), ("s", "1", "1"), ("o", "1", "1"), ("o", "null", None), ("s", "null", "null"),
        ("unknown", "1", 1), ("unknown", '"q"', '"q"'), ("n", "one", "one"), ("s", "\n\n", ""),
        ("unknown", '{"a": [1]}', {"a": [1]}), ("unknown", "{a}", "{a}"),
    ],
)  # fmt: skip
def test_values_take_the_type_of_their_schema(key, text, value):
    answer = f"<tool_call><function=f><parameter={key}>{text}</parameter></function></tool_call>"
    result = parse_output(answer, tool_format("qwen3_coder"), tools=TOOLS)
    assert json.loads(result.tool_calls[0].arguments) == {key: value}


def test_python_literals():
    text = (
        '<|tool_call_start|>[f(a=\'it\\\'s "x"\', b="""two\nlines""", c=(1, -2.5), '
        "d={'k': [None, True]}, e='\\u00e9\\x41', h='', i=[])]<|tool_call_end|>"
    )
    result = parse_output(text, tool_format("lfm2"))
    assert json.loads(result.tool_calls[0].arguments) == {
        "a": "it's \"x\"", "b": "two\nlines", "c": [1, -2.5], "d": {"k": [None, True]},
        "e": "éA", "h": "", "i": [],
    }  # fmt: skip


def test_reasoning_the_prompt_opened():
    parser = OutputParser(None, THINK, prompt="<|im_start|>assistant\n<think>\n")
    events = merge_events([*parser.feed("because\n</think>\n\nYes.\n"), *parser.finish()])
    assert parser.result().reasoning == "because"
    assert events[-1] == TextDelta("Yes.\n")


def test_thoughts_about_calls_are_no_calls_and_prose_about_thoughts_is_no_thought():
    call = ANSWERS["hermes"]
    result = parse_output(f"<think>{call}</think>Say <think> twice.", tool_format("hermes"), THINK)
    assert (result.reasoning, result.content) == (call, "Say <think> twice.")
    assert result.tool_calls == ()


def test_plain_text_is_left_alone():
    for text in ("", " a \n", "\n\n<thin", "<tool_cal", "a<b"):
        assert parse_output(text, tool_format("hermes"), THINK).content == text


def test_inline_reasoning_stays_where_it_was():
    text = "<think>\na\n</think>\n\nb"
    assert parse_output(text, None, THINK, mode="inline").content == text


def test_a_fence_round_an_answer_asked_to_be_json():
    text = '<think>a</think>```json\n{"a": 1}\n```'
    assert parse_output(text, None, THINK, json_answer=True).content == '{"a": 1}'


def test_half_a_marker_is_never_shown():
    parser = OutputParser(tool_format("hermes"))
    shown = ""
    for char in "Hello <tool_call>" + '{"name": "f", "arguments": {}}' + "</tool_call>":
        shown += "".join(e.text for e in parser.feed(char) if isinstance(e, TextDelta))
        assert "Hello ".startswith(shown)
    parser.finish()
    assert parser.result().content == "Hello"


HOSTILE = [
    "<tool_call>", '<tool_call>{"name":"f","arguments":', "<", '<tool_call>{"a":"', "\n",
    '{"name": "f", "parameters": ', "[f(a=[", "<function=f><parameter=a>", "<|start|>",
    "<|channel|>", "<|tool_call>call:f{a:{", "<tool_call>f<arg_key>", ">>>", "[TOOL_CALLS]f[ARGS]{",
    "<｜DSML｜function_calls>", "<think>", "</think>", '<tool_call>{"name":"f","arguments":{}}',
]  # fmt: skip


@pytest.mark.parametrize("name", ["hermes", "llama3_json", "harmony", "gemma4"])
def test_hostile_answers_take_linear_time(name):
    for unit in HOSTILE:
        text = (unit * 8_000)[:8_000]
        for sizes in ([], [1]):
            start = time.process_time()
            _, result = _events(name, text, sizes)
            # A quadratic loop needs 30 million steps and more.
            assert time.process_time() - start < 2
            assert len(result.notes) <= 100
            if name not in DRIVEN and not result.tool_calls and "think" not in unit:
                assert result.content == text


def test_a_call_without_end_is_bounded():
    text = '<tool_call>{"name": "f", "arguments": {"a": "' + "x" * 1_100_000
    result = parse_output(text, tool_format("hermes"))
    assert result.content == text
    assert [n.kind for n in result.notes] == ["too_long"]


def test_formats_by_name_and_evidence():
    with pytest.raises(InvalidParameterError, match="no tool-call format"):
        tool_format("none")
    assert detect_tool_format(Evidence("plain")) is None
    found = detect_tool_format(Evidence(tokens=frozenset({"[TOOL_CALLS]", "[ARGS]"})))
    assert found is tool_format("mistral_args")
