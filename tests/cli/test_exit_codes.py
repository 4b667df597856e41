# SPDX-License-Identifier: Apache-2.0
"""Mistakes of every kind: one sentence, a hint at most, exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import GPT2_VOCAB, PHI, STORIES, cut, model, process, refused

from freehold.cli import main as cli
from freehold.errors import EngineError, ModelNotFoundError
from shared_data import SHARED_DATA

REFERENCE = ("--backend", "reference", "--max-tokens", "4")
MODEL_COMMANDS = [("run", "{}", "hello", *REFERENCE), ("show", "{}"), ("tokenize", "{}", "hello"),
                  ("bench", "{}", "--backend", "reference"), ("chat", "{}"),
                  ("demo", "--model", "{}"),
                  ("quantize", "{}", "out.gguf", "--type", "Q8_0")]  # fmt: skip


def cases(folder: str) -> list:
    path = SHARED_DATA / "malformed" / folder / "cases.json"
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip(reason="conformance data is not here"))]
    return [
        pytest.param(str(path.parent / case["file"]), id=case["file"])
        for case in json.loads(path.read_text())
        if case["expect"] == "reject"
    ]


@pytest.mark.parametrize("command", MODEL_COMMANDS, ids=lambda command: command[0])
def test_a_path_without_a_model(command, tmp_path):
    sentence = refused(process(*[arg.format("no-such.gguf") for arg in command], cwd=tmp_path))
    assert "no-such.gguf" in sentence
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("command", MODEL_COMMANDS, ids=lambda command: command[0])
def test_a_truncated_file(command, tmp_path):
    path = cut(model(*STORIES), 5000, tmp_path / "cut.gguf")
    refused(process(*[arg.format(path) for arg in command], cwd=tmp_path))


@pytest.mark.parametrize("path", ["", "/", "/dev/null", "/etc", "a" * 5000, "nul\nline.gguf"])
def test_paths_that_are_no_models(path, tmp_path):
    refused(process("show", path, cwd=tmp_path))


def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "secret.gguf" in refused(process("show", str(path)))


def test_an_architecture_freehold_lacks():
    refused(process("run", model(*PHI), "hello", *REFERENCE))
    sentence = refused(
        process("run", model("malformed", "gguf", "model_unknown_architecture.gguf"), "hello",
                *REFERENCE)
    )  # fmt: skip
    assert "zorkformer" in sentence


@pytest.mark.parametrize("path", cases("gguf") + cases("safetensors"))
def test_malformed_files_are_refused_with_a_sentence(path, capsys):
    code = cli.run(["run", path, "hello", *REFERENCE])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) <= 2
    assert captured.out == ""


@pytest.mark.parametrize(
    "flags",
    [
        ["--temperature", "-1"], ["--temperature", "nan"], ["--temperature", "warm"],
        ["--top-p", "0"], ["--top-k", "-3"], ["--max-tokens", "0"], ["--max-tokens", "1.5"],
        ["--seed", "-1"], ["--logit-bias", "x"], ["--logit-bias", "1=nan"], ["--stop", ""],
        ["--sampler-order", "top_k,top_k"], ["--logprobs", "-1"], ["--kv-type", "f8"],
        ["--context", "0"], ["--context", "-5"], ["--threads", "0"], ["--backend", "abacus"],
        ["--speculative-tokens", "-1"], ["--no-such-option"], ["--seed"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_impossible_parameters(flags, capsys):
    code = cli.run(["run", model(*STORIES), "hello", "--backend", "reference", *flags])
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) <= 2
    assert captured.out == ""


def test_a_prompt_longer_than_the_context():
    sentence = refused(
        process("run", model(*STORIES), "once upon a time " * 40, "--context", "32", *REFERENCE)
    )
    assert "32" in sentence


def test_a_context_longer_than_the_models_own():
    refused(process("run", model(*STORIES), "hello", "--context", "1000000", *REFERENCE))


def test_a_vocabulary_is_no_model():
    refused(process("run", model(*GPT2_VOCAB), "hello", *REFERENCE))


@pytest.mark.parametrize("args", [["nope"], ["--nope"], ["run"], ["show"], ["show", "a", "b"]])
def test_wrong_command_lines(args):
    refused(process(*args))


def test_a_misspelled_command_is_recognised():
    result = process("shwo")
    assert "freehold show" in result.err


def test_prompts_that_are_no_text(tmp_path):
    binary = tmp_path / "data.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    story = model(*STORIES)
    assert "data.bin" in refused(process("run", story, "--file", str(binary), *REFERENCE))
    assert "absent.txt" in refused(process("run", story, "--file", "absent.txt", *REFERENCE))
    refused(process("run", story, "--file", str(tmp_path), *REFERENCE))
    assert "stdin" in refused(process("run", story, *REFERENCE, stdin=b"\xff"))
    refused(process("run", story, *REFERENCE))
    refused(process("tokenize", story, stdin=b"\xff"))


def test_an_endless_file_is_no_prompt():
    if not Path("/dev/zero").exists():
        pytest.skip("no /dev/zero here")
    # `process` waits a minute for it, and reading it all would take for ever.
    refused(process("run", model(*STORIES), "--file", "/dev/zero", *REFERENCE))


def test_a_reader_that_goes_away():
    script = f"{sys.executable} -m freehold.cli.main run --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert done.returncode in (0, cli.EXIT_BROKEN_PIPE)


def test_ctrl_c_ends_a_command_quietly():
    args = [sys.executable, "-m", "freehold.cli.main", "tokenize", model(*STORIES)]
    child = subprocess.Popen(
        args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(1.0)  # it now waits for stdin
    child.send_signal(signal.SIGINT)
    try:
        _, err = child.communicate(timeout=20)
    finally:
        child.kill()
    assert child.returncode == cli.EXIT_INTERRUPTED
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ModelNotFoundError("no such thing", hint="look elsewhere"), 2, "hint: look elsewhere"),
        (EngineError("the impossible happened"), 1, "error: the impossible happened"),
        (MemoryError(), 1, "memory"),
        (PermissionError(13, "Permission denied", "x.gguf"), 2, "x.gguf: Permission denied"),
        (OSError(28, "No space left on device", "y.gguf"), 1, "No space left"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_kind_of_error_has_its_code(error, code, words, monkeypatch, capsys):
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(cli, "load_command", fail)
    assert cli.run(["show", "x"]) == code
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) <= 2


def test_a_bug_is_a_sentence_unless_a_traceback_is_asked_for(monkeypatch, capsys):
    def fail(name: str) -> None:
        raise KeyError("oops\nsecond line")

    monkeypatch.setattr(cli, "load_command", fail)
    monkeypatch.setattr(sys, "argv", ["freehold", "show", "x"])
    assert cli.main() == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2
    assert "KeyError" in err
    monkeypatch.setattr(sys, "argv", ["freehold", "--traceback", "show", "x"])
    with pytest.raises(KeyError):
        cli.main()


def test_names_in_files_cannot_steer_the_terminal(capsys):
    from freehold.cli import console

    console.failure("file \x1b[2J\x07name\nsecond", "hint \u202e")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert "\u202e" not in err
    assert len(err.splitlines()) == 2
