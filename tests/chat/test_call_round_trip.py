# SPDX-License-Identifier: Apache-2.0
"""What a template prints for a call the model made is what the model prints: read it back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from call_models import call_model
from chat_data import DATA, need

from freehold.chat.answer_format import answer_format
from freehold.chat.output_parser import parse_output
from freehold.chat.template import ChatTemplate
from freehold.types import ToolChoice

TEMPLATES = (
    "Apertus-8B-Instruct", "Bielik-11B-v3.0-Instruct", "CohereForAI-c4ai-command-r-plus-tool_use",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "GigaChat3.1-10B-A1.8B", "MiMo-VL",
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "NVIDIA-Nemotron-Nano-v2",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct",
    "Qwen3-Coder", "Qwen3.5-4B", "StepFun3.5-Flash", "deepseek-ai-DeepSeek-V3.1",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "google-gemma-4-31B-it-interleaved", "meetkai-functionary-medium-v3.1",
    "meta-llama-Llama-3.3-70B-Instruct", "mistralai-Ministral-3-14B-Reasoning-2512",
    "openai-gpt-oss-120b",
)  # fmt: skip
# The engine stops at these, so they are no part of an answer.
ENDS = (
    "<|im_end|>", "</s>", "<|eot_id|>", "<|eom_id|>", "<|call|>", "<|END_OF_TURN_TOKEN|>",
    "<turn|>", "<｜end▁of▁sentence｜>", "<|assistant_end|>",
)  # fmt: skip
TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
CASES = 12


def _schema(node: Any) -> Any:
    """The data's schemas name types in Python."""
    if isinstance(node, dict):
        return {
            k: TYPES.get(v, v) if k == "type" and isinstance(v, str) else _schema(v)
            for k, v in node.items()
        }
    return [_schema(item) for item in node] if isinstance(node, list) else node


def _value(value: Any) -> Any:
    if isinstance(value, dict):  # alternatives at every level: the first
        return {k: _value(v[0] if isinstance(v, list) and v else v) for k, v in value.items()}
    return value


def _calls() -> list[tuple[list[Any], list[Any], str, dict[str, Any]]]:
    """(messages, tools, name, arguments)."""
    questions = need(DATA / "toolcalls/bfcl/BFCL_v4_simple_python.json")
    answers = need(DATA / "toolcalls/bfcl/possible_answer/BFCL_v4_simple_python.json")
    found = []
    lines = (path.read_text(encoding="utf-8").splitlines() for path in (questions, answers))
    pairs = zip(*lines, strict=True)
    for question, answer in itertools.islice(pairs, 0, None, 400 // CASES):
        case = json.loads(question)
        ((name, alternatives),) = json.loads(answer)["ground_truth"][0].items()
        arguments = {k: _value(v[0]) for k, v in alternatives.items() if v and v[0] != ""}
        tools = [{"type": "function", "function": _schema(f)} for f in case["function"]]
        found.append((case["question"][0], tools, name, arguments))
    # What the data has none of: text that looks like markup, empty arguments, nesting.
    odd = {"code": 'x = "</a>"\n  <b>&\\n\'', "n": -1.5e3, "deep": {"a": [1, None, {"b": "ü"}]}}
    free = {"additionalProperties": {"type": "string"}}  # one template cannot do without
    kinds = {"code": ("string", {}), "n": ("number", {}), "deep": ("object", free)}
    properties = {k: {"type": t, "description": "", **m} for k, (t, m) in kinds.items()}
    schema = {"type": "object", "properties": properties}
    tool = {"name": "odd", "description": "Odd.", "parameters": schema}
    user = [{"role": "user", "content": "Do."}]
    found.append((user, [{"type": "function", "function": tool}], "odd", odd))
    found.append((user, [{"type": "function", "function": tool}], "odd", {"n": 1}))
    return found


def _printed(name: str, in_order: bool = False) -> Iterator[tuple[str, list[Any], str, Any]]:
    """(text of a call, tools, name, arguments), as a template prints them; `in_order`: of the
    schema's properties."""
    source = need(DATA / "templates" / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")
    found = answer_format([source], None)
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    # This template prints calls only where there is no content at all.
    content = None if "R1-Distill" in name else ""
    for messages, tools, tool, arguments in _calls():
        if in_order:
            known = list(tools[0]["function"]["parameters"]["properties"])
            arguments = {key: arguments[key] for key in known if key in arguments}
        given: Any = json.dumps(arguments) if "R1-Distill" in name else arguments
        call = {"id": "abcdef123", "type": "function",
                "function": {"name": tool, "arguments": given}}  # fmt: skip
        answer = {"role": "assistant", "content": content, "tool_calls": [call]}
        prompt = template.render(messages, tools=tools)
        whole = template.render([*messages, answer], tools=tools, add_generation_prompt=False)
        same = (a == b for a, b in zip(prompt, whole, strict=False))
        start = next((i for i, equal in enumerate(same) if not equal), min(len(prompt), len(whole)))
        # The prompt may have opened what a finished turn leaves out: then the marker tells.
        marked = [i for i in map(whole.rfind, found.tool_format.starts) if i >= 0]
        start = marked[0] if marked else start
        text = whole[start:].rstrip()
        # Two templates go on with another turn, whether asked or not.
        text = text.partition("<|START_OF_TURN_TOKEN|>")[0].rstrip()
        for end in ENDS:
            text = text.removesuffix(end).rstrip()
        yield text, tools, tool, arguments


@pytest.mark.parametrize("name", TEMPLATES)
def test_printed_calls_are_read_back(name):
    source = need(DATA / "templates" / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")
    found = answer_format([source], None)
    for text, tools, tool, arguments in _printed(name):
        result = parse_output(text, found.tool_format, found.reasoning, tools=tools)
        assert [(c.name, json.loads(c.arguments)) for c in result.tool_calls] == [(tool, arguments)]
        assert (result.content, result.notes) == ("", ())


# Their history leaves out an end marker, or puts the recipient elsewhere than the model does.
OTHERWISE = ("NVIDIA-Nemotron-Nano-v2", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
             "openai-gpt-oss-120b")  # fmt: skip


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n not in OTHERWISE])
def test_grammars_write_calls_as_templates_print_them(name):
    source = need(DATA / "templates" / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")
    tool_format = answer_format([source], None).tool_format
    if tool_format.syntax is None:
        pytest.skip("no grammar writes calls of this syntax")
    model, taken = call_model(tool_format.name, control=False), 0
    for text, tools, _, arguments in _printed(name, in_order=True):
        schema = tools[0]["function"]["parameters"]
        if jsonschema.Draft202012Validator(schema).is_valid(arguments):
            assert model.grammar(ToolChoice("required"), tools=tools).accepts(model.ids(text)), text
            taken += 1
    assert taken > 10
