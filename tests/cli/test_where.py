# SPDX-License-Identifier: Apache-2.0
"""Who answers a job from the command line: servers, or workers on Ray; and flags that do not go
together."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from documents.fake_endpoint import fake_endpoint, obliging
from freehold.builtin import sample_documents
from freehold.cli.main import run
from freehold.cli.options import EngineFlags
from freehold.errors import InvalidParameterError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("FREEHOLD_ENDPOINT_KEY", "quite secret")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"note {number}")
    return folder


def test_a_fleet_answers_and_the_key_stays_out_of_the_books(
    notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(path, body):  # type: ignore[no-untyped-def]
        if path == "/v1/models/org/model":
            return 200, {}, {"id": "org/model"}
        return obliging(path, body)

    out = tmp_path / "out.jsonl"
    with fake_endpoint(script) as one, fake_endpoint(script) as two:
        code = run(
            ["summarize", str(notes), "--model", "org/model", "--endpoint", one.url,
             "--endpoint", two.url, "--out", str(out)]
        )  # fmt: skip
        asked = one.seen + two.seen
    assert code == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["value"]["summary"] for line in lines] == ["A line."] * 5
    assert {head.get("Authorization") for _, head, _ in asked} == {"Bearer quite secret"}
    assert {body["model"] for path, _, body in asked if path.endswith("completions")} == {
        "org/model"
    }
    kept = [path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert kept
    assert not any(b"quite secret" in content for content in kept)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--endpoint", "http://127.0.0.1:9/v1", "--executor", "ray"], "give one"),
        (["--endpoint", "http://u:p@127.0.0.1:9/v1"], "FREEHOLD_ENDPOINT_KEY"),
        (["--endpoint", "nowhere"], "no address"),
        (["--endpoint", "http://127.0.0.1:9/v1", "--adapter", "x"], "BASE:ADAPTER"),
        (["--executor", "ray", "--workers", "0"], "at least one worker"),
    ],
    ids=str,
)
def test_what_does_not_go_together(
    notes: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert run(["summarize", str(notes), *more]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_without_ray_a_sentence_says_what_to_install(
    notes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(["summarize", str(notes), "--executor", "ray"]) == 2
    assert "freehold[ray]" in capsys.readouterr().err


def test_documents_are_read_with_drafts_unless_told_otherwise() -> None:
    assert EngineFlags().settings()["speculative_tokens"] == 0
    assert EngineFlags().for_documents().settings()["speculative_tokens"] > 0
    for given in (0, 7):
        flags = EngineFlags(speculative_tokens=given).for_documents()
        assert flags.settings()["speculative_tokens"] == given


@pytest.mark.parametrize(
    ("command", "drafts"),
    [(["summarize"], True), (["extract", "--fields", "a"], True), (["code"], True),
     (["classify", "--labels", "a,b"], True), (["demo"], True), (["run", "seedling"], False)],
)  # fmt: skip
def test_which_commands_draft(
    command: list[str], drafts: bool, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def refuse(self: EngineFlags, model: str, **overrides: object) -> None:
        opened.append(self.settings()["speculative_tokens"])
        raise InvalidParameterError("seen")

    monkeypatch.setattr(EngineFlags, "open", refuse)
    assert run([*command, str(notes)]) == 2
    assert [count > 0 for count in opened] == [drafts]


@pytest.mark.parametrize("words", [["summarize"], ["extract", "--fields", "supplier,total:number"]])
def test_drafts_change_no_answer(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for drafts in ("0", "4"):
        out = tmp_path / f"{drafts}.jsonl"
        command = [
            words[0],
            str(sample_documents()),
            *words[1:],
            "--out",
            str(out),
            "--job",
            drafts,
        ]
        assert run([*command, "--speculative-tokens", drafts]) == 0, capsys.readouterr().err
        answers.append([json.loads(line)["value"] for line in out.read_text().splitlines()])
    assert answers[0] == answers[1]
