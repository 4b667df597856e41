# SPDX-License-Identifier: Apache-2.0
"""Answers as files: every format holds every answer, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freehold.documents.jobs import ErrorInfo, Row, exports
from freehold.documents.jobs.exports.csv import safe
from freehold.errors import CapacityError, InvalidParameterError


def row(index: int, value: Any, error: ErrorInfo | None = None) -> Row:
    status = "error" if error else "pending" if value is None else "ok"
    origin = {"source": f"d{index}.txt", "row": None}
    usage = {"prompt_tokens": 7, "answer_tokens": 2}
    content = f"{index:064x}"
    return Row(index, index, f"d{index}", content, origin, status, value, error, usage, 0.1, 1)


VALUES: list[Any] = [
    {"total": 12, "name": "Zoë \U0001f600", "paid": True, "lines": [{"a": 1}]},
    {"total": 1.5, "name": '=HYPERLINK("x")', "paid": None, "lines": []},
    {
        "total": None,
        "name": 'two\nlines, and "quotes"',
        "paid": False,
        "lines": None,
        "extra": "+1",
    },
]
ROWS = [
    *(row(i, value) for i, value in enumerate(VALUES)),
    row(3, None, ErrorInfo("AnswerError", "-no answer", None)),
    row(4, None),
]


def rows() -> Iterator[Row]:
    return iter(ROWS)


def test_every_format_is_found() -> None:
    assert exports.formats() == ("batch", "csv", "jsonl", "parquet", "sqlite")
    assert exports.format_of(Path("x.DB")) == "sqlite"
    with pytest.raises(InvalidParameterError, match=r"ends in '\.doc'"):
        exports.format_of(Path("x.doc"))


def test_jsonl_keeps_everything() -> None:
    found = [json.loads(piece) for piece in exports.text("jsonl", rows)]
    assert [each["value"] for each in found] == [*VALUES, None, None]
    assert found[3]["error"] == {"type": "AnswerError", "message": "-no answer", "hint": None}
    assert [each["status"] for each in found] == ["ok", "ok", "ok", "error", "pending"]
    assert found[0]["source"] == "d0.txt"


def test_csv_is_read_back_and_runs_nothing() -> None:
    text = "".join(exports.text("csv", rows))
    found = list(csv.DictReader(io.StringIO(text)))
    assert [each["name"] for each in found[:3]] == [
        "Zoë \U0001f600", '\'=HYPERLINK("x")', 'two\nlines, and "quotes"',
    ]  # fmt: skip
    assert [each["total"] for each in found[:3]] == ["12.0", "1.5", ""]
    assert json.loads(found[0]["lines"]) == [{"a": 1}]
    assert (found[0]["paid"], found[2]["extra"]) == ("true", "+1")
    assert found[3]["error"] == "'-no answer"
    assert len({len(each) for each in csv.reader(io.StringIO(text))}) == 1


@pytest.mark.parametrize(
    "cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1+1", "=", "-"]
)
def test_cells_that_a_spreadsheet_would_run(cell: str) -> None:
    assert safe(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-12", "+3.5", "-1.234,50", "1e-5", "a=b", "", "12", 7, -7, 1.5])
def test_cells_that_are_left_alone(cell: Any) -> None:
    assert safe(cell) == cell


def test_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"an older file")
    exports.write("sqlite", rows, path)
    with sqlite3.connect(path) as database:
        found = database.execute("SELECT id, status, total, name, paid FROM answers").fetchall()
    assert found[0] == ("d0", "ok", 12.0, "Zoë \U0001f600", 1)
    assert found[3][:2] == ("d3", "error")
    assert len(found) == 5
    assert [each.name for each in tmp_path.iterdir()] == ["a.sqlite"]


def test_parquet(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "it's.parquet"
    exports.write("parquet", rows, path)
    with duckdb.connect() as database:
        source = str(path).replace("'", "''")
        found = database.execute(f"SELECT id, total, name, paid, lines FROM '{source}'").fetchall()
        types = dict(database.execute(f"DESCRIBE SELECT * FROM '{source}'").fetchall()[i][:2]
                     for i in range(11))  # fmt: skip
    assert found[0] == ("d0", 12.0, "Zoë \U0001f600", True, '[{"a":1}]')
    assert [each[0] for each in found] == ["d0", "d1", "d2", "d3", "d4"]
    assert found[4][1:] == (None, None, None, None)
    assert (types["total"], types["paid"], types["row"]) == ("DOUBLE", "BOOLEAN", "BIGINT")
    assert [each.name for each in tmp_path.iterdir()] == ["it's.parquet"]


def test_parquet_without_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidParameterError, match="needs DuckDB") as caught:
        exports.format_of(Path("x.parquet"))
    assert "freehold[parquet]" in str(caught.value.hint)


def test_batch_results() -> None:
    body = {"object": "chat.completion"}
    given = [
        *ROWS,
        row(5, {"status_code": 200, "body": body}),
        Row(6, 6, "d6", "0" * 64, {}, "error", {"status_code": 400, "body": {"error": {}}},
            ErrorInfo("invalid", "no"), {}, 0.0, 1),
    ]  # fmt: skip
    found = [json.loads(piece) for piece in exports.text("batch", lambda: iter(given))]
    assert [each["custom_id"] for each in found] == ["d0", "d1", "d2", "d3", "d5", "d6"]
    message = found[0]["response"]["body"]["choices"][0]["message"]
    assert json.loads(message["content"]) == VALUES[0]
    assert found[3]["response"] is None
    assert found[3]["error"]["code"] == "AnswerError"
    assert found[4]["response"]["body"] == body
    assert found[5]["response"]["status_code"] == 400


AWKWARD: list[list[Any]] = [
    ["plain", "text"],
    [1, 2**70, True],
    [{"id": "x", "Error": "y", "error": "z"}],
    [{"a": 1, "A": 2, "": 3, 'q"uote': 4}],
    [{f"f{i}": i for i in range(1500)}],
    [{}],
    [],
]


@pytest.mark.parametrize("values", AWKWARD, ids=range(len(AWKWARD)))
@pytest.mark.parametrize("form", ["csv", "sqlite", "parquet"])
def test_odd_answers_make_a_table(form: str, values: list[Any], tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("duckdb")
    path = tmp_path / f"a.{form}"
    exports.write(form, lambda: (row(i, value) for i, value in enumerate(values)), path)
    assert path.stat().st_size > 0
    if form == "csv":
        with path.open(newline="") as file:
            assert len(list(csv.reader(file))) == len(values) + 1


@pytest.mark.parametrize("form", ["jsonl", "csv", "sqlite", "parquet"])
def test_a_failure_leaves_the_old_file(form: str, tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("duckdb")

    def breaks() -> Iterator[Row]:
        yield ROWS[0]
        raise CapacityError("the journal broke")

    path = tmp_path / f"a.{form}"
    path.write_text("old")
    with pytest.raises(CapacityError):
        exports.write(form, breaks, path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_no_such_folder(tmp_path: Path) -> None:
    for form in ("jsonl", "sqlite"):
        with pytest.raises(InvalidParameterError):
            exports.write(form, rows, tmp_path / "none" / f"a.{form}")


def test_a_device_is_written_into(tmp_path: Path) -> None:
    exports.write("jsonl", rows, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left"):
        exports.write("jsonl", rows, Path("/dev/full"))
