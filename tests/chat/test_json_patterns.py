# SPDX-License-Identifier: Apache-2.0
"""Patterns of schemas against Python's own reading of them, over all short texts."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_instances import BYTES, compiled, takes

from freehold.chat.json_patterns import library_pattern
from freehold.errors import ConstraintError

# Python warns of classes that it may read as operations one day.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

# Anchors in odd places, alternatives beside them, classes that Rust would read as operations.
PATTERNS = [
    "a", "^a", "a$", "^a$", "^a|b$", "^(a|b$)", "(^a|b)$", "a|^b", "^$", "", "^", "$", "a*", "^a*$",
    "^a{2}$", "^a{1,}b?$", "^[ab]{2,3}$", "^(?:a|-)+$", "^(?<x>a)b$", "^(?P<y>a)b$", "^a+?b$",
    "^[a&&b]$", "^[^a&&b]$", "^[^[a]]$", "^[[a]$", "^[a~~b]$", "^[^a~~b]$", "^[^+--]$", "^[--a]$",
    "^[a-]$", "^[-a]$", "^[a\\-b]$", "^[\\]a]$", "^[.]$", "^.$", "^\\.$", "^\\-$", "^a\\/b$", "^/$",
    "^\\d$", "^\\D$", "^\\w$", "^\\W$", "^\\s$", "^\\S$", "^[\\s]$", "^[^\\s]$", "^[^\\S]$",
    "^[\\S]$", "^[\\D1]$", "^[^\\d]$", "^[^\\W]$", "^[\\W]$", "^\\x61$", "^\\u0061$", "^[\\n-a]$",
    "^\\n$", "^[\\n]$", "^\\t?$", "^a}$", "^a]$", "^{a$", "^[ab]\\s[ab]$", "a.b", "^&$", "^~$",
    "^[a-b1-1]$", "^[^-]$", "^[^a-]$", "^#a$", "^a b$", "^ $", "^[\\x00-\\x1f]$",
    "^[^\\x00-\\x1f]$",
]  # fmt: skip
LETTERS = ["a", "b", "1", "-", " ", "\n", "&", "~", "[", "]", ".", "/", "_", "{", "}", "+", "#",
           "\t", "é", "\u0661", "\u2028", "\ufeff", "\x85", "\xa0", "²", "ª"]  # fmt: skip
SHORT = ["", *LETTERS, *map("".join, itertools.product("ab-1] ", repeat=2)),
         *map("".join, itertools.product("ab]", repeat=3)), "a b", "a\nb", "a/b", "{a", "a}", "#a",
         "aaa", "b\n", "\nb", "a\n"]  # fmt: skip


def python_reads(pattern: str) -> re.Pattern[str]:
    """Python has no ``(?<name>`` of its own."""
    return re.compile(pattern.replace("(?<x>", "(?P<x>"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_we_write_matches(pattern):
    grammar = compiled({"type": "string", "pattern": pattern})
    assert not isinstance(grammar, str), grammar
    reads = python_reads(pattern)
    written = [text for text in SHORT if takes(grammar, text)]
    assert [text for text in written if not reads.search(text)] == []
    # In ASCII all agree, and nothing is left out but a line's end that Python lets "$" pass.
    plain = [x for x in SHORT if x.isascii() and not x.endswith("\n") and reads.search(x)]
    assert [text for text in plain if text not in written] == []


def atoms() -> st.SearchStrategy[str]:
    return st.sampled_from(
        ["a", "b", "[ab]", "[^a]", "\\d", "\\w", ".", "-", "\\s", "(?:ab|a)", "(a|)", "^", "$"]
    )


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(atoms(), st.sampled_from(["", "", "*", "?", "{1,2}"])), max_size=4),
       st.sampled_from(["", "|b", "|^a", "|$"]))  # fmt: skip
def test_any_pattern_matches_what_we_write(parts, tail):
    pattern = "".join(a + (q if a not in "^$" else "") for a, q in parts) + tail
    grammar = compiled({"type": "string", "pattern": pattern})
    if isinstance(grammar, str):  # nothing may match, as of "a^"
        return
    reads = re.compile(pattern, re.ASCII)
    for text in SHORT:
        if takes(grammar, text):
            assert reads.search(text), text


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?!a)b", "(?<=a)b", "(?i)a", "(a)\\1", "\\A", "a\\z", "\\Qa\\E", "\\cA", "\\07",
     "[]", "[^]", "[b-a]", "[a", "(", "a{,3}", "\\ud83d", "\\u{110000}", "a\\", "\\x0", "[\\d-z]",
     "\x00", "\\x00", "\\0", "[\\x00-\\x05]", "\\bword"],
)  # fmt: skip
def test_what_is_read_differently_is_refused_by_its_text(pattern):
    refusal = compiled({"type": "string", "pattern": pattern})
    assert isinstance(refusal, str)
    assert len(refusal) < 400


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|aa)+$", "(x+x+)+y", "^(.*)*$", "(a*)*b"])
def test_patterns_that_explode_elsewhere_are_just_patterns(pattern):
    grammar = compiled({"type": "string", "pattern": pattern})
    assert not isinstance(grammar, str)
    assert not takes(grammar, "a" * 4000 + "!") or pattern == "^(.*)*$"


def test_the_reading_of_names_keeps_to_ecmascript():
    schema = {"patternProperties": {"^\\d$": {"const": 1}, "^[0-9]$": {"type": "integer"}}}
    grammar = compiled(schema)
    assert takes(grammar, {"5": 1})
    assert not takes(grammar, {"5": 2})
    assert takes(grammar, {"x": "any"})
    assert library_pattern("\\s") != library_pattern("\\s", exact=True)
    with pytest.raises(ConstraintError, match="conditions or flags"):
        library_pattern("(?=a)", exact=True)


def test_a_lone_name_of_a_property_has_one_spelling():
    grammar = compiled({"properties": {"a": {"type": "integer"}, 'q"\\': {"type": "null"}}})
    for text in ('{"\\u0061": "x"}', '{"a": "x"}', '{"q\\u0022\\\\": 1}', '{"q\\"\\\\": 1}',
                 '{"b": 1, "a": "x"}', '{"a": 1, "a": "x"}'):  # fmt: skip
        assert not grammar.accepts(text.encode()), text
        assert json.loads(text) is not None
    assert grammar.accepts(b'{"a": 1, "q\\"\\\\": null, "b": "x"}')
    assert BYTES.size == 257
