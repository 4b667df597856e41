# SPDX-License-Identifier: Apache-2.0
"""Recorded raw answers of many models against what they mean, whole and in pieces."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from chat_data import DATA, need, read_cases

from freehold.chat.output_parser import OutputParser
from freehold.chat.parse_events import (
    MalformedCall,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    merge_events,
)
from freehold.chat.reasoning import detect_reasoning, reasoning_style
from freehold.chat.template import ChatTemplate
from freehold.chat.tool_format import Evidence
from freehold.chat.tool_formats import detect_tool_format, tool_format

# Templates that the data names but does not hold: (tool format, reasoning style, what the prompt
# ends with when thinking is on).
ABSENT = {
    "Apriel-1.6-15b-Thinker-fixed": ("apriel", "apriel", "Here are my reasoning steps:\n"),
    "ByteDance-Seed-OSS": ("seed_oss", "seed", ""),
    "DeepSeek-V3.2": ("deepseek_dsml", "think", "<think>"),
    "GLM-4.7-Flash": ("glm", "think", "<think>"),
    "GigaChat3-10B-A1.8B": ("gigachat", None, ""),
    "Kimi-K2": ("kimi_k2", "think", ""),
    "LFM2.5-8B-A1B": ("lfm2", "think", ""),
    "MiniMax-M2": ("minimax_m2", "think", "<think>\n"),
    "Mistral-Small-3.2-24B": ("mistral_args", None, ""),
    "Hermes-2-Pro": ("hermes", None, ""),
    "Reka-Edge": ("hermes", "think", "<think>\n"),
    "DeepSeek-R1-Distill-Qwen-32B": ("deepseek_v3", "think", "<think>\n"),
    "llama-3-firefunction-v2": ("firefunction", None, ""),
    "gemma-2-2b-it": (None, None, ""),
    "gemma-4-31B-it": ("gemma4", "gemma4", ""),
    "granite-4.": ("hermes", None, ""),
    "llama-cpp-deepseek-r1": ("deepseek_v3", "think", "<think>\n"),
    "functionary-medium-v3.2": ("functionary_v32", None, ">>>"),
    "Llama-3.1-8B": ("llama3_json", None, ""),
    "Llama-3.2-3B": ("llama3_json", None, ""),
    "Mistral-Nemo": ("mistral_list", None, ""),
    "unsloth-Apriel-1.5": ("apriel", None, ""),
}
# One case's expectation has its fields in the wrong places; this is what they say.
SCRAMBLED = {
    4352: {
        "reasoning_content": "Let's call a tool:",
        "tool_calls": [{"name": "empty_args", "arguments": "{}", "id": ""}],
    }
}
# The recorded comparison ignores white space at both ends of a text; only these need that.
BLANKS = {2102, 2289, 2533}
PREFIX = {
    "COMMON_CHAT_CONTINUATION_CONTENT": {"content": "Hello, ", "reasoning_text": "I'm thinking"},
    "COMMON_CHAT_CONTINUATION_REASONING": {"reasoning_text": "I'm"},
}


def _tools(case: dict[str, Any]) -> list[dict[str, Any]]:
    tools = []
    for tool in case.get("tools") or []:
        if isinstance(tool, list):  # recorded as a row: name, description, schema as text
            name, description, schema = tool
            tool = {"name": name, "description": description, "parameters": json.loads(schema)}
        tools.append({"type": "function", "function": tool})
    return tools


def _parser(case: dict[str, Any], **more: Any) -> OutputParser:
    options = case["options"]
    tools = _tools(case)
    path = DATA / "templates" / "jinja" / Path(case["template"]).name
    variables = {k: options[k] for k in ("enable_thinking",) if k in options}
    if path.is_file():
        source = path.read_text(encoding="utf-8")
        evidence = Evidence(source)
        found, style = detect_tool_format(evidence), detect_reasoning(evidence)
        template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
        if "DeepSeek-V3.1" in path.name:
            variables = {"thinking": variables.get("enable_thinking", False)}
        variables.setdefault("enable_thinking", True)
        prompt = str(
            template.render([{"role": "user", "content": "Hey"}], tools=tools or None, **variables)
        )
    else:
        key = next(k for k in ABSENT if k in path.name)
        name, style_name, prompt = ABSENT[key]
        found = None if name is None else tool_format(name)
        style = None if style_name is None else reasoning_style(style_name)
        if not options.get("enable_thinking", True) and "functionary" not in key:
            prompt = ""
    prefix: dict[str, Any] = {}
    if "continue_final_message" in options:
        prompt = ""
        prefix = dict(PREFIX[options["continue_final_message"]])
        if not case["expect"].get("reasoning_content"):
            prefix.pop("reasoning_text")
    if "json_schema" in options:
        prefix["json_answer"] = True
    mode = "inline" if options.get("reasoning_format", "").endswith("NONE") else "split"
    return OutputParser(found, style, tools=tools, prompt=prompt, mode=mode, **prefix, **more)  # type: ignore[arg-type]


CASES = read_cases("toolcalls/parse_vectors.json") if (DATA / "toolcalls").exists() else []


def _cases() -> list[Any]:
    if not CASES:
        need(DATA / "toolcalls")
    return CASES


@pytest.mark.parametrize("number", range(len(CASES)) or [0])
def test_recorded_answers(number):
    case = _cases()[number]
    parser = _parser(case)
    parser.feed(case["input"])
    if not case["options"].get("is_partial"):
        parser.finish()
    result = parser.result()
    expected = {**case["expect"], **SCRAMBLED.get(case["line"], {})}
    texts = (result.content, result.reasoning)
    wanted = (expected["content"], expected["reasoning_content"])
    if case["line"] in BLANKS:
        texts, wanted = (tuple(t.strip() for t in pair) for pair in (texts, wanted))
    assert texts == wanted
    assert [c.name for c in result.tool_calls] == [c["name"] for c in expected["tool_calls"]]
    for call, want in zip(result.tool_calls, expected["tool_calls"], strict=True):
        assert call.id == want["id"]
        if case["options"].get("is_partial"):
            assert call.arguments == want["arguments"]
        else:
            assert json.loads(call.arguments) == json.loads(want["arguments"])
    assert not result.notes


@pytest.mark.parametrize("stream_arguments", [False, True])
def test_cutting_recorded_answers_changes_nothing(stream_arguments):
    chance = random.Random(7)
    for case in _cases():
        text = case["input"]
        whole = _parser(case, stream_arguments=stream_arguments)
        events = merge_events([*whole.feed(text), *whole.finish()])
        for pieces in (1, 3, 9):
            parser = _parser(case, stream_arguments=stream_arguments)
            got = []
            at = 0
            while at < len(text):
                step = chance.randint(1, pieces)
                got += parser.feed(text[at : at + step])
                at += step
            got += parser.finish()
            assert merge_events(got) == events
            assert parser.result() == whole.result()


def test_pieces_of_recorded_answers_add_up():
    for case in _cases():
        parser = _parser(case, stream_arguments=True)
        seen = parser.result()  # what of the answer the prompt held
        content, reasoning, calls = seen.content, seen.reasoning, []
        for char in (*case["input"], None):
            for event in parser.finish() if char is None else parser.feed(char):
                if isinstance(event, TextDelta):
                    content += event.text
                elif isinstance(event, ReasoningDelta):
                    reasoning += event.text
                elif isinstance(event, ToolCallStart):
                    calls.append([event.name, ""])
                elif isinstance(event, ToolCallDelta):
                    calls[event.index][1] += event.arguments
                elif isinstance(event, MalformedCall):
                    del calls[event.index]
                assert not isinstance(event, ToolCall)
            now = parser.result()
            assert (now.content, now.reasoning) == (content, reasoning)
            assert [[c.name, c.arguments] for c in now.tool_calls] == calls
