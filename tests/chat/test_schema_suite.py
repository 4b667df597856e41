# SPDX-License-Identifier: Apache-2.0
"""JSON Schema's own test suite: whatever it calls invalid, no grammar of ours lets through."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from chat_data import DATA, need
from schema_instances import compiled, takes

SUITE = DATA / "schema" / "JSON-Schema-Test-Suite" / "tests"
DRAFTS = ("draft7", "draft2020-12")


def files(draft: str) -> list[Path]:
    return sorted(need(SUITE / draft).rglob("*.json"))


@pytest.mark.parametrize("draft", DRAFTS)
def test_nothing_invalid_is_let_through(draft):
    let_through, taken, valid, refused, groups = [], 0, 0, 0, 0
    for path in files(draft):
        for group in json.loads(path.read_text(encoding="utf-8")):
            groups += 1
            grammar = compiled(group["schema"])
            if isinstance(grammar, str):
                refused += 1
                continue
            for case in group["tests"]:
                passes = takes(grammar, case["data"])
                if case["valid"]:
                    valid += 1
                    taken += passes
                elif passes:
                    let_through.append((path.name, group["description"], case["description"]))
    print(f"{draft}: {groups} schemas, {refused} refused; {taken} of {valid} valid instances taken")
    assert let_through == []
    # The other way round nothing is promised, but a grammar that takes nothing would prove nothing.
    assert taken > 0.75 * valid
    assert groups - refused > 0.35 * groups


def test_no_text_that_is_no_json_is_let_through():
    grammar = compiled({})
    lines = need(DATA / "grammar" / "json_parsing.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [(case["name"], case["expect"], base64.b64decode(case["base64"]))
             for case in map(json.loads, lines)]  # fmt: skip
    kinds = {expect for _, expect, _ in texts}
    assert kinds == {"accept", "reject", "either"}
    assert [n for n, e, raw in texts if e == "reject" and grammar.accepts(raw)] == []
    assert sum(grammar.accepts(raw) for _, e, raw in texts if e == "accept") > 20
