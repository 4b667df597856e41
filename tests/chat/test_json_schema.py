# SPDX-License-Identifier: Apache-2.0
"""Schemas that are kept exactly, refused by name, or refused because they would take for ever."""

from __future__ import annotations

import json
import random
import threading

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from schema_instances import BYTES, compiled, takes

from freehold.chat.deep_stack import STACK_BYTES, on_deep_stack
from freehold.chat.json_conjunction import most_patterns_at_once
from freehold.chat.json_schema import MAX_BYTES, schema_grammar, unsupported
from freehold.errors import ConstraintError

KNOWN_FORMATS = (
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid",
)  # fmt: skip


def drawn(grammar, rng: random.Random, limit: int = 200) -> str | None:
    """A text out of a grammar, each byte as likely as any; None where it would not end."""
    constraint = grammar.start()
    out: list[int] = []
    while not constraint.done:
        allowed = np.flatnonzero(constraint.mask()).tolist()
        if out and out[-1] == 256:
            break
        if len(out) > limit:
            return None
        # What ends a text is taken more often, or most would be cut.
        ends = [t for t in allowed if t in (256, ord('"'))]
        out.append(ends[0] if ends and rng.random() < 0.2 else rng.choice(allowed))
        constraint.accept(out[-1])
    return bytes(b for b in out if b < 256).decode("utf-8")


@pytest.mark.parametrize("name", KNOWN_FORMATS)
def test_what_is_written_in_a_format_is_of_that_format(name):
    check = Draft202012Validator.FORMAT_CHECKER
    assert name in check.checkers, "jsonschema[format] is not installed"
    rng, texts = random.Random(5), []
    grammar = compiled({"type": "string", "format": name})
    for _ in range(60):
        text = drawn(grammar, rng)
        if text is not None:
            texts.append(json.loads(text))
    assert len(set(texts)) > 20
    assert [text for text in texts if not check.conforms(text, name)] == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", ["2024-02-29", "2000-02-29", "1999-12-31"],
         ["2023-02-29", "1900-02-29", "0000-01-01", "2024-04-31", "2024-1-01", "2024-13-01"]),
        ("time", ["23:59:59Z", "00:00:00.123+14:00"], ["23:59:60Z", "24:00:00Z", "12:00:00"]),
        ("date-time", ["2024-02-29t23:59:59z"], ["2024-02-30T00:00:00Z", "2024-02-29 00:00:00Z"]),
        ("hostname", ["a", "a-b.c", "a" * 63, ".".join(["a" * 63] * 3)],
         ["-a", "a-", "a" * 64, "ab--c", "", "a..b", ".".join(["a" * 63] * 4)]),
    ],
)  # fmt: skip
def test_borders_of_formats(name, good, bad):
    grammar = compiled({"format": name})
    assert all(takes(grammar, text) for text in good)
    assert not any(takes(grammar, text) for text in bad)
    assert takes(grammar, 5)  # a format says nothing of what is no text
    both = compiled({"type": "string", "format": name, "pattern": "^[^0-9]*$", "maxLength": 20})
    assert not isinstance(both, str) or "satisf" in both
    assert name != "hostname" or (takes(both, "a-b.c") and not takes(both, "a1"))


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {"type": "null"}}, "contains"),
        ({"if": {"type": "string"}, "then": {"minLength": 1}}, "if"),
        ({"propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"dependencies": {"a": ["b"]}}, "dependencies"),
        ({"unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"type": "string", "contentEncoding": "base64"}, "contentEncoding"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "string", "format": "idn-email"}, "format 'idn-email'"),
        ({"$ref": "https://example.com/other.json"}, "$ref"),
        ({"$ref": "file:///etc/passwd"}, "$ref"),
        ({"$id": "https://example.com/a", "$ref": "#/x"}, "$id"),
        ({"const": {"format": "date"}, "$ref": "#/const"}, "$ref"),
        ({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2}, "minProperties"),
        ({"properties": {"x": {"not": {}}}}, "not"),
        ({"allOf": [{"pattern": c} for c in "abcdefghi"]}, "patterns"),
        ({"patternProperties": {"a": {"type": "null"}, "b": {}}}, "patternProperties"),
        ({"const": "a\0b"}, "a\\x00b"),
        ({"properties": {"\x7f": {}}}, "\\x7f"),
        ({"enum": ["\ud800"]}, "\\ud800"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(schema, keyword):
    refusal = compiled(schema)
    assert isinstance(refusal, str)
    assert keyword in refusal
    assert unsupported(schema) == refusal


@pytest.mark.parametrize(
    "schema",
    [
        5, None, [], "{}", {"type": "strin"}, {"type": 5}, {"properties": [1]}, {1: 2},
        {"minLength": "x", "type": "string"}, {"minLength": -1, "type": "string"},
        {"default": float("nan")}, {"x": ...}, {"pattern": "(", "type": "string"},
        False, {"enum": []}, {"type": "integer", "minimum": 5, "maximum": 3}, {"$ref": "#/nowhere"},
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_schema_or_matches_nothing_is_refused(schema):
    refusal = compiled(schema)
    assert isinstance(refusal, str)
    assert refusal.strip()
    assert len(refusal) < 500


@pytest.mark.parametrize("schema", [True, {}, {"description": "any"}, {"nullable": True}])
def test_schemas_that_say_nothing_take_everything(schema):
    grammar = compiled(schema)
    assert all(takes(grammar, x) for x in (None, 5, -1.5e3, "é", [], {"a": [{}]}, True))
    assert not grammar.accepts(b"")
    assert not grammar.accepts(b"{'a': 1}")


def test_references_in_circles():
    tree = {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}}}}
    grammar = compiled(tree)
    assert takes(grammar, {"c": [{}, {"c": [{"c": []}]}]})
    assert not takes(grammar, {"c": [{"c": [5]}]})
    endless = compiled({"$ref": "#"})
    assert isinstance(endless, str) or not takes(endless, {})


# -- hostile ones ---------------------------------------------------------------------------------


def chain(length: int, link) -> dict:
    links = {f"a{i}": link({"$ref": f"#/$defs/a{i + 1}"}) for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": {**links, f"a{length}": {"type": "null"}}}


@pytest.mark.parametrize(
    ("length", "link"),
    [
        (5000, lambda x: x),  # more than a usual stack holds
        (600, lambda x: {"anyOf": [{"type": "string"}, x]}),
        (1500, lambda x: {"allOf": [x]}),
    ],
    ids=["ref", "anyOf", "allOf"],
)
def test_long_chains_of_references_end_no_process(length, link):
    schema = chain(length, link)
    grammar = on_deep_stack(lambda: compiled(schema))
    assert not isinstance(grammar, str)
    assert takes(grammar, None)
    assert unsupported(schema) is None


def nested(depth: int, wrap) -> dict:
    schema: dict = {"type": "null"}
    for _ in range(depth):
        schema = wrap(schema)
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(20_000, lambda s: {"items": s}),
        nested(60, lambda s: {"properties": {"a": {"items": s}}}),
        {"type": "object", "properties": {f"p{i}": {} for i in range(1001)}},
        {"enum": ["x" * MAX_BYTES]},
        {"enum": [[0] * 400_000, [1] * 400_000]},
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {}}} for j in range(8)]}
                   for i in range(8)]},
        {"type": "number", "multipleOf": 1e-300},
        {"type": "integer", "minimum": -(10**400)},
        {"allOf": [{"pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrstuvwxyz"]},
    ],
    ids=["deep", "deep objects", "wide", "long", "many", "product", "fraction", "number", "meet"],
)  # fmt: skip
def test_too_much_is_refused_at_once(schema):
    assert isinstance(compiled(schema), str)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**6},
        {"type": "string", "pattern": "(a|b)*a(a|b){30}$"},
        {"type": "string", "pattern": "^((a{1,100}){1,100}){1,100}$"},
        {"enum": [f"x{i}" for i in range(20_000)]},
        nested(8, lambda s: {"type": "object", "properties": {"a": s, "b": s}}),
    ],
    ids=["string", "array", "regex", "nested regex", "enum", "tree"],
)
def test_the_first_steps_into_a_large_one_are_taken_or_refused(schema):
    grammar = compiled(schema)
    if isinstance(grammar, str):
        return
    constraint = grammar.start()
    for _ in range(20):
        try:
            token = np.flatnonzero(constraint.mask())[0]
            constraint.accept(int(token))
        except ConstraintError:
            return


