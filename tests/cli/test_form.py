# SPDX-License-Identifier: Apache-2.0
"""`freehold run` with a form: flags, files, refusals."""

from __future__ import annotations

import json
import re

import pytest

import tiny_chat
from freehold.cli import _text
from freehold.cli.main import run


@pytest.fixture(autouse=True)
def nothing_on_stdin(monkeypatch):
    monkeypatch.setattr(_text, "stdin_has_text", lambda: False)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_chat.write(tmp_path_factory.mktemp("m") / "tiny.gguf"))


SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
          "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize("raw", [False, True])
def test_answers_have_the_form_asked_for(model, tmp_path, capsys, raw):
    schema, grammar = tmp_path / "s.json", tmp_path / "g.lark"
    schema.write_text(json.dumps(SCHEMA))
    grammar.write_text('start: "(" ("x" | "y") ")"')
    for flags, pattern in (
        (["--schema", str(schema)], r'\{"a": [12]\}'),
        (["--regex", "[ab]{3}"], "[ab]{3}"),
        (["--choice", "red", "--choice", "dark blue"], "red|dark blue"),
        (["--grammar", str(grammar)], r"\([xy]\)"),
    ):
        args = ["run", model, "hi", "--temperature", "1.5", *flags, *(["--raw"] if raw else [])]
        assert run(args) == 0
        assert re.fullmatch(pattern, capsys.readouterr().out.rstrip("\n"))


def test_any_object_and_an_answer_that_was_cut(model, capsys):
    assert run(["run", model, "hi", "--json-object", "--max-tokens", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "{\n"
    assert "cut before its form was complete" in captured.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--regex", "a", "--choice", "b"], "--regex and --choice"),
        (["--regex", "("], "no answer of this form"),
        (["--schema", "{no}"], "{no} holds no JSON"),
        (["--schema", "{not}"], "the schema uses not"),
        (["--grammar", "{lark}"], "no answer of this form"),
        (["--schema", "/nowhere/s.json"], "/nowhere/s.json"),
    ],
)
def test_what_cannot_be_kept_is_one_sentence(model, tmp_path, capsys, flags, says):
    files = {"no": "{", "not": '{"not": {}}', "lark": "start: nobody"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = {name: str(tmp_path / name) for name in files}
    filled = [flags[0], *(f.format(**paths) if f.startswith("{") else f for f in flags[1:])]
    assert run(["run", model, "hi", *filled]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    said = says.format(**paths) if "{" in says else says
    assert said in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
