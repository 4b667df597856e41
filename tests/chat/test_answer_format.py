# SPDX-License-Identifier: Apache-2.0
"""From a model's files to its answer format, and from token ids to parsed answers."""

from __future__ import annotations

import json

import pytest
from chat_data import DATA, gguf_metadata_tokenizer, need

import tiny_chat
from freehold import LLM
from freehold._llm_request import Request
from freehold.chat.answer_format import answer_format, prompt_tail
from freehold.engine.sequence import StepOutput
from freehold.errors import TokenizerError
from freehold.types import SamplingParams, ToolCall

EXPECTED = {
    "Apertus-8B-Instruct": ("apertus", "apertus"),
    "Bielik-11B-v3.0-Instruct": ("hermes", "think"),
    "CohereForAI-c4ai-command-r-plus-tool_use": ("command_r_plus", None),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": ("command_r7b", "command_r"),
    "GigaChat3.1-10B-A1.8B": ("gigachat", None),
    "Kimi-K2-Thinking": ("kimi_k2", "think"),
    "LFM2-8B-A1B": ("lfm2", None),
    "LFM2.5-Instruct": ("lfm2", "think"),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ("qwen3_coder", "think"),
    "NVIDIA-Nemotron-Nano-v2": ("nemotron_v2", "think"),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("hermes", None),
    "Qwen-QwQ-32B": ("hermes", "think"),
    "Qwen-Qwen2.5-7B-Instruct": ("hermes", None),
    "Qwen3-Coder": ("qwen3_coder", None),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("deepseek_v3", "think"),
    "deepseek-ai-DeepSeek-V3.1": ("deepseek_v31", "think"),
    "google-gemma-4-31B-it-interleaved": ("gemma4", "gemma4"),
    "ibm-granite-granite-3.3-2B-Instruct": ("granite", "granite"),
    "meetkai-functionary-medium-v3.1": ("functionary_v31", None),
    "meta-llama-Llama-3.3-70B-Instruct": ("llama3_json", None),
    "microsoft-Phi-3.5-mini-instruct": (None, None),
    "mistralai-Ministral-3-14B-Reasoning-2512": ("mistral_args", "mistral"),
    "openai-gpt-oss-120b": ("harmony", None),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_templates_tell_the_format(name):
    source = need(DATA / "templates" / "jinja" / f"{name}.jinja").read_text(encoding="utf-8")
    found = answer_format([source], None)
    names = tuple(part and part.name for part in (found.tool_format, found.reasoning))
    assert names == EXPECTED[name]


TOKENS = [*tiny_chat.byte_tokens(), "<s>", "</s>", "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"]


def _tokenizer():
    return gguf_metadata_tokenizer(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "tekken",
            "tokenizer.ggml.tokens": TOKENS,
            "tokenizer.ggml.token_type": [1] * 256 + [3] * 6,
            "tokenizer.ggml.merges": [],
            "tokenizer.ggml.bos_token_id": 256,
            "tokenizer.ggml.eos_token_id": 257,
        }
    )


def test_control_tokens_reach_the_parser_and_others_stay_hidden():
    tokenizer = _tokenizer()
    found = answer_format([], tokenizer)  # the vocabulary alone
    visible = found.visible_ids(tokenizer)
    assert {tokenizer.token_text(i) for i in visible} == set(TOKENS[258:])
    ids = tokenizer.encode('[THINK]hm[/THINK]ok<s>[TOOL_CALLS]f[ARGS]{"a": 1}', parse_special=True)
    request = Request(
        ids[:1], SamplingParams(), tokenizer, continues=False,
        parser=found.parser(prompt_tail(tokenizer, ids[:1])), visible=visible,
    )  # fmt: skip
    for i in ids[1:]:
        request.take(StepOutput("r", (i,)))
    request.take(StepOutput("r", (257,), finished="stop", stop_reason=257))
    events = list(request.events)
    whole = request.result()
    assert (whole.text, whole.reasoning) == ("ok", "hm")
    assert whole.tool_calls == (ToolCall(0, "f", '{"a": 1}'),)
    assert "".join(e.text for e in events) == "ok"
    assert "".join(e.reasoning for e in events) == "hm"
    assert [c for e in events for c in e.tool_calls] == list(whole.tool_calls)


def test_chat_with_tools_takes_the_template_for_tools(tmp_path):
    plain = tiny_chat.TEMPLATE
    tools = "TOOLS {{ tools | tojson }}" + plain + "{# <tool_call> #}"
    path = tiny_chat.write(
        tmp_path / "two.gguf",
        template=[  # type: ignore[arg-type]
            {"name": "default", "template": plain},
            {"name": "tool_use", "template": tools},
        ],
    )
    message = [{"role": "user", "content": "hi"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with LLM(path, context_length=512) as llm:
        without = llm.tokenizer.decode(llm.chat_ids(message))
        assert "TOOLS" not in without
        with_tools = llm.tokenizer.decode(llm.chat_ids(message, tools=[tool]))
        assert with_tools == "TOOLS " + json.dumps([tool]) + without
        assert llm.answer_format.tool_format.name == "hermes"
        answer = llm.chat(message, SamplingParams(max_tokens=8, seed=1), tools=[tool])
        assert answer.tool_calls == ()
        assert len(answer.token_ids) <= 8


def test_an_unknown_splitter_is_refused_until_one_is_named(tmp_path):
    path = tiny_chat.write(tmp_path / "odd.gguf")
    path.write_bytes(path.read_bytes().replace(b"gpt-2", b"gpt-x"))
    with pytest.raises(TokenizerError, match=r"gpt-x.*--pre"):
        LLM(path, context_length=512)
    with LLM(path, context_length=512, pre="gpt-2") as llm:
        assert llm.tokenizer.decode(llm.tokenizer.encode("the", add_special=False)) == "the"