def test_the_bound_on_patterns_adds_what_meets_and_nothing_else():
    p = {"pattern": "x"}
    assert most_patterns_at_once({"properties": {f"a{i}": p for i in range(50)}}) == 1
    assert most_patterns_at_once({"allOf": [p, p], **p}) == 3
    assert most_patterns_at_once({"anyOf": [p, {"allOf": [p, p]}], **p, "format": "date"}) == 4
    assert most_patterns_at_once({"$defs": {"a": {"allOf": [p] * 9}}}) == 0
    shared = {"$defs": {"a/b": {"properties": {"k": p}}}, "allOf": [{"$ref": "#/$defs/a~1b"}] * 2}
    assert most_patterns_at_once({**shared, "properties": {"k": p}}) == 3
    assert most_patterns_at_once({"properties": {"a": p}, "patternProperties": {"a": p}}) == 2
    circle = {"items": {"$ref": "#"}, **p}
    assert most_patterns_at_once(circle) == 1


def test_a_deep_stack_gives_back_what_was_made_or_raised():
    before = threading.stack_size()
    assert on_deep_stack(lambda: threading.stack_size()) in (before, STACK_BYTES)
    assert threading.stack_size() == before
    with pytest.raises(ZeroDivisionError):
        on_deep_stack(lambda: 1 // 0)


def test_the_layout_is_ours_whatever_the_schema_says():
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}}
    part = schema_grammar(schema)["json_schema"]["x-guidance"]
    assert (part["whitespace_flexible"], part["lenient"]) == (False, False)
    grammar = compiled(schema)
    assert grammar.accepts(b'{"a": 1, "b": [1, 2]}')
    for text in (b'{"a":1}', b'{ "a": 1}', b'{"a": 1,"b": 2}', b'{"a": [1,2]}', b' {"a": 1}'):
        assert not grammar.accepts(text)
    assert BYTES.size == 257
