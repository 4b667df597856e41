# SPDX-License-Identifier: Apache-2.0
"""`freehold quantize`: writes what it says, and nothing when it refuses."""

from __future__ import annotations

import json

from command_line import BABY_Q8, STORIES, STORIES_HF, model

from freehold.cli.main import run


def test_q8_0_from_both_formats(tmp_path, capsys):
    for number, source in enumerate((model(*STORIES), model(*STORIES_HF))):
        target = tmp_path / f"{number}.gguf"
        assert run(["quantize", source, str(target), "--type", "Q8_0", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["bytes"] == target.stat().st_size
        assert report["bytes"] < report["source_bytes"]
        assert "Q8_0" in report["types"]
        assert run(["show", str(target), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["runs"]
        assert {group["type"]: group["tensors"] for group in shown["types"]} == report["types"]


def test_data_goes_to_stdout_only_when_asked_for(tmp_path, capsys):
    target = tmp_path / "out.gguf"
    assert run(["quantize", model(*STORIES), str(target), "--type", "Q8_0"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wrote" in captured.err


def test_an_existing_file_is_kept_unless_forced(tmp_path, capsys):
    target = tmp_path / "out.gguf"
    target.write_bytes(b"precious")
    args = ["quantize", model(*STORIES), str(target), "--type", "Q8_0"]
    assert run(args) == 2
    assert target.read_bytes() == b"precious"
    assert "--force" in capsys.readouterr().err
    assert run([*args, "--force"]) == 0
    assert target.read_bytes()[:4] == b"GGUF"
    capsys.readouterr()


def test_quantising_twice_must_be_asked_for(tmp_path, capsys):
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    source = model(*BABY_Q8)
    assert run(["quantize", source, str(first), "--type", "Q4_0", "--allow-requantize"]) == 0
    args = ["quantize", str(first), str(second), "--type", "Q8_0"]
    assert run(args) == 2
    assert not second.exists()
    assert "--allow-requantize" in capsys.readouterr().err
    assert run([*args, "--allow-requantize"]) == 0
    assert second.exists()


def test_an_unknown_type_names_the_known_ones(tmp_path, capsys):
    target = tmp_path / "out.gguf"
    assert run(["quantize", model(*STORIES), str(target), "--type", "Q9_Z"]) == 2
    err = capsys.readouterr().err
    assert "Q9_Z" in err
    assert "Q4_K_M" in err
    assert not target.exists()
