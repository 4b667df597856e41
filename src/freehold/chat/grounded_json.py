# SPDX-License-Identifier: Apache-2.0
"""JSON whose marked strings are copied from a text: a schema and the text, as one grammar.

A string of the schema that says ``"x-in-text": true`` holds consecutive words of the text, whole
ones; with a regular expression in place of true they match it. What else a schema may be here is
what an answer is planned as: objects whose properties are all there, in order; lists; ``anyOf`` of
null and one other; and any other schema, which is kept as everywhere (`json_schema`). Knows neither
documents nor what is done with the words.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from freehold.chat.byte_grammar import can_begin
from freehold.chat.json_schema import schema_grammar
from freehold.errors import ConstraintError

IN_TEXT = "x-in-text"  # the mark in a schema
MAX_TEXT = 400_000  # characters; the grammar takes some 100 times as many bytes
MAX_COPIED = 600  # characters of one string, unless its schema says otherwise
MAX_PARTS = 2_000  # of an answer
MAX_DEPTH = 32
_ASCII_WORD = re.compile(r"[A-Za-z]+|[0-9]+|\s+|.", re.DOTALL)
_SLASH = re.compile(r"(?<!\\)/")
_BACKSLASHED = r"\\/"


def words(text: str) -> list[str]:
    """`text` in pieces that a copied string is made of: runs of letters with their accents, of
    digits and of blanks, other characters one by one; of scripts that write without blanks every
    character."""
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = []
    before = ""
    for character in text:
        kind = _kind(character)
        if found and (kind == "mark" or (kind == before and kind in ("letter", "digit", "blank"))):
            found[-1] += character
        else:
            found.append(character)
        if kind != "mark":
            before = kind
    return found


@lru_cache(maxsize=8192)
def _kind(character: str) -> str:
    if character.isspace():
        return "blank"
    category = unicodedata.category(character)
    if category[0] == "M" or character in "\u200c\u200d":
        return "mark"
    if category == "Nd":
        return "digit"
    if category[0] != "L":
        return "other"
    # Scripts without blanks between words: a name may begin and end at any character of them.
    alone = category == "Lo" and any(
        start <= character <= end
        for start, end in (
            ("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"),
            ("\u2e80", "\u9fff"), ("\uac00", "\ud7af"), ("\uf900", "\ufaff"),
            ("\U00020000", "\U0003ffff"),
        )
    )  # fmt: skip
    return "other" if alone else "letter"


def grounded_grammar(value: Any) -> dict[str, Any]:
    """A member of llguidance's list of grammars; `value` holds ``schema`` and ``text``.

    Raises ConstraintError for a schema of another form, or a text that is too long.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise ConstraintError("a grounded constraint holds a schema and a text")
    text = value["text"]
    if len(text) > MAX_TEXT:
        raise ConstraintError(f"a text of {len(text):,} characters; {MAX_TEXT:,} can be copied of")
    pieces = [_escaped(word) for word in words(text)]
    writer = _Writer(f"TEXT: %regex {_json({'substring_chunks': pieces})}")
    start = writer.rule(value.get("schema"), 0)
    if start is None:
        raise ConstraintError("there is nothing in the text of the form that is to be copied")
    return {"lark_grammar": "\n".join([f"start: {start}", *writer.lines, writer.text])}


class _Writer:
    """Rules of one grammar. A rule is None where nothing of its form can be made of the text: a
    grammar that begins on it all the same would never come to an end."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: list[str] = []
        self._count = 0
        self._shapes: dict[str, str | None] = {}  # patterns of copies -> names of terminals

    def rule(self, schema: Any, depth: int) -> str | None:
        """The symbols of a value."""
        self._count += 1
        if self._count > MAX_PARTS or depth > MAX_DEPTH:
            raise ConstraintError(
                f"the answer has more than {MAX_PARTS:,} parts, or nests too deeply"
            )
        if not isinstance(schema, Mapping):
            raise ConstraintError("the answer's schema is no schema")
        if IN_TEXT in schema:
            return self._copied(schema)
        if "anyOf" in schema and schema["anyOf"][0] == {"type": "null"}:
            other = self.rule(schema["anyOf"][1], depth + 1)
            return '"null"' if other is None else f'("null" | {other})'
        if schema.get("type") == "object" and _is_plain(schema):
            return self._object(schema, depth)
        if schema.get("type") == "array" and isinstance(schema.get("items"), Mapping):
            return self._list(schema, depth)
        part = schema_grammar(schema)
        return self._named(f"%json {_json(part['json_schema'])}")

    def _object(self, schema: Mapping[str, Any], depth: int) -> str | None:
        parts: list[str] = []
        for name, inner in schema["properties"].items():
            rule = self.rule(inner, depth + 1)
            if rule is None:
                return None
            parts.append(f"{_literal(json.dumps(name, ensure_ascii=False) + ': ')} {rule}")
        return self._named('"{" ' + ' ", " '.join(parts) + ' "}"')

    def _list(self, schema: Mapping[str, Any], depth: int) -> str | None:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        rule = None if most == 0 else self.rule(schema["items"], depth + 1)
        if rule is None:
            return None if least else '"[]"'
        item = self._named(rule)
        more = f'(", " {item}){{{max(0, least - 1)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {more} "]"' if least else f'("[]" | "[" {item} {more} "]")'

    def _copied(self, schema: Mapping[str, Any]) -> str | None:
        least, most = schema.get("minLength", 1), schema.get("maxLength", MAX_COPIED)
        shape = schema[IN_TEXT]
        if shape is True:
            # It begins and ends with something to see. Escapes count as they are written.
            inner = f"(?s:.{{{max(0, least - 2)},{max(0, most - 2)}}})"
            shape = f"[^ ]{inner}[^ ]" if least > 1 else f"[^ ]({inner}[^ ])?"
        elif not isinstance(shape, str):
            raise ConstraintError(f"{IN_TEXT} is true or a pattern, not {shape!r:.40}")
        if shape not in self._shapes:
            terminal = f"COPY{len(self._shapes)}"
            line = f"{terminal}: TEXT & /{_SLASH.sub(_BACKSLASHED, shape)}/"
            # There is no empty copy: what begins can be ended.
            begins = can_begin(f"start: {terminal}\n{line}\n{self.text}")
            self._shapes[shape] = terminal if begins else None
            self.lines += [line] * begins
        name = self._shapes[shape]
        return None if name is None else f'"\\"" {name} "\\""'

    def _named(self, body: str) -> str:
        name = f"part{len(self.lines)}"
        self.lines.append(f"{name}: {body}")
        return name


def _is_plain(schema: Mapping[str, Any]) -> bool:
    """Whether all properties are there, in order, and nothing else."""
    properties = schema.get("properties")
    return (
        isinstance(properties, Mapping)
        and bool(properties)
        and list(schema.get("required", ())) == list(properties)
        and schema.get("additionalProperties") is False
    )


def _escaped(text: str) -> str:
    """As it stands inside a JSON string. There is one spelling for each character."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        raise ConstraintError("the text holds a lone surrogate, which no encoding has") from None
    return text
