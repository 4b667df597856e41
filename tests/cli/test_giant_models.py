# SPDX-License-Identifier: Apache-2.0
"""From a vendor's directory to a conversation, for Llama 4, Muse Glimmer and gpt-oss: convert, look
at, run and chat, with the vendor's markers in the vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import DEVICES
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

import tiny_chat
import tiny_giants
from freehold import LLM, SamplingParams
from freehold.chat.output_parser import OutputParser
from freehold.chat.pretokenizers import PRE_SPLITTERS
from freehold.cli.main import run
from shared_data import shared_path

# In the vendor's order; the rest of the vocabulary is one token for each byte.
SPECIAL = {
    "llama4": ["<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>",
               "<|eom|>", "<|eot|>", "<|python_start|>", "<|python_end|>"],
    "muse-glimmer": ["<|begin_of_text|>", "<|end_of_text|>", "<|start|>", "<|message|>", "<|eom|>",
                     "<|eot|>"],
    "gpt-oss": ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>",
                "<|start|>", "<|end|>", "<|message|>", "<|call|>"],
}  # fmt: skip
ENDS = {  # of generation_config.json, and of the tokenizer's settings
    "llama4": (["<|end_of_text|>", "<|eom|>", "<|eot|>"], "<|eot|>"),
    "muse-glimmer": (["<|end_of_text|>", "<|eot|>"], "<|end_of_text|>"),
    "gpt-oss": (["<|return|>", "<|endoftext|>", "<|call|>"], "<|return|>"),
}
_TURNS = (
    "{{% for m in messages %}}{start}{{{{ m.role }}}}{middle}{{{{ m.content }}}}<|eot|>"
    "{{% endfor %}}{{% if add_generation_prompt %}}{start}assistant{after}{{% endif %}}"
)
TEMPLATES = {
    "llama4": "<|begin_of_text|>"
    + _TURNS.format(start="<|header_start|>", middle="<|header_end|>\n\n",
                    after="<|header_end|>\n\n")
    + "{# [func_name1(params_name1=params_value1)] #}",
    # The reply's own header says to whom it goes.
    "muse-glimmer": "<|begin_of_text|>"
    + _TURNS.format(start="<|start|>", middle="<|message|>", after="")
    + "{# <atem:function_calls> #}",
}  # fmt: skip


def vendor_directory(case: str, folder: Path) -> Path:
    """Random weights, and a tokenizer with the family's control tokens and template."""
    specials = SPECIAL[case]
    tokens = {text: i for i, text in enumerate(tiny_chat.byte_tokens())}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    splitter = PRE_SPLITTERS["gpt-4o"]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        *(pre_tokenizers.Split(Regex(p), "isolated") for p in splitter.passes),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    ids = {text: tokenizer.token_to_id(text) for text in specials}
    ends, eos = ENDS[case]
    sizes = {"vocab_size": 320, "max_position_embeddings": 1024}
    special_ids = {"bos_token_id": ids[specials[0]], "eos_token_id": ids[eos]}
    tiny_giants.build(case, **sizes, **special_ids).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": specials[0],
                "eos_token": eos, "add_bos_token": False}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    generation = {"eos_token_id": [ids[text] for text in ends], "bos_token_id": ids[specials[0]]}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    if case == "gpt-oss":
        source = shared_path("templates", "jinja", "openai-gpt-oss-120b.jinja").read_text()
    else:
        source = TEMPLATES[case]
    (folder / "chat_template.jinja").write_text(source)
    return folder


@pytest.fixture(scope="module", params=["llama4", "muse-glimmer", "gpt-oss"])
def model(request, tmp_path_factory):
    """The case, the vendor's directory and what `freehold quantize` made of it."""
    root = tmp_path_factory.mktemp("vendor")
    folder = vendor_directory(request.param, root / "hf")
    target = root / "model.gguf"
    assert run(["quantize", str(folder), str(target), "--type", "Q8_0"]) == 0
    return request.param, folder, target


