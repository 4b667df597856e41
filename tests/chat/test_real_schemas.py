# SPDX-License-Identifier: Apache-2.0
"""Schemas people wrote: whatever a random model answers to them is valid, formats included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_data import DATA, need
from real_schemas import answer_schemas, fault, read_schemas
from schema_instances import compiled, takes

import tiny_chat
from freehold import LLM

FILE = DATA / "schema" / "maskbench_sample.jsonl.gz"
SAMPLE = 12  # every so manieth schema in the quick lane


@pytest.fixture(scope="module")
def llm(tmp_path_factory) -> Iterator[LLM]:
    path = tiny_chat.write(tmp_path_factory.mktemp("random") / "random.gguf", context=8192)
    with LLM(str(path), threads=1, max_num_seqs=32) as model:
        yield model


def records(path: Path, step: int) -> list[dict]:
    return read_schemas(need(path))[::step]


@pytest.mark.parametrize(
    ("step", "max_tokens", "seed"),
    [
        (SAMPLE, 1500, 0),
        pytest.param(1, 6000, 1, marks=pytest.mark.slow),
        pytest.param(1, 6000, 2, marks=pytest.mark.slow),
    ],
)
def test_every_answer_is_valid(llm, step, max_tokens, seed):
    asked = records(FILE, step)
    tally = answer_schemas(llm, asked, max_tokens=max_tokens, seed=1000 * seed)
    print(
        f"{len(asked)} schemas: {tally.accepted} accepted, {len(tally.refused)} refused; "
        f"{tally.finished} answers finished, {tally.cut} cut, {len(tally.wrong)} wrong; "
        f"{tally.tokens} tokens"
    )
    for reason, count in tally.reasons().most_common():
        print(f"{count:5}  {reason:.150}")
    assert tally.wrong == {}
    assert tally.accepted > 0.8 * len(asked)
    assert tally.finished > 0.95 * tally.accepted
    # A refusal names what it is about.
    signs = ("the schema uses ", "the schema asks ", "the pattern ")
    assert [r for r in tally.reasons() if not r.startswith(signs)] == []


@pytest.mark.parametrize("step", [SAMPLE // 2, pytest.param(1, marks=pytest.mark.slow)])
def test_no_instance_is_let_through_that_was_marked_invalid(step):
    wrong, taken, valid = [], 0, 0
    for record in records(FILE, step):
        grammar = compiled(record["schema"])
        if isinstance(grammar, str):
            continue
        for case in record["tests"]:
            passes = takes(grammar, case["data"])
            if case["valid"]:
                valid += 1
                taken += passes
            elif passes:
                wrong.append((record["name"], case["description"]))
    print(f"{taken} of {valid} valid instances taken")
    assert wrong == []
    assert taken > 0.5 * valid


def test_the_judge_finds_faults():
    schema = {"type": "object", "properties": {"d": {"format": "date"}}, "required": ["d"]}
    assert fault(schema, '{"d": "2024-01-01"}') == ""
    assert fault(schema, '{"d": "2024-02-30"}') == "invalid by format"
    assert fault(schema, "{}") == "invalid by required"
    assert fault(schema, '{"d": NaN}').startswith("no JSON")
    assert fault(schema, '{"d": "').startswith("no JSON")
