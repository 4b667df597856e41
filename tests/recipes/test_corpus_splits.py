# SPDX-License-Identifier: Apache-2.0
"""What is held out is held out: wordings, arrangements, values, names of functions."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from recipes.seedling import corpus, documents, layout, pools, tasks
from recipes.seedling.documents import common, functions, tickets
from recipes.seedling.documents.function_kinds import KINDS
from recipes.seedling.phrases import Phrases, every
from recipes.seedling.values import side

MODULES = [
    importlib.import_module(f"recipes.seedling.documents.{module.name}")
    for module in pkgutil.iter_modules(documents.__path__)
] + [tasks]
MOST = 20_000  # decided forms of one wording that are looked at


def all_phrases() -> Iterator[tuple[str, Phrases]]:
    """Every Phrases of the corpus with the place where it stands."""

    def found(place: str, thing: Any) -> Iterator[tuple[str, Phrases]]:
        if isinstance(thing, Phrases):
            yield place, thing
        elif isinstance(thing, dict):
            for key, inner in thing.items():
                yield from found(f"{place}[{key}]", inner)
        elif isinstance(thing, tuple):
            for at, inner in enumerate(thing):
                yield from found(f"{place}[{at}]", inner)

    for module in MODULES:
        for name, thing in vars(module).items():
            yield from found(f"{module.__name__}.{name}", thing)
    for kind in KINDS:
        yield f"{kind.name}.names", kind.names
        yield f"{kind.name}.docs", kind.docs


PHRASES = dict(all_phrases())


def forms(templates: tuple[str, ...]) -> set[str]:
    """Decided forms, without what letter case and a final mark may hide."""
    return {
        re.sub(r"\W+$", "", form.lower()).strip()
        for template in templates
        for form in islice(every(template), MOST)
    }


def test_the_search_for_wordings_finds_them_all() -> None:
    assert len(PHRASES) > 250
    assert any("intents.TOPICS" in place for place in PHRASES)
    assert sum(len(p.train) for p in PHRASES.values()) > 1200


@pytest.mark.parametrize("place", sorted(PHRASES))
def test_no_held_out_wording_is_a_training_wording(place: str) -> None:
    phrases = PHRASES[place]
    assert phrases.train
    assert phrases.heldout
    assert not forms(phrases.train) & forms(phrases.heldout)


def test_held_out_sentences_of_topics_are_in_no_topic_of_training() -> None:
    topics = [p for place, p in PHRASES.items() if "intents.TOPICS" in place]
    train = set().union(*(forms(p.train) for p in topics))
    heldout = set().union(*(forms(p.heldout) for p in topics))
    assert len(train) > 5000
    assert not train & heldout


def test_arrangements_are_disjoint() -> None:
    train = {block for block, _ in layout.TRAIN_BLOCKS}
    heldout = {block for block, _ in layout.HELDOUT_BLOCKS}
    # These two take their separators and joins from lists that are disjoint themselves.
    assert train & heldout == {layout._lines, layout._inline}
    assert not set(layout.TRAIN_SEPARATORS) & set(layout.HELDOUT_SEPARATORS)
    assert not set(layout.TRAIN_JOINS) & set(layout.HELDOUT_JOINS)
    assert set(layout.TRAIN_BULLETS) & set(layout.HELDOUT_BULLETS) == {""}
    shared = set(layout.TRAIN_ITEMS) & set(layout.HELDOUT_ITEMS)
    assert not shared


@pytest.mark.parametrize("name", [n[:-6] for n in dir(pools) if n.endswith("_TRAIN")])
def test_listed_words_are_disjoint(name: str) -> None:
    train = {word.lower() for word in getattr(pools, f"{name}_TRAIN")}
    heldout = {word.lower() for word in getattr(pools, f"{name}_HELDOUT")}
    assert train
    assert heldout
    assert not train & heldout


def test_arguments_of_functions_are_disjoint_role_by_role() -> None:
    for train, heldout in functions.ARGUMENTS.values():
        assert train
        assert heldout
        assert not set(train) & set(heldout)


SPLIT_FIELDS = re.compile(
    r"supplier|vendor|seller|customer|client|buyer|bill_to|provider|contractor|invoice_n|order_n|"
    r"ticket|product|item|city|town|email|liability|sender|owner|service"
)


def values(split: Any, count: int) -> set[str]:
    found: set[str] = set()
    for made in corpus.examples(split, 5, count, ["extract"]):
        for name, value in made.facts["fields"].items():
            if value is not None and made.kind != "record" and SPLIT_FIELDS.search(name):
                found.add(value.lower())
    return found


def test_values_of_the_splits_never_meet() -> None:
    train, heldout = values("train", 12_000), values("heldout", 4_000)
    assert len(train) > 10_000
    assert len(heldout) > 4_000
    assert not train & heldout


def test_values_hardly_ever_come_twice() -> None:
    seen: list[str] = []
    for made in corpus.examples("train", 6, 6000, ["extract"]):
        if made.kind == "invoice":
            fields = made.facts["fields"]
            seen += [v for n, v in fields.items() if v and re.search("invoice_n|supplier", n)]
    assert len(seen) > 800
    assert len(set(seen)) > 0.97 * len(seen)


def skeleton(text: str) -> str:
    """`text` without what values are made of: digits, and words with a capital."""
    text = re.sub(r"\d+", "0", text.split("\n\n", 1)[-1])
    return re.sub(r"\b[A-ZÖÄÉ][\w'-]*", "X", text)


def test_documents_of_the_splits_share_no_skeleton() -> None:
    kinds = ("invoice", "order", "contract", "incident", "ticket")
    train = {
        skeleton(made.messages[-1]["content"])
        for made in corpus.examples("train", 7, 8000, ["extract", "summarize"], canonical=1.0)
        if made.kind in kinds
    }
    heldout = {
        skeleton(made.messages[-1]["content"])
        for made in corpus.examples("heldout", 7, 3000, ["extract", "summarize"])
        if made.kind in kinds
    }
    assert len(train) > 6500  # hardly two documents of the same build
    assert not train & heldout


def test_chatter_mail_heads_and_records_are_for_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> str:
        raise AssertionError("made for held-out text")

    monkeypatch.setattr(common, "chatter", refuse)
    monkeypatch.setattr(tickets, "chatter", refuse)
    monkeypatch.setattr(common, "mail_head", refuse)
    assert len(list(corpus.examples("heldout", 8, 1500))) == 1500
    with pytest.raises(AssertionError, match="held-out"):
        list(corpus.examples("train", 8, 1500))


def test_a_checksum_divides_the_values() -> None:
    share = sum(side(str(number)) == "heldout" for number in range(20_000)) / 20_000
    assert 0.11 < share < 0.14
    assert side("Halver") == side("halver")
