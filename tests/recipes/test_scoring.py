# SPDX-License-Identifier: Apache-2.0
"""Scores: right is right, every mutilation costs, and hostile code harms nobody."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from recipes.seedling.example import Example
from recipes.seedling.scoring import LONGEST_OUTPUT, Score, passes, score

ASKED = ({"role": "user", "content": "?"},)
FIELDS = {"total": "1,204.50 EUR", "due_date": None, "number": "INV-2"}
EXTRACT = Example("extract", "invoice", ASKED, json.dumps(FIELDS), {"fields": FIELDS})
BEGINNING = 'def double(n):\n    """Return n times 2."""\n'
TESTS = "assert double(2) == 4\nassert double(-3) == -6"


def code(body: str) -> Score:
    facts = {"beginning": BEGINNING, "entry": "double", "tests": TESTS}
    return score(Example("code", "function", ASKED, "    return n * 2", facts), body)


def test_fields_count_one_by_one() -> None:
    assert score(EXTRACT, EXTRACT.answer) == Score(3, 3, True)
    wrong = {**FIELDS, "number": "INV-3"}
    assert score(EXTRACT, json.dumps(wrong)) == Score(2, 3, False)
    assert score(EXTRACT, json.dumps({**FIELDS, "due_date": "null"})) == Score(2, 3, False)
    assert score(EXTRACT, json.dumps({"total": "1,204.50 EUR"})) == Score(1, 3, False)


def test_a_missing_field_is_not_a_null() -> None:
    assert score(EXTRACT, json.dumps({"total": "1,204.50 EUR", "number": "INV-2"})).correct == 2


def test_order_and_additional_fields_cost_the_whole_alone() -> None:
    assert score(EXTRACT, json.dumps(dict(reversed(FIELDS.items())))) == Score(3, 3, False)
    assert score(EXTRACT, json.dumps({**FIELDS, "more": "x"})) == Score(3, 3, False)


@pytest.mark.parametrize(
    "output", ["", "{", "[1]", "null", "sorry", "[" * 9000, "x" * (LONGEST_OUTPUT + 1), "\ud800"]
)
def test_what_is_no_object_has_no_right_field(output: str) -> None:
    assert score(EXTRACT, output) == Score(0, 3, False)


def test_a_label_is_right_or_wrong() -> None:
    example = Example(
        "classify", "ticket", ASKED, "refund", {"label": "refund", "labels": ["refund", "sales"]}
    )
    assert score(example, " refund\n").whole
    for output in ("sales", "Refund", "refund, sales", "refund.", ""):
        assert score(example, output) == Score(0, 1, False)


def test_key_facts_count_one_by_one_and_a_summary_is_one_line() -> None:
    facts = {"key_facts": ["INV-2", "Halver Ltd", "9.00 EUR"]}
    example = Example("summarize", "invoice", ASKED, "", facts)
    line = "Invoice INV-2 from Halver Ltd for 9.00 EUR."
    assert score(example, line) == Score(3, 3, True)
    assert score(example, line.replace("9.00", "9,00")) == Score(2, 3, False)
    assert score(example, line.replace(" for", "\nfor")) == Score(3, 3, False)


def test_talk_needs_its_words() -> None:
    example = Example("chat", "chat", ASKED, "", {"words": ["cannot", "seedling"]})
    assert score(example, "I cannot do that. I am seedling.").whole
    assert score(example, "I am seedling.") == Score(1, 2, False)


@pytest.mark.parametrize(
    "body",
    [
        "    return n * 2",
        "return n + n",
        "\treturn n * 2",
        "```python\n    return 2 * n\n```",
        BEGINNING + "    return n * 2",
    ],
)
def test_a_right_body_passes_however_it_is_indented(body: str) -> None:
    assert code(body) == Score(1, 1, True)


@pytest.mark.parametrize(
    "body",
    [
        "    return n * 3",
        "    return",
        "",
        "    return n *",
        "return (",
        "    raise SystemExit(0)",
        "    import sys\n    sys.exit(0)",
        "    import os\n    os._exit(0)",
        "    quit()",
        "\x00",
        "    return '\ud800'",
    ],
)
def test_a_wrong_body_does_not_pass(body: str) -> None:
    assert not code(body).whole


def test_endless_code_ends() -> None:
    began = time.monotonic()
    assert not passes(BEGINNING, "    while True: pass", TESTS, seconds=1.0)
    assert not passes(BEGINNING, "    import time\n    time.sleep(60)", TESTS, seconds=1.0)
    assert time.monotonic() - began < 8


def test_memory_files_and_output_are_limited(tmp_path: Path) -> None:
    assert not code("    return len('x' * 10**10) and n * 2").whole
    target = tmp_path / "large"
    opened = f"    with open({str(target)!r}, 'wb') as f:\n"
    assert not code(f"{opened}        f.write(b'x' * 10**7)\n    return n * 2").whole
    assert target.stat().st_size <= 64 * 1024
    assert not code("    while True: print('x' * 10000)").whole


def test_the_child_sees_no_environment_and_no_working_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEEDLING_SECRET", "here")
    looks = "    import os\n    return n * 2 if 'SEEDLING_SECRET' not in os.environ else 0"
    assert code(looks).whole
    here = str(Path.cwd())
    assert code(f"    import os\n    return n * 2 if os.getcwd() != {here!r} else 0").whole


def test_children_of_the_child_end_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    body = (
        "    import os, time\n    if os.fork() == 0:\n        time.sleep(1.5)\n"
        f"        open({str(mark)!r}, 'w').close()\n        os._exit(0)\n    return n * 2"
    )
    assert code(body).whole
    time.sleep(2.2)
    assert not mark.exists()
