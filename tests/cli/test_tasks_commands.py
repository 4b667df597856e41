# SPDX-License-Identifier: Apache-2.0
"""`freehold classify`, `extract`, `summarize` as they are typed, over the built-in model."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from freehold.builtin import sample_documents
from freehold.cli import _documents
from freehold.cli.main import run
from freehold.documents.jobs import Journal, place

SAMPLES = sample_documents()
SMALL = ("--threads", "1")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_is_classified_and_calibrated(home, capsys):
    inbox = str(SAMPLES / "support-inbox.csv")
    assert run(["classify", inbox, "--labels", "billing,shipping,refund", *SMALL]) == 0
    found = lines(capsys.readouterr().out)
    assert [each["row"] for each in found] == [1, 2, 3, 4]
    for each in found:
        assert each["value"]["label"] in ("billing", "shipping", "refund")
        assert sum(each["value"]["probabilities"].values()) == pytest.approx(1.0)
        assert each["usage"]["answer_tokens"] == 0
    rows = [("the parcel is late", "shipping"), ("charged twice", "billing")] * 8
    Path("known.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows))
    words = ["classify", inbox, "-l", "billing,shipping,refund", "--job", "fitted", *SMALL]
    more = ["--abstain-below", "0.999999", "--tolerance", "0.125"]
    assert run([*words, "--calibrate", "known.csv", *more]) == 0
    captured = capsys.readouterr()
    assert "calibrated on 16 examples" in captured.err
    assert "expected calibration error" in captured.err
    assert any(each["value"]["label"] is None for each in lines(captured.out))
    with Journal.existing(place.find("fitted")) as journal:
        spec = json.dumps(journal.identity)
    assert '"temperature"' in spec
    assert '"tolerance": 0.125' in spec
    Path("other.csv").write_text("body\nthe parcel is late\n")  # its column has another name
    known = ["--calibrate", "known.csv", *SMALL]
    assert run(["classify", "other.csv", "--column", "body", "-l", "billing,shipping", *known]) == 0
    capsys.readouterr()
    Path("known.csv").write_text("text,label\nlate,delay\n")
    assert run([*words, "--calibrate", "known.csv"]) == 2
    assert "'delay', which is none of the labels" in capsys.readouterr().err


def test_invoices_are_extracted_with_evidence(home, capsys):
    pattern = str(SAMPLES / "inv*")
    fields = "supplier,invoice_number:id,total:number,due_date:date"
    assert run(["extract", pattern, "--fields", fields, "--out", "a.sqlite", *SMALL]) == 0
    assert run(["extract", pattern, "--fields", fields, *SMALL]) == 0  # known by now
    captured = capsys.readouterr()
    found = lines(captured.out)
    assert len(found) == 2
    for each in found:
        text = Path(each["source"]).read_text("utf-8")
        assert each["value"]["evidence"]
        for span in each["value"]["evidence"].values():
            assert text[span["start"] : span["end"]] == span["quote"]
    with sqlite3.connect("a.sqlite") as table:
        assert table.execute("select count(*) from answers").fetchone() == (2,)


def test_a_schema_in_a_file(home, capsys):
    Path("s.json").write_text(json.dumps({"type": "object", "properties": {"a": {"$ref": "#"}}}))
    assert run(["extract", str(SAMPLES), "--schema", "s.json"]) == 2
    assert "refers to itself" in capsys.readouterr().err


def test_stdin_is_a_document_or_a_table(home, capsys, monkeypatch):
    def piped(text: str) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    piped("The parcel never came.\n")
    assert run(["summarize", "-", *SMALL]) == 0
    (one,) = lines(capsys.readouterr().out)
    assert one["source"] == one["id"] == "stdin"
    assert one["value"]["read"] == 1.0
    piped('{"n": 1, "body": "It was late."}\n{"n": 2, "body": "Charged twice."}\n{"n": 3}\n')
    assert run(["classify", "-", "--column", "body", "-l", "late,money", *SMALL]) == 1
    first, second, third = lines(capsys.readouterr().out)
    assert (first["row"], second["row"]) == (1, 2)
    assert third["status"] == "error"
    assert "no column 'body'" in third["error"]["message"]


def test_an_empty_cell_is_told(home, capsys):
    Path("t.csv").write_text("n,body\n1,late\n2,\n3,money\n")
    assert run(["classify", "t.csv", "--column", "body", "-l", "late,money", *SMALL]) == 1
    first, second, third = lines(capsys.readouterr().out)
    assert (first["status"], third["status"], third["row"]) == ("ok", "ok", 3)
    assert second["error"]["type"] == "EmptyDocumentError"
    assert "row 2 has nothing in its column 'body'" in second["error"]["message"]


def test_answers_are_not_written_over_documents(home, capsys):
    Path("in").mkdir()
    table = Path("in/t.csv")
    table.write_text("n,body\n1,late\n")
    Path("link.csv").symlink_to(table)
    for given, out in (("in/t.csv", "in/t.csv"), ("in", "in/t.csv"), ("in/*", "link.csv")):
        assert run(["classify", given, "-l", "late,money", "--out", out, *SMALL]) == 2
        assert "write over it" in capsys.readouterr().err
        assert table.read_text() == "n,body\n1,late\n"
    Path("other.csv").write_text("old")
    assert run(["classify", "in", "-l", "late,money", "--out", "other.csv", *SMALL]) == 0
    assert "in/t.csv" in Path("other.csv").read_text()


def test_a_bar_begins_with_about_how_many_there_are(home):
    for name in ("a.txt", "b.CSV", "c.jsonl", "d.zip"):
        Path(name).write_text("x\ny\nz\n")
    assert _documents.about_how_many(["a.txt", Path("b.CSV"), "c.jsonl", "missing.csv"]) == 7
    assert _documents.about_how_many(["a.txt", "d.zip"]) is None
    assert _documents.about_how_many([]) == 0


def test_what_cannot_be_read_is_an_answer_of_its_own(home, capsys):
    Path("in").mkdir()
    Path("in/a.txt").write_text("A note.")
    Path("in/b.txt").write_bytes(b"\0\0")
    assert run(["summarize", "in", *SMALL]) == 1
    good, bad = lines(capsys.readouterr().out)
    assert good["status"] == "ok"
    assert bad["error"]["type"] == "MalformedDocumentError"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["summarize"], "which documents?"),
        (["summarize", "no-such-*.txt"], "nothing matches"),
        (["summarize", "missing.txt"], "missing.txt"),
        (["summarize", ".", "--words", "1"], "between 5 and"),
        (["classify", "."], "--labels takes a list"),
        (["classify", ".", "-l", "a"], "two or more"),
        (["classify", ".", "-l", "a,b", "--threshold", "2"], "between 0 and 1"),
        (["extract", "."], "either --fields or --schema"),
        (["extract", ".", "--fields", "a", "--schema", "x"], "either --fields or --schema"),
        (["extract", ".", "--fields", "a:colour"], "there is no type 'colour'"),
        (["extract", ".", "--schema", "missing.json"], "missing.json"),
    ],
)
def test_mistakes_are_sentences(home, capsys, words, said):
    assert run(words) == 2
    assert said in capsys.readouterr().err


def test_lists_come_in_three_ways(home):
    Path("labels.txt").write_text("one\n\n two words \n")
    assert _documents.listed(["a, b", "c"], "--labels") == ["a", "b", "c"]
    assert _documents.listed(["@labels.txt", "d"], "--labels") == ["one", "two words", "d"]


def test_every_file_once_and_in_order(home):
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("x")
    found = [str(path) for path in _documents.files_of(["b.txt", ".", "sub/*.txt", "**/*.txt"])]
    assert found == ["b.txt", "a.txt", "sub/c.txt"]


def test_code_is_written_and_nothing_overwritten(home, capsys):
    shutil.copy(SAMPLES / "todo-stock-script.md", "spec.md")
    words = ["code", "spec.md", "--write", "out", *SMALL]
    assert run(words) == 0
    (one,) = lines(capsys.readouterr().out)
    assert Path("out/1/solution.py").read_text() == one["value"]["files"]["solution.py"]
    assert run(words) == 0
    capsys.readouterr()
    Path("out/1/solution.py").write_text("mine")
    assert run(words) == 2
    assert "something else" in capsys.readouterr().err
    assert Path("out/1/solution.py").read_text() == "mine"
    Path("t.py").write_text("import solution\nassert solution.nothing\n")
    assert run(["code", "spec.md", "--tests", "t.py", *SMALL]) == 1
    (one,) = lines(capsys.readouterr().out)
    assert "AttributeError" in one["error"]["message"] or "not run" in one["error"]["message"]
