# SPDX-License-Identifier: Apache-2.0
"""`freehold run`: the prompt that is put together, the text that is streamed, the JSON."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from command_line import BABY_Q8, DEVICES, STORIES, STORIES_ANSWERS, STORIES_HF, model, process

from freehold import LLM, SamplingParams
from freehold.cli import _text, console
from freehold.cli.main import run

GREEDY = ("--temperature", "0", "--max-tokens", "48")


@pytest.fixture(autouse=True)
def nothing_on_stdin(monkeypatch):
    """Tests run with whatever stdin the runner has; the command must not read it."""
    monkeypatch.setattr(_text, "stdin_has_text", lambda: False)


def story_text(ids: list[int]) -> str:
    with LLM(model(*STORIES), backend="reference") as llm:
        return llm.tokenizer.decode(ids)


@pytest.mark.parametrize("device", DEVICES)
def test_the_story_is_the_references(device, capsys):
    answer = json.loads(Path(model(*STORIES_ANSWERS)).read_text())["greedy"][0]
    args = ["run", model(*STORIES), answer["prompt"], "--backend", device, *GREEDY]
    assert run(args) == 0
    captured = capsys.readouterr()
    whole = story_text(answer["prompt_ids"][1:] + answer["continuation_ids"])
    assert answer["prompt"] + captured.out == whole + "\n"
    assert captured.err == ""
    assert run([*args, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["token_ids"] == answer["continuation_ids"]
    assert result["prompt_token_ids"] == answer["prompt_ids"]


def test_json_holds_everything_a_program_needs(capsys):
    args = ["run", model(*STORIES), "Once", "--backend", "reference", "--json", "--logprobs", "2"]
    assert run([*args, "--max-tokens", "5", "--temperature", "0", "--seed", "3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finish_reason"] == "length"
    assert len(result["token_ids"]) == len(result["logprobs"]) == 5
    assert len(result["logprobs"][0]["top"]) == 2
    assert result["sampling"]["seed"] == 3
    assert not result["context_full"]
    assert set(result["timings"]) >= {"load_seconds", "prefill_seconds", "decode_seconds"}
    assert all(seconds >= 0 for seconds in result["timings"].values())


def test_every_sampling_flag_is_accepted_and_recorded(capsys):
    flags = {
        "--max-tokens": 3, "--temperature": 0.7, "--top-k": 5, "--top-p": 0.9, "--min-p": 0.05,
        "--typical-p": 0.9, "--top-n-sigma": 2.0, "--xtc-probability": 0.1, "--xtc-threshold": 0.2,
        "--repetition-penalty": 1.1, "--presence-penalty": 0.1, "--frequency-penalty": 0.1,
        "--penalty-last-n": 64, "--dry-multiplier": 0.8, "--dry-base": 1.8,
        "--dry-allowed-length": 3, "--dry-penalty-last-n": 32, "--seed": 11, "--min-tokens": 1,
        "--logprobs": 1, "--prompt-logprobs": 1,
    }  # fmt: skip
    args = [str(part) for pair in flags.items() for part in pair]
    args += ["--stop", "zzz", "--stop-token-id", "2", "--logit-bias", "13=-1.5", "--ignore-eos"]
    args += ["--dry-sequence-breaker", "!", "--sampler-order", "penalties,top_k,temperature"]
    assert run(["run", model(*STORIES), "Once", "--backend", "reference", "--json", *args]) == 0
    sampling = json.loads(capsys.readouterr().out)["sampling"]
    for flag, value in flags.items():
        assert sampling[flag[2:].replace("-", "_")] == value
    assert sampling["stop"] == ["zzz"]
    assert sampling["logit_bias"] == {"13": -1.5}
    assert sampling["ignore_eos"] is True


def test_verbose_and_logprobs_go_to_stderr(capsys):
    args = ["run", model(*STORIES), "Once", "--backend", "reference", *GREEDY]
    assert run(args) == 0
    plain = capsys.readouterr().out
    assert run([*args, "--verbose", "--logprobs", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == plain
    assert "tok/s" in captured.err
    assert "logprob" in captured.err


def test_the_end_of_the_context_is_said(capsys):
    args = ["run", model(*STORIES), "Once", "--backend", "reference", "--temperature", "0"]
    assert run([*args, "--context", "24", "--ignore-eos"]) == 0
    assert "context of 24 tokens is full" in capsys.readouterr().err
    assert run([*args, "--max-tokens", "3"]) == 0
    assert capsys.readouterr().err == ""


def test_speculation_changes_nothing_in_the_text(capsys):
    args = ["run", model(*STORIES), "One day, a boy named Tim", "--backend", "reference", *GREEDY]
    assert run(args) == 0
    plain = capsys.readouterr().out
    assert run([*args, "--speculative-tokens", "4"]) == 0
    assert capsys.readouterr().out == plain


# -- where the prompt comes from -----------------------------------------------------------------


def prompt_of(capsys, *args: str) -> str:
    """The prompt text the model saw."""
    path = model(*STORIES)
    assert run(["run", path, *args, "--backend", "reference", "-n", "1", "--json"]) == 0
    ids = json.loads(capsys.readouterr().out)["prompt_token_ids"]
    return story_text(ids[1:])


def test_prompt_files_and_stdin_are_joined_by_empty_lines(tmp_path, capsys, monkeypatch):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("first file\n")
    second.write_text("second\nfile")
    files = ["--file", str(first), "-f", str(second)]
    assert prompt_of(capsys, "Sum up", *files) == "Sum up\n\nfirst file\n\nsecond\nfile"
    monkeypatch.setattr(_text, "stdin_has_text", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\n")))
    assert prompt_of(capsys, *files[:2]) == "first file\n\npiped"


def test_stdin_alone_is_the_prompt():
    path = model(*STORIES)
    args = ("--backend", "reference", "-n", "4", "-t", "0")
    piped = process("run", path, *args, stdin="Once upon a time\n")
    typed = process("run", path, "Once upon a time", *args)
    assert piped.returncode == typed.returncode == 0
    assert piped.out == typed.out != ""


# -- chat template and recommendations -----------------------------------------------------------


@pytest.fixture
def chatty(tmp_path) -> str:
    for file in Path(model(*STORIES_HF)).iterdir():
        shutil.copy(file, tmp_path / file.name)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}Once"
    )
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.3, "top_k": 4}')
    return str(tmp_path)


def result_of(capsys, *args: str) -> tuple[dict, str]:
    assert run(["run", *args, "--backend", "reference", "-n", "2", "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_the_template_is_used_unless_raw(chatty, capsys):
    result, _ = result_of(capsys, chatty, "hi", "--system", "Be kind")
    assert story_text(result["prompt_token_ids"][1:]) == "system: Be kind\nuser: hi\nOnce"
    result, _ = result_of(capsys, chatty, "hi", "--raw")
    assert story_text(result["prompt_token_ids"][1:]) == "hi"


def test_a_system_message_needs_a_template(chatty, capsys):
    assert run(["run", chatty, "hi", "--raw", "--system", "x", "--backend", "reference"]) == 2
    assert run(["run", model(*STORIES), "hi", "--system", "x", "--backend", "reference"]) == 2
    assert "chat template" in capsys.readouterr().err


def test_the_vendors_sampling_is_used_visibly(chatty, capsys):
    result, err = result_of(capsys, chatty, "hi", "--top-k", "9")
    assert (result["sampling"]["temperature"], result["sampling"]["top_k"]) == (0.3, 9)
    assert "temperature 0.3" in err
    assert "top_k" not in err  # overridden by the flag
    result, err = result_of(capsys, chatty, "hi", "--no-recommended")
    assert result["sampling"]["temperature"] == 1.0
    assert err == ""


# -- what a terminal may be shown ----------------------------------------------------------------


def test_control_characters_reach_pipes_but_not_terminals(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((io.StringIO(), "a\x1b[2Jb\n"), (Terminal(), "a\\x1b[2Jb\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        console.data("a\x1b[2Jb")
        assert stream.getvalue() == shown


def test_quantised_weights_tell_the_same_story(capsys):
    reference = json.loads(
        Path(model("weights", "babyllama105", "reference.json")).read_text()
    )["greedy"][0]  # fmt: skip
    args = ["run", model(*BABY_Q8), reference["prompt"], "--backend", "reference", "-t", "0"]
    assert run([*args, "-n", "20", "--json"]) == 0
    ids = json.loads(capsys.readouterr().out)["token_ids"]
    assert ids == reference["continuation_ids"][:20]


def test_params_are_checked_before_a_file_is_opened(capsys):
    assert run(["run", "no-such-file.gguf", "hi", "--top-p", "7"]) == 2
    assert "top_p" in capsys.readouterr().err
    with pytest.raises(ValueError, match="top_p"):
        SamplingParams(top_p=7)