@pytest.mark.parametrize("device", DEVICES)
def test_quantised_files_run(device, model, capsys):
    _, _, target = model
    args = ["run", str(target), "Tell me", "--backend", device, "--json", "-n", "6", "-t", "0"]
    assert run(args) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["token_ids"]) <= 6
    assert result["finish_reason"] in ("length", "stop")


def test_show_speaks_of_the_family(model, capsys):
    case, folder, target = model
    for path, architecture in ((target, case), (folder, case.replace("-", "_"))):
        assert run(["show", str(path), "--json"]) == 0
        described = json.loads(capsys.readouterr().out)
        assert described["architecture"].removesuffix("_text") == architecture
        assert described.get("refusal") is None
        assert described["rope"]["base"] == 10000.0
        sizes = described["sizes"]
        reach = {"llama4": (0, 8), "muse-glimmer": (8, 0), "gpt-oss": (8, 0)}[case]
        assert (sizes["sliding_window"], sizes["chunk"]) == reach
        assert (sizes["num_experts"] or 0) == {"llama4": 4, "gpt-oss": 6}.get(case, 0)
    assert run(["show", str(target)]) == 0
    shown = capsys.readouterr().out
    assert case in shown
    assert ("chunks of 8" if case == "llama4" else "window 8") in shown


def test_every_end_token_ends(model):
    """Those that only generation_config.json names come along; what ends a message alone is none
    in the formats that go on after it."""
    case, folder, target = model
    ends = set(ENDS[case][0])
    for path in (folder, target):
        with LLM(str(path), backend="null") as llm:
            found = {llm.tokenizer.token_text(i) for i in llm.tokenizer.eos_ids}
            assert found == ends, path
            assert llm.chat_template is not None


def test_conversations_are_rendered_and_answered(model):
    case, _, target = model
    with LLM(str(target), backend="reference") as llm:
        prompt = llm.chat_ids([{"role": "user", "content": "Hi <|eot|><|end|>"}])
        texts = [llm.tokenizer.token_text(i) for i in prompt]
        opening = "<|header_start|>" if case == "llama4" else "<|start|>"
        assert texts.count(opening) >= 2
        assert texts.count(SPECIAL[case][0]) == (0 if case == "gpt-oss" else 1)
        # Markers in what the user says are text.
        ends = {"<|eot|>", "<|end|>"} & set(SPECIAL[case])
        assert sum(texts.count(end) for end in ends) == (1 if case != "gpt-oss" else 2)
        params = SamplingParams(max_tokens=5, temperature=0.0)
        answer = llm.chat([{"role": "user", "content": "Hi"}], params)
        assert 0 < len(answer.token_ids) <= 5


ANSWERS = {
    "gpt-oss": (
        "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>final"
        "<|message|>It is four.<|return|>",
        "Let me see.", "It is four.", [],
    ),
    "muse-glimmer": (
        " to=self<|message|>Let me see.<|eom|><|start|>assistant<|message|>It is four.<|eot|>",
        "Let me see.", "It is four.", [],
    ),
    "llama4": ('[get_weather(city="Oslo", days=2)]<|eot|>', "", "", ["get_weather"]),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_answers_are_taken_apart(size, model):
    """As the file's own template and vocabulary say they are written."""
    case, _, target = model
    text, reasoning, content, calls = ANSWERS[case]
    with LLM(str(target), backend="null") as llm:
        prompt = llm.chat_ids([{"role": "user", "content": "Hi"}])
        parser = llm.answer_parser(prompt)
        assert isinstance(parser, OutputParser)
        visible = llm.answer_format.visible_ids(llm.tokenizer)
        ids = llm.tokenizer.encode(text, parse_special=True)
        ids = [i for i in ids if i not in llm.tokenizer.eos_ids]
        assert all(i in visible for i in ids if i >= 256 and i not in llm.tokenizer.eos_ids)
        whole = llm.tokenizer.decode(ids)
    for start in range(0, len(whole), size):
        parser.feed(whole[start : start + size])
    parser.finish()
    result = parser.result()
    assert (result.reasoning.strip(), result.content.strip()) == (reasoning, content)
    assert [call.name for call in result.tool_calls] == calls
