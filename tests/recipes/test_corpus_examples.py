# SPDX-License-Identifier: Apache-2.0
"""Examples are what they say: answers stand in the document, order and text are reproducible."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import statistics
import time
from collections import Counter
from typing import Any

import pytest

from freehold.documents import prompts
from recipes.seedling import corpus
from recipes.seedling.documents import contracts, incidents, intents, invoices, orders, tickets
from recipes.seedling.documents.function_kinds import KINDS
from recipes.seedling.example import Example
from recipes.seedling.phrases import every, expand, fill, slots
from recipes.seedling.scoring import score

SPLITS = ("train", "heldout")


def made(split: Any, count: int, *tasks: Any, seed: int = 1) -> list[Example]:
    return list(corpus.examples(split, seed, count, tasks or None))


def plain(text: str) -> str:
    return " ".join(text.split())


def document(example: Example) -> str:
    return plain(" ".join(message["content"] for message in example.messages))


@pytest.mark.parametrize("split", SPLITS)
def test_extracted_values_stand_in_the_document(split: str) -> None:
    null = 0
    for example in made(split, 3000, "extract"):
        fields = example.facts["fields"]
        assert json.loads(example.answer) == fields
        assert list(json.loads(example.answer)) == list(fields)
        assert 1 <= len(fields) <= 8
        for value in fields.values():
            null += value is None
            assert value is None or value in document(example)
    assert null > 150


@pytest.mark.parametrize("split", SPLITS)
def test_key_facts_stand_in_summary_and_document(split: str) -> None:
    gists = {gist for topics in intents.TOPICS.values() for gist, _ in topics}
    for example in made(split, 2500, "summarize"):
        assert "\n" not in example.answer
        assert len(example.facts["key_facts"]) >= 1
        for fact in example.facts["key_facts"]:
            assert fact in example.answer
            if example.kind == "ticket" and fact in gists:
                continue  # what it is about is said in other words
            parts = fact.split(" x ", 1) if example.kind == "order" else [fact]
            assert all(part in document(example) for part in parts)


@pytest.mark.parametrize("split", SPLITS)
def test_classes_have_one_right_label(split: str) -> None:
    sizes: Counter[int] = Counter()
    positions: Counter[int] = Counter()
    for example in made(split, 2500, "classify"):
        labels = example.facts["labels"]
        assert labels.count(example.answer) == 1
        assert len({label.lower() for label in labels}) == len(labels)
        sizes[len(labels)] += 1
        positions[labels.index(example.answer)] += 1
        if example.kind == "ticket" and "invoice" not in labels:
            wrong = set(labels) - {example.answer}
            assert not wrong & set(intents.VAGUE)
    assert set(sizes) >= set(range(2, 9))
    assert positions[0] < 0.45 * sum(positions.values())


def test_labels_of_one_intent_are_labels_of_no_other() -> None:
    owner: dict[str, str] = {}
    for intent, topics in intents.TOPICS.items():
        names = set(intents.LABELS[intent])
        for gist, _ in topics:
            names |= set(intents.TOPIC_LABELS.get(gist, ()))
        for name in names - set(intents.VAGUE):
            assert owner.setdefault(name, intent) == intent


def test_every_topic_label_belongs_to_a_topic() -> None:
    gists = {gist for topics in intents.TOPICS.values() for gist, _ in topics}
    assert set(intents.TOPIC_LABELS) <= gists
    assert set(intents.LABELS) == set(intents.TOPICS)


@pytest.mark.parametrize("module", [invoices, orders, contracts, incidents, tickets])
def test_a_field_name_means_one_concept(module: Any) -> None:
    names = [name.replace("_", " ") for names in module.NAMES.values() for name in set(names)]
    doubled = {n for n, c in Counter(names).items() if c > 1}
    for concept, own in module.NAMES.items():
        plain_own = {name.replace("_", " ") for name in own}
        others = {
            name.replace("_", " ")
            for other, theirs in module.NAMES.items()
            if other != concept
            for name in theirs
        }
        assert not plain_own & others, doubled


def test_field_names_of_held_out_questions_occur_in_training() -> None:
    def names(split: Any, count: int) -> set[str]:
        return {
            name.replace("_", " ")
            for example in made(split, count, "extract")
            if example.kind != "record"
            for name in example.facts["fields"]
        }

    assert names("heldout", 3000) <= names("train", 12_000)


@pytest.mark.parametrize("split", SPLITS)
def test_every_taught_function_passes_its_own_tests(split: str) -> None:
    kinds: Counter[str] = Counter()
    for example in made(split, 1500, "code"):
        program = f"{example.facts['beginning']}{example.answer}\n{example.facts['tests']}"
        namespace: dict[str, Any] = {}
        exec(compile(program, "<taught>", "exec"), namespace)
        assert example.facts["entry"] in namespace
        assert all(line.startswith("    ") for line in example.answer.split("\n"))
        assert example.answer.count("\n") < 8
        kinds[example.facts["function"]] += 1
    assert len(kinds) == len(KINDS) >= 40


def test_the_tests_of_a_function_tell_other_kinds_apart() -> None:
    """A body of another kind fails: the tests are no formality."""
    examples = made("heldout", 200, "code")
    passed = 0
    for example, other in itertools.pairwise(examples):
        if example.facts["function"] == other.facts["function"]:
            continue
        body = other.answer
        program = f"{example.facts['beginning']}{body}\n{example.facts['tests']}"
        with contextlib.suppress(Exception):
            exec(compile(program, "<other>", "exec"), {})
            passed += 1
    assert passed < 6


@pytest.mark.parametrize("split", SPLITS)
def test_the_generators_answer_scores_full_marks(split: str) -> None:
    for example in made(split, 400):
        if example.task != "code":  # a process for each; covered below and in test_scoring
            got = score(example, example.answer)
            assert got.whole
            assert got.correct == got.total >= 1
    for example in made(split, 12, "code"):
        assert score(example, example.answer).whole


def test_an_example_depends_on_split_seed_and_number_alone() -> None:
    row = made("train", 60, seed=3)
    assert row == made("train", 60, seed=3)
    assert row[40:] == list(corpus.examples("train", 3, 20, start=40))
    assert row != made("train", 60, seed=4)
    assert [e.messages for e in row] != [e.messages for e in made("heldout", 60, seed=3)]


def test_the_hash_of_the_data_follows_the_data() -> None:
    assert corpus.data_hash(1, 50) == corpus.data_hash(1, 50)
    assert len({corpus.data_hash(1, 50), corpus.data_hash(1, 51), corpus.data_hash(2, 50)}) == 3


def test_the_mixture_is_as_set() -> None:
    tasks = Counter(example.task for example in made("train", 6000))
    total = sum(corpus.MIXTURE.values())
    for task, share in corpus.MIXTURE.items():
        assert tasks[task] / 6000 == pytest.approx(share / total, abs=0.02)
    only = corpus.examples("train", 1, 30, ["code", "chat"], mixture={"code": 1, "chat": 1})
    assert {example.task for example in only} == {"code", "chat"}
    assert not any(example.kind == "record" for example in made("heldout", 1000))


def test_questions_are_mostly_in_the_canonical_words() -> None:
    openings = (
        "Classify the document. Answer",
        "Extract as JSON: ",
        "Summarise the document in",
        "Complete the Python",
    )

    def share(examples: list[Example]) -> float:
        canonical = [
            len(e.messages) == 1 and e.messages[0]["content"].startswith(openings)
            for e in examples
            if e.task != "chat"
        ]
        return sum(canonical) / len(canonical)

    assert 0.83 < share(made("train", 3000)) < 0.90
    assert share(made("heldout", 300)) == 1.0
    assert share(list(corpus.examples("heldout", 1, 300, canonical=0.0))) < 0.2
    example = next(e for e in made("heldout", 50) if e.task == "summarize")
    text = example.messages[0]["content"].split("\n\n", 1)[1]
    assert list(example.messages) == prompts.summarize(text)


@pytest.mark.parametrize("split", SPLITS)
def test_examples_are_short(split: str) -> None:
    examples = made(split, 3000)
    prompt = sorted(sum(len(m["content"]) for m in e.messages) for e in examples)
    answer = [len(e.answer) for e in examples]
    assert 180 < statistics.median(prompt) < 400  # characters; about three to a token
    assert prompt[-1] <= corpus.LONGEST
    assert statistics.median(answer) < 90
    assert max(answer) < 420
    text = "".join(m["content"] for e in examples for m in e.messages)
    assert all(c in "\n\t" or " " <= c < "\u20ad" for c in set(text))


def test_making_examples_is_fast() -> None:
    began = time.process_time()
    made("train", 3000)
    assert 3000 / (time.process_time() - began) > 1500


def test_wordings_are_decided_and_filled() -> None:
    template = "[a|b[1|2]] {x}."
    assert set(every(template)) == {"a {x}.", "b1 {x}.", "b2 {x}."}
    assert slots(template) == ("x",)
    assert fill("to {x}.", {"x": "Halver Inc."}) == "to Halver Inc."
    assert fill("to {x}.", {"x": "Halver"}) == "to Halver."
    with pytest.raises(KeyError):
        fill("{x}", {})
    with pytest.raises(ValueError, match="unbalanced"):
        expand(random.Random(1), "[a|b")
