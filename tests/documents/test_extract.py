# SPDX-License-Identifier: Apache-2.0
"""Values with evidence: what random models write is held to the text, whatever script it is in;
plans, pieces, conflicts, and what is no answer."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Scripted, always

import tiny_chat
from freehold import LLM, SamplingParams
from freehold.chat.grounded_json import grounded_grammar, words
from freehold.documents import Document, Extract, extract, prompts
from freehold.documents.answer_plan import Leaf, answer_schema, flat_names, plan
from freehold.documents.document import Page
from freehold.documents.evidence import Passage
from freehold.documents.llm_asker import LLMAsker
from freehold.errors import AnswerError, ConstraintError, InvalidParameterError
from freehold.types import Constraint

TEXTS = {
    "latin": 'Invoice 17-B from "Müller & Söhne" \\ GmbH,\n\tTotal: 1.234,50 EUR; due 2 May 2026. '
    "%json {}",
    "cjk": "発票番号:甲1234。合計は1,200円、支払期限は2026年5月2日です。担当:田中",
    "accents": "Facture n° 12 de E\u0301mile A\u030angstro\u0308m, total 99,90 € "
    "échéance 02/05/2026",
    "arabic": "فاتورة رقم ٤٥ من شركة النور، المجموع ٣٤٥٫٥٠",
    "emoji": "Total 👍🏽 5 € for 👨‍👩‍👧 family",
}  # fmt: skip
NESTED = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "total": {"type": ["number", "null"]},
        "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "kind": {"enum": ["invoice", "order"]},
        "paid": {"type": "boolean"},
        "lines": {
            "type": "array",
            "maxItems": 3,
            "items": {"$ref": "#/$defs/line"},
        },
        "note": {"type": "string", "maxLength": 12},
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]$"},
        "comment": {"type": "string", "maxLength": 5, "x-evidence": "none"},
    },
    "required": ["name", "total", "kind", "lines"],
    "$defs": {
        "line": {
            "type": "object",
            "properties": {"what": {"type": "string"}, "count": {"type": ["integer", "null"]}},
            "required": ["what", "count"],
        }
    },
}


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = tiny_chat.write(tmp_path_factory.mktemp("chat") / "m.gguf", context=8192)
    with LLM(path) as llm:
        yield llm


class Sampling(LLMAsker):
    """Draws answers at a high temperature, so that a model of random weights says anything at all
    that its form lets it."""

    seed = 0

    def _complete(self, conversations, params, forms):
        Sampling.seed += 1
        hot = [
            SamplingParams(temperature=1.5, max_tokens=p.max_tokens, seed=Sampling.seed)
            for p in params
        ]
        return super()._complete(conversations, hot, forms)


def check(answer: Any, text: str, schema: dict[str, Any]) -> None:
    """All that is promised of a value."""
    value = answer.value
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
        value["values"]
    )
    for pointer, span in value["evidence"].items():
        assert text[span["start"] : span["end"]] == span["quote"]
        assert span["quote"].strip() == span["quote"] != ""
        found = value["values"]
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        assert found is not None
        if isinstance(found, str) and pointer.endswith(("/name", "/what", "/note")):
            assert found == " ".join(span["quote"].split())
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize("script", sorted(TEXTS))
def test_whatever_is_written_is_backed_by_the_text(llm, script):
    text = TEXTS[script]
    asker = Sampling(llm)
    answers = extract(asker, [text] * 12, NESTED)
    sound = [answer for answer in answers if answer.error is None]
    for answer in sound:
        check(answer, text, NESTED)
    for answer in answers:  # a figure that is no number where one must be, and no more than that
        assert answer.error is None or isinstance(answer.error, AnswerError)
    assert len(sound) >= 6
    assert any(answer.value["evidence"] for answer in sound)


@settings(max_examples=10, deadline=None)
@given(st.text(min_size=1, max_size=120).filter(lambda text: text.strip()))
def test_any_text_can_be_copied_from(llm, text):
    text.encode("utf-8", "surrogatepass")
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    (answer,) = extract(Sampling(llm), [text], ["name", "a/b~c", "total:number"])
    if answer.error is None:
        for span in answer.value["evidence"].values():
            assert text[span["start"] : span["end"]] == span["quote"]


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=80))
def test_words_join_to_the_text_and_are_found_where_they_stand(text):
    pieces = words(text)
    assert "".join(pieces) == text
    passage = Passage(text, offset=7)
    flat = passage.flat
    for start, end in ((0, 1), (0, 3), (1, 4)):
        quote = "".join(" " if p.isspace() else p for p in pieces[start:end])
        if not quote:
            continue
        assert quote in flat
        span = passage.find(quote)
        assert span is not None
        found = text[span.start - 7 : span.end - 7]
        assert "".join(" " if p.isspace() else p for p in words(found)) == quote


def test_no_place_inside_a_word_is_found():
    assert Passage("totals total").find("total").start == 7
    assert Passage("Ma\u0301x Ma").find("Ma").start == 5
    assert Passage("abc").find("ab") is None
    assert Passage("10 x 10").find("10").places == 2
    assert Passage("東京都").find("京") is not None


def test_a_copy_across_lines_is_one_value_and_two_lines_of_evidence(llm):
    asker = Scripted(lambda prompt: '{"name": "Müller Söhne"}')
    text = "from Müller\n   Söhne today"
    (answer,) = extract(asker, [text], ["name"])
    assert answer.value["values"] == {"name": "Müller Söhne"}
    assert answer.value["evidence"]["/name"]["quote"] == "Müller\n   Söhne"


def test_numbers_and_dates_are_read_from_what_is_copied():
    answer_text = '{"total": "EUR 1.234,50", "due": "2 May 2026", "count": "1.234"}'
    text = "EUR 1.234,50 by 2 May 2026, count 1.234"
    (answer,) = extract(always(answer_text), [text], ["total:number", "due:date", "count:integer"])
    assert answer.value["values"] == {"total": 1234.5, "due": "2026-05-02", "count": 1234}
    assert answer.value["evidence"]["/total"]["quote"] == "EUR 1.234,50"


def test_what_may_be_two_dates_is_no_date_and_is_told():
    (answer,) = extract(always('{"due": "02/03/2026"}'), ["due 02/03/2026"], ["due:date"])
    assert answer.value["values"] == {"due": None}
    assert "02/03/2026" in answer.value["problems"]["/due"]
    strict = {"type": "object", "properties": {"due": {"type": "string", "format": "date"}},
              "required": ["due"]}  # fmt: skip
    (answer,) = extract(always('{"due": "02/03/2026"}'), ["due 02/03/2026"], strict)
    assert isinstance(answer.error, AnswerError)
    assert "due" in answer.error.message


def test_quotes_beside_values_and_values_that_nothing_backs():
    text = "It was paid in cash."
    reply = (
        '{"paid": {"quote": "paid in cash", "value": true}, "kind": {"quote": null, "value": "b"}}'
    )
    (answer,) = extract(always(reply), [text], ["paid:boolean", "kind:a|b"])
    assert answer.value["values"] == {"paid": True, "kind": "b"}
    assert answer.value["evidence"]["/paid"] == {
        "start": 7, "end": 19, "quote": "paid in cash", "places": 1,
    }  # fmt: skip
    assert answer.value["unsupported"] == ["/kind"]


def test_an_asker_that_keeps_no_form_is_held_to_the_text_all_the_same():
    for reply in ('{"a": "nowhere"}', '{"b": "here"}', '["here"]', "here", '{"a": 3}', "[" * 9000):
        (answer,) = extract(always(reply), ["here it is"], ["a"])
        assert answer.error is not None or answer.value["values"] == {"a": None}
    (answer,) = extract(always('```json\n{"a": "here"}\n```'), ["here it is"], ["a"])
    assert answer.value["values"] == {"a": "here"}


def test_pages_are_named():
    document = Document(
        "first\fsecond", "a.pdf", "pdf", 1, pages=(Page(1, 0, 6), Page(2, 6, 12)), pages_total=2
    )
    (answer,) = extract(always('{"a": "second"}'), [document], ["a"])
    assert answer.value["evidence"]["/a"]["page"] == 2


def test_a_search_finds_what_is_likelier_as_a_whole(llm):
    """Against all that a small form allows, scored one by one; greedy answers are no likelier."""
    texts = [f"alpha beta{n} gamma x{n} delta" for n in range(4)]
    asker = LLMAsker(llm)

    def likelihood(text: str, answer: str) -> float:
        start = llm.answer_start(prompts.extract(text, ["a"]))
        ids = llm.tokenizer.encode(answer, add_special=False)
        return float(llm.score(start, ids).sum())

    greedy = extract(asker, texts, ["a:id"])
    wide = extract(asker, texts, ["a:id"], search=8)
    for text, one, other in zip(texts, greedy, wide, strict=True):
        check(other, text, dict(Extract.of_fields(["a:id"]).schema))
        first, second = (
            likelihood(text, json.dumps({"a": answer.value["values"]["a"]}))
            for answer in (one, other)
        )
        assert second >= first - 1e-4
    with pytest.raises(InvalidParameterError, match="cannot search"):
        extract(always("{}"), ["text"], ["a"], search=2)
    with pytest.raises(InvalidParameterError):
        extract(asker, ["text"], ["a"], search=0)


# -- long documents -------------------------------------------------------------------------------


def test_an_object_that_no_piece_has_is_there_with_what_may_be_null():
    inner = {"a": {"type": ["string", "null"]}, "b": {"type": "string"}}
    person = {"type": "object", "properties": inner, "required": ["a"]}
    schema = {"type": "object", "properties": {"person": person}, "required": ["person"]}
    nothing = always(json.dumps({"person": None}), 700)
    (answer,) = Extract(schema).answer(nothing, [Document("words here. " * 60, "", "", 0)])
    assert answer.value["pieces"] > 1
    assert answer.value["values"] == {"person": {"a": None}}
    person["required"] = ["a", "b"]
    (answer,) = Extract(schema).answer(nothing, [Document("words here. " * 60, "", "", 0)])
    assert "nothing was found for person.b" in answer.error.message


def test_a_list_that_a_schema_bounds_is_not_cut_silently():
    schema = {
        "type": "object",
        "properties": {"names": {"type": "array", "maxItems": 2, "items": {"type": "string"}}},
    }
    text = "\n\n".join(f"name{i} " + "filler words. " * 20 for i in range(3))

    def first_word(prompt: str) -> str:
        return json.dumps({"names": [f"name{i}" for i in range(3) if f"name{i} " in prompt]})

    asker = Scripted(first_word, context=1000)
    (answer,) = Extract(schema).answer(asker, [Document(text, "", "", 0)])
    assert answer.value["pieces"] > 1
    assert answer.value["values"]["names"] == ["name0", "name1"]
    assert "3 were found and the schema allows 2" in answer.value["problems"]["/names"]


@pytest.mark.parametrize(
    ("wanted", "text", "reply"),
    [
        ({"type": "number", "maximum": 10}, "Total 20 EUR", "20"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, "a b", ["a", "a"]),
    ],
)
def test_what_the_schema_does_not_allow_is_an_error(wanted, text, reply):
    """Evidence is there for each of these; the value is still none that was asked for."""
    schema = {"type": "object", "properties": {"x": wanted}, "required": ["x"]}
    asker = always(json.dumps({"x": reply}))
    (answer,) = Extract(schema).answer(asker, [Document(text, "", "", 0)])
    assert isinstance(answer.error, AnswerError)
    assert "not valid under the schema" in answer.error.message


def test_pieces_are_put_together_and_conflicts_shown():
    def reply(prompt: str) -> str:
        text = prompt.partition("\n\n")[2]
        total = [word for word in text.split() if word.endswith("EUR,")]
        name = '"Alpha"' if "Alpha" in text else "null"
        first = f'"{total[0].removesuffix(",")}"' if total else "null"
        return f'{{"name": {name}, "total": {first}}}'

    filler = "Nothing of interest is said here. " * 30
    text = f"By Alpha. It costs 10EUR, now.\n\n{filler}\n\nIt costs 20EUR, later.\n\n{filler}"
    asker = Scripted(reply, context=1100)
    (answer,) = extract(asker, [text], ["name", "total"])
    assert answer.value["pieces"] > 1
    assert answer.value["values"] == {"name": "Alpha", "total": "10EUR"}
    assert [c["value"] for c in answer.value["conflicts"]["/total"]] == ["10EUR", "20EUR"]
    assert "/name" not in answer.value["conflicts"]
    for conflict in answer.value["conflicts"]["/total"]:
        assert text[conflict["start"] : conflict["end"]] == conflict["value"]
    check(answer, text, dict(Extract.of_fields(["name", "total"]).schema))


def test_lists_of_pieces_are_joined_without_what_overlaps():
    def reply(prompt: str) -> str:
        names = [word.strip(".") for word in prompt.partition("\n\n")[2].split() if "item" in word]
        return json.dumps({"names": names})

    text = " ".join(f"Then there is item{n}." for n in range(60))
    asker = Scripted(reply, context=1500)
    (answer,) = extract(asker, [text], ["names:text[]"])
    assert answer.error is None
    assert answer.value["pieces"] > 1
    assert answer.value["values"]["names"] == [f"item{n}" for n in range(60)]


def test_a_piece_with_more_than_an_answer_holds_is_cut_in_two():
    asker = Scripted(
        lambda prompt: json.dumps({"a": "x"}) if len(prompt) < 200 else "x" * 5000, context=1000
    )
    (answer,) = extract(asker, ["x y. " * 60], ["a"])
    assert answer.value["pieces"] > 1
    assert answer.value["values"] == {"a": "x"}


def test_an_answer_that_never_ends_is_an_error():
    (answer,) = extract(always("x" * 5000), ["word. " * 50], ["a"])
    assert "did not end" in answer.error.message


# -- plans ----------------------------------------------------------------------------------------


def test_plain_fields_are_asked_in_the_plainest_words():
    asker = always('{"a": null, "b": null}')
    extract(asker, ["text"], ["a", "b:number"])
    assert asker.prompts[0].startswith("Extract as JSON: a, b.\n\n")
    assert flat_names(plan(NESTED)) is None
    # Without evidence the question is the same: the built-in model was taught this one.
    free = Extract.of_fields(["a", "b"]).schema
    assert flat_names(plan(free, evidence=False)) == ["a", "b"]
    assert flat_names(plan(NESTED, evidence=False)) is None


def test_kinds_of_leaves():
    root = plan(NESTED)
    kinds = {n: p.kind for n, p in root.properties.items() if isinstance(p, Leaf)}
    assert kinds == {
        "name": "copied", "total": "number", "due": "date", "kind": "quoted", "paid": "quoted",
        "note": "copied", "code": "copied", "comment": "free",
    }  # fmt: skip
    free = plan(NESTED, evidence=False)
    assert {p.kind for p in free.properties.values() if isinstance(p, Leaf)} == {"free"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"}, {"type": "object"}, True and {"type": "array", "items": {}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"$ref": "http://x/y"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/no"}}},
        {"type": "object", "properties": {"a": {"type": "boolean", "x-evidence": "copy"}}},
        {"type": "object", "properties": {"a": {"type": "string", "x-evidence": "maybe"}}},
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(600)}},
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_planned_are_refused_at_once(schema):
    with pytest.raises(ConstraintError):
        Extract(schema)


def test_a_schema_of_alternatives_is_one_quoted_value():
    schema = {
        "type": "object",
        "properties": {"who": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
        "required": ["who"],
    }
    reply = '{"who": {"quote": "Bob", "value": 3}}'
    (answer,) = extract(always(reply), ["It was Bob."], schema)
    check(answer, "It was Bob.", schema)


def test_nothing_to_copy_is_said_before_anything_is_asked(llm):
    schema = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    (answer,) = extract(LLMAsker(llm), ["no figures"], schema)
    assert isinstance(answer.error, ConstraintError)
    (answer,) = extract(LLMAsker(llm), ["no figures"], ["n:number", "ns:number[]"])
    assert answer.value["values"] == {"n": None, "ns": []}


@pytest.mark.parametrize(
    "value",
    [None, {}, {"schema": True, "text": "a"}, {"schema": {"x-in-text": 3}, "text": "a"},
     {"schema": {"x-in-text": True}, "text": "a" * 500_000},
     {"schema": {"x-in-text": True}, "text": "\ud800"}, {"schema": {"x-in-text": "("}, "text": "a"},
     {"schema": {"x-in-text": True}, "text": " "}],
)  # fmt: skip
def test_grounded_constraints_that_cannot_be_kept(value):
    with pytest.raises(ConstraintError):
        grounded_grammar(value)


def test_a_grounded_answer_is_a_form_like_any_other(llm):
    schema = answer_schema(plan({"type": "object", "properties": {"a": {"type": "string"}},
                                 "required": ["a"]}))  # fmt: skip
    text = 'say "%json" \\ or /x/'
    for seed in range(6):
        done = llm.generate(
            "Go on:", SamplingParams(temperature=1.5, max_tokens=200, seed=seed),
            constraint=Constraint("grounded", {"schema": schema, "text": text}),
        )  # fmt: skip
        assert json.loads(done.text)["a"] in text


# -- shorthand ------------------------------------------------------------------------------------


def test_shorthand_says_a_schema():
    task = Extract.of_fields(["a", "b: number", "c:x|y", "d:date[]", "e:int", "f:id", "g:x|y[]"])
    properties = task.schema["properties"]
    assert properties["a"] == {"type": ["string", "null"]}
    assert properties["b"] == {"type": ["number", "null"]}
    assert properties["c"] == {"enum": ["x", "y", None]}
    assert properties["d"] == {"type": "array", "items": {"type": "string", "format": "date"}}
    assert properties["e"] == {"type": ["integer", "null"]}
    assert properties["g"] == {"type": "array", "items": {"enum": ["x", "y"]}}
    jsonschema.Draft202012Validator.check_schema(task.schema)


@pytest.mark.parametrize("field", ["a:colour", "a:x|", "a:x|x", ":text", "a:[]"])
def test_shorthand_that_says_nothing(field):
    with pytest.raises(InvalidParameterError):
        Extract.of_fields([field])
