# SPDX-License-Identifier: Apache-2.0
"""Numbers and dates as people write them, and schemas from files and classes."""

from __future__ import annotations

import json

import pytest

from freehold.chat.json_check import JsonCheck
from freehold.documents.fields import load_schema
from freehold.documents.written import day, number
from freehold.errors import ConstraintError, InvalidParameterError


@pytest.mark.parametrize(
    ("quote", "value"),
    [
        ("12", 12), ("12.50", 12.5), ("1,234.50", 1234.5), ("1.234,50 EUR", 1234.5),
        ("€1.234,50", 1234.5), ("1 234,5 kr", 1234.5), ("1\u202f234,5", 1234.5),
        ("12'000.-", 12000), ("1,234,567", 1234567), ("12,34,567.8", 1234567.8), ("-3", -3),
        ("−4,25", -4.25), ("-$5.00", -5.0), ("$-5", -5), ("0.123", 0.123), (".5", 0.5),
        ("٣٤٥٫٥٠", 345.5), ("１２", 12), ("12%", 12), ("1.234", 1.234), ("1,234", 1234),
        ("EUR", None), ("", None), ("5-6", None), ("1.2.3,4", None), ("12,3456,7", None),
    ],
)  # fmt: skip
def test_a_number(quote, value):
    assert number(quote) == value


def test_the_document_decides_what_a_lone_mark_is():
    assert number("1.234", "Summe 1.234, davon 5,20 EUR") == 1234
    assert number("1,234", "sum 1,234 of which 5.20") == 1234
    assert number("1,234", "Höhe 1,234 m und 5,20 m") == 1.234


@pytest.mark.parametrize(
    ("quote", "value"),
    [
        ("2026-12-01", "2026-12-01"), ("2026/2/3", "2026-02-03"), ("1 December 2026", "2026-12-01"),
        ("Dec 1, 2026", "2026-12-01"), ("01.12.2026", "2026-12-01"), ("13/02/2026", "2026-02-13"),
        ("02/13/2026", "2026-02-13"), ("5. März 2024", "2024-03-05"), ("18-Jan-30", "2030-01-18"),
        ("3 de mayo de 2021", "2021-05-03"), ("Saturday, 23 July 2022", "2022-07-23"),
        ("2nd of May 2026", "2026-05-02"), ("2026年12月1日", "2026-12-01"),
        ("2026년 12월 1일", "2026-12-01"), ("1er août 2020", "2020-08-01"),
        ("02/03/2026", None), ("31/02/2020", None), ("May 2020", None), ("soon", None),
        ("2026-13-01", None), ("1 Foo 2020", None),
    ],
)  # fmt: skip
def test_a_day(quote, value):
    assert day(quote) == value


def test_other_dates_of_the_document_decide_the_order():
    assert day("02/03/2026", "from 25/12/2025") == "2026-03-02"
    assert day("02/03/2026", "from 12/25/2025") == "2026-02-03"
    assert day("02/03/2026", "from 12/25/2025 to 25/12/2025") is None


def test_a_check_is_that_of_the_grammar():
    check = JsonCheck(
        {"type": "object", "required": ["a"],
         "properties": {"a": {"type": ["number", "null"], "minimum": 3}, "b": {"type": "string"}}}
    )  # fmt: skip
    assert check.accepts({"a": 3})
    assert check.accepts({"a": 1234.5, "b": 'ä"\\\n東'})
    assert check.accepts({"a": None})
    for wrong in ({"a": 2}, {}, {"a": 3, "b": 1}, [], {"a": float("nan")}, {"a": {1}}):
        assert not check.accepts(wrong)
    with pytest.raises(ConstraintError):
        JsonCheck({"contentEncoding": "base64"})


def test_a_schema_from_a_file(tmp_path):
    good = tmp_path / "a.json"
    good.write_text(json.dumps({"type": "object"}), "utf-8")
    assert load_schema(str(good)) == {"type": "object"}
    for text in ("[1]", "{", "[" * 100_000, "\xff"):
        (tmp_path / "b.json").write_text(text, "latin-1")
        with pytest.raises(InvalidParameterError):
            load_schema(str(tmp_path / "b.json"))
    with pytest.raises(InvalidParameterError, match="No such file"):
        load_schema(str(tmp_path / "c.json"))


def test_a_schema_from_a_class(tmp_path, monkeypatch):
    (tmp_path / "shapes_of_mine.py").write_text(
        "from pydantic import BaseModel\n"
        "class Line(BaseModel):\n    what: str\n    count: int | None = None\n"
        "class Order(BaseModel):\n    number: str\n    lines: list[Line]\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)
    schema = load_schema("shapes_of_mine:Order")
    assert set(schema["properties"]) == {"number", "lines"}
    for name in ("shapes_of_mine:No", "no_such_module_here:X", "json:JSONDecoder"):
        with pytest.raises(InvalidParameterError, match="pydantic"):
            load_schema(name)
