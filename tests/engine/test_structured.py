# SPDX-License-Identifier: Apache-2.0
"""Masks, forced tokens and grammars against lists of all that a language holds."""

from __future__ import annotations

import itertools
import json

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_grammars import (
    EOS,
    PIECES,
    allowed_after,
    languages,
    longest_first,
    text_of,
    vocabulary,
)

from freehold.chat.json_schema import schema_grammar
from freehold.engine.structured import Grammar, MaskWorker, TokenVocabulary
from freehold.errors import ConstraintError

SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)
VOCABULARY = vocabulary()
# All bytes, and pieces that cross the borders of JSON's parts.
JSON_PIECES = [
    *(bytes([i]) for i in range(256)),
    b'{"', b'": ', b'", "', b"tr", b"true", b"ue}", b', "b', b"1,", b"2]", b'"}', b"false", b"]}",
    "é".encode(),
]  # fmt: skip
JSON_VOCABULARY = vocabulary(JSON_PIECES)


def lark(text: str, tokens: TokenVocabulary = VOCABULARY) -> Grammar:
    return tokens.compile(json.dumps({"grammars": [{"lark_grammar": text}]}))


def regex(pattern: str) -> Grammar:
    return lark(f"start: /{pattern}/")


def states(grammar: Grammar, pieces, limit: int):
    """(text, constraint) of ways into the grammar, the shortest first, by its own masks."""
    queue: list[tuple[int, ...]] = [()]
    for _ in range(limit):
        if not queue:
            return
        path = queue.pop(0)
        constraint = grammar.start()
        for token in path:
            constraint.accept(token)
        if not constraint.done:
            queue += [(*path, int(t)) for t in np.flatnonzero(constraint.mask()) if t < len(pieces)]
        yield text_of(path, pieces), constraint


def check_masks(grammar: Grammar, words, pieces, limit: int) -> None:
    """Exactly the tokens that keep a word in reach; of text that is forced, its spelling alone."""
    for text, constraint in states(grammar, pieces, limit):
        wanted = allowed_after(text, words, pieces)
        assert constraint.done == (wanted == {len(pieces)})
        if not constraint.done:
            forced = constraint.forced()[:1]
            assert set(forced) <= wanted
            assert set(np.flatnonzero(constraint.mask())) == (set(forced) or wanted), text


@SETTINGS
@given(languages())
def test_masks_allow_exactly_what_keeps_a_word_in_reach(language):
    check_masks(regex(language.pattern), language.words, PIECES, 40)


def shared_beginning(words: list[bytes]) -> bytes:
    columns = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return bytes(column[0] for column in columns)


@SETTINGS
@given(languages())
def test_forced_tokens_spell_what_all_words_have_in_common(language):
    spell = longest_first(PIECES)
    for text, constraint in states(regex(language.pattern), PIECES, 40):
        forced = constraint.forced()
        common = shared_beginning([w[len(text) :] for w in language.words if w.startswith(text)])
        # The tokenizer's own spelling, as far as no token that may follow could change it.
        assert forced == spell(common)[: len(forced)]
        for token in forced:
            assert list(np.flatnonzero(constraint.mask())) == [token]
            constraint.accept(token)


def test_everything_is_forced_where_no_token_crosses_a_border():
    constraint = lark('start: "abcab" /[ab]/ "cc"', vocabulary((b"a", b"b", b"c"))).start()
    assert constraint.forced() == [0, 1, 2, 0, 1]
    for token in (0, 1, 2, 0, 1, 1):
        constraint.accept(token)
    assert constraint.forced() == [2, 2]


@SETTINGS
@given(languages(), st.data())
def test_whole_answers_are_told_from_others(language, data):
    grammar, spell = regex(language.pattern), longest_first(PIECES)
    word = data.draw(st.sampled_from(sorted(language.words)))
    assert grammar.accepts(spell(word))
    other = data.draw(st.text("abc", max_size=6)).encode()
    assert grammar.accepts(spell(other)) == (other in language.words)


def test_lark_rules_and_references():
    grammar = lark('start: pair ("c" pair)*\npair: LETTER LETTER\nLETTER: "a" | "b"')
    words = [b"%s" % b"c".join(p) for n in (1, 2, 3)
             for p in itertools.product([b"aa", b"ab", b"ba", b"bb"], repeat=n)]  # fmt: skip
    spell = longest_first(PIECES)
    assert all(grammar.accepts(spell(word)) for word in words)
    assert not any(grammar.accepts(spell(word)) for word in (b"a", b"aac", b"aacb", b"aabb", b""))


