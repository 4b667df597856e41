# SPDX-License-Identifier: Apache-2.0
"""`freehold tokenize`: exact ids and exact bytes, also from a vocabulary alone."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import GPT2_VOCAB, STORIES, STORIES_ANSWERS, model, process

from freehold.cli.main import run


def ids_of(capsys, *args: str) -> list[int]:
    assert run(["tokenize", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["ids"]


def test_reference_ids(capsys):
    answers = json.loads(Path(model(*STORIES_ANSWERS)).read_text())
    for answer in answers["greedy"]:
        assert ids_of(capsys, model(*STORIES), answer["prompt"]) == answer["prompt_ids"]


def test_no_special_leaves_the_begin_token_out(capsys):
    whole = ids_of(capsys, model(*STORIES), "Once")
    assert ids_of(capsys, model(*STORIES), "Once", "--no-special") == whole[1:]


def test_names_of_control_tokens_are_text_unless_asked_for(capsys):
    plain = ids_of(capsys, model(*STORIES), "a</s>", "--no-special")
    parsed = ids_of(capsys, model(*STORIES), "a</s>", "--no-special", "--parse-special")
    assert 2 not in plain
    assert parsed[-1] == 2


def test_stdin_is_taken_byte_for_byte(capsys):
    path = model(*GPT2_VOCAB)
    text = "tabs\tand\nnewlines \n😀 naïve 世界 <s> a\\n\r\n"
    from_stdin = json.loads(process("tokenize", path, "--json", stdin=text).out)
    assert from_stdin["ids"] == ids_of(capsys, path, text)
    assert len(from_stdin["tokens"]) == len(from_stdin["ids"])


def test_an_empty_text_has_no_tokens_of_its_own(capsys):
    assert ids_of(capsys, model(*GPT2_VOCAB), "") == []
    assert run(["tokenize", model(*GPT2_VOCAB), ""]) == 0
    assert capsys.readouterr().out == ""


def test_one_line_per_token(capsys):
    assert run(["tokenize", model(*GPT2_VOCAB), "a\nb \\ \t世"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split("\t", 1) for line in lines]
    assert [int(number) for number, _ in shown] == ids_of(
        capsys, model(*GPT2_VOCAB), "a\nb \\ \t世"
    )
    joined = "".join(text for _, text in shown)
    # Undoing the escapes gives the bytes back.
    assert (
        joined.encode("latin-1", "backslashreplace").decode("unicode_escape").encode("latin-1")
        == "a\nb \\ \t世".encode()
    )