def test_any_of_several_ends_may_end_an_answer():
    grammar = lark('start: "a" "b"?', vocabulary(PIECES, ends=2))
    constraint = grammar.start()
    constraint.accept(0)
    assert set(np.flatnonzero(constraint.mask())) == {1, EOS, EOS + 1}
    constraint.accept(EOS + 1)
    assert constraint.done


# -- JSON -----------------------------------------------------------------------------------------

SCHEMAS = {
    "enum": {"enum": [1, "x", None, {"a": [True]}, -2.5, "é\n"]},
    "object": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, "x"]}},
        "required": ["a"],
        "additionalProperties": False,
    },
    "array": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [{"const": "p"}, {"type": "null"}], "items": False},
    "any": {"anyOf": [{"const": {"k": 1}}, {"type": "boolean"}]},
    "range": {"type": "integer", "minimum": -3, "maximum": 12},
    "reference": {
        "$defs": {"n": {"enum": [0, 7]}},
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/n"}},
        "required": ["n"],
        "additionalProperties": False,
    },
}


def instances(schema) -> list[bytes]:
    """The JSON text, in our layout, of every instance out of a stock that holds them all."""
    stock: list[object] = [None, True, False, *range(-12, 30), -2.5, "x", "p", "é\n", "k"]
    stock += [{"a": [True]}, {"k": 1}, ["p"], ["p", None], [None], ["p", None, 1]]
    stock += [list(row) for n in range(4) for row in itertools.product([1, 2], repeat=n)]
    for a, b, n in itertools.product([None, True, False], [None, 1, "x"], [None, 0, 7, 8]):
        pairs = {"a": a, "b": b, "n": n}
        stock.append({key: value for key, value in pairs.items() if value is not None})
    check = jsonschema.Draft202012Validator(schema)
    texts = [json.dumps(x, ensure_ascii=False).encode() for x in stock if check.is_valid(x)]
    return [*texts, *([b"-0"] if schema.get("type") == "integer" else [])]


@pytest.mark.parametrize("name", SCHEMAS)
def test_masks_of_schemas_allow_exactly_what_keeps_an_instance_in_reach(name):
    words = instances(SCHEMAS[name])
    part = schema_grammar(SCHEMAS[name])
    grammar = JSON_VOCABULARY.compile(json.dumps({"grammars": [part]}))
    assert all(grammar.accepts([*word]) for word in words)
    check_masks(grammar, words, JSON_PIECES, 150)


# -- errors and the worker ------------------------------------------------------------------------


def test_a_token_that_may_not_come_is_an_error():
    constraint = regex("a").start()
    with pytest.raises(ConstraintError):
        constraint.accept(1)
    with pytest.raises(ConstraintError):
        constraint.mask()


@pytest.mark.parametrize(
    "text", ["", "start: unknown", "start: /(/", "start: a\na: a", "{", '{"x": 1}']
)
def test_what_is_no_grammar_is_refused(text):
    with pytest.raises(ConstraintError, match=r"no answer of this form can be made: .") as caught:
        VOCABULARY.compile(text)
    assert len(str(caught.value)) < 500


def test_a_vocabulary_needs_an_end():
    with pytest.raises(ConstraintError, match="ends an answer"):
        TokenVocabulary(PIECES, (), (), longest_first(PIECES))


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_worker_computes_what_each_would_alone(count):
    grammars = [regex(p) for p in ("a|bc", "ab?c*", "[abc]{3}")]
    worker = MaskWorker()
    for _ in range(2):
        many = [grammars[i % 3].start() for i in range(count)]
        worker.begin(many)
        worker.join()
        for i, constraint in enumerate(many):
            assert np.array_equal(constraint.mask(), grammars[i % 3].start().mask())
    worker.begin([])
    worker.join()


def test_one_in_error_spoils_no_other():
    bad, good, other = regex("a").start(), regex("ab?").start(), regex("c|b").start()
    with pytest.raises(ConstraintError):
        bad.accept(2)
    worker = MaskWorker()
    worker.begin([bad, good, other])
    worker.join()
    assert set(np.flatnonzero(good.mask())) == {0, 3}
    assert set(np.flatnonzero(other.mask())) == {1, 2}
    with pytest.raises(ConstraintError):
        bad.mask()
