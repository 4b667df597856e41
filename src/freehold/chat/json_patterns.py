# SPDX-License-Identifier: Apache-2.0
r"""Regular expressions as JSON Schema means them, in the dialect of the grammar library.

JSON Schema takes ECMAScript's, the library Rust's, and many a validator Python's. Where they read a
pattern differently it is written so that what matches it matches by all of them (``\d`` is 0 to 9,
``\S`` is no white space anybody knows), or refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from freehold.errors import ConstraintError

# Those JSON has letters for: others cannot be written in an answer.
_WRITABLE = frozenset("\b\t\n\f\r")
_LETTERS = {"b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "0": "\0"}
_QUANTIFIER = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_GROUP = re.compile(r"\(\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>)")
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")


@dataclass(frozen=True)
class _Set:
    """Members of a class escape: those all dialects agree on, ECMAScript's, and all of any."""

    narrow: str
    ecma: str
    wide: str


_SPACES = r"\t\n\x0b\x0c\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CLASSES = {
    "d": _Set("0-9", "0-9", r"\p{Nd}"),
    "w": _Set("A-Za-z0-9_", "A-Za-z0-9_", r"\p{L}\p{N}_"),
    "s": _Set(_SPACES, _SPACES + r"\ufeff", _SPACES + r"\ufeff\x1c-\x1f\u0085"),
}
_NOT_LINE_ENDS = r"[^\n\r\u2028\u2029]"


def is_writable(char: str) -> bool:
    """Whether an answer can hold this character in a JSON string."""
    return (char >= " " and char != "\x7f" and not "\ud800" <= char <= "\udfff") or (
        char in _WRITABLE
    )


def library_pattern(pattern: str, *, exact: bool = False) -> str:
    r"""The same pattern for the library; `exact` keeps to ECMAScript, whatever others say.

    Raises ConstraintError for what dialects read differently, or no JSON string of ours can hold.
    """
    return _Reader(pattern, exact).read()


class _Reader:
    def __init__(self, pattern: str, exact: bool) -> None:
        self._pattern, self._exact = pattern, exact
        self._at = 0

    def read(self) -> str:
        out: list[str] = []
        while self._at < len(self._pattern):
            char = self._pattern[self._at]
            if char == "[":
                out.append(self._class())
            elif char == "\\":
                found = self._escape(in_class=False)
                out.append(_literal(self._checked(found)) if len(found) == 1 else found)
            elif char == ".":
                self._at += 1
                out.append(_NOT_LINE_ENDS)
            elif char == "{":
                out.append(self._brace())
            elif char == "(":
                out.append(self._group())
            elif char in "]}":
                self._at += 1
                out.append("\\" + char)
            else:
                self._at += 1
                out.append(self._checked(char))
        return "".join(out)

    def _refuse(self, what: str) -> ConstraintError:
        return ConstraintError(f"the pattern {self._pattern!r:.80} has {what}")

    def _checked(self, char: str) -> str:
        if not is_writable(char):
            raise self._refuse(f"the character {char!r}, which an answer cannot hold")
        return char

    def _group(self) -> str:
        found = _GROUP.match(self._pattern, self._at)
        if found is None and self._pattern.startswith("(?", self._at):
            raise self._refuse("a group with conditions or flags, which grammars do not know")
        self._at += 1 if found is None else len(found[0])
        return "(" if found is None else "(?:"

    def _brace(self) -> str:
        found = _QUANTIFIER.match(self._pattern, self._at)
        if found is None:
            if self._pattern.startswith("{,", self._at):
                raise self._refuse("{,…}, which dialects read differently")
            self._at += 1
            return "\\{"
        self._at += len(found[0])
        return found[0]

    def _escape(self, *, in_class: bool) -> str:
        """One character, or a class in brackets."""
        char = self._pattern[self._at + 1 : self._at + 2]
        found = _HEX.match(self._pattern, self._at + 1)
        if found is not None:
            self._at += 1 + len(found[0])
            code = int(found[1] or found[2] or found[3], 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
                raise self._refuse("a code that is no character")
            return chr(code)
        self._at += 2
        if char and not char.isalnum():
            return char
        if char.lower() in _CLASSES:
            return self._class_escape(char, widely=False)
        digits = self._pattern[self._at : self._at + 1].isdigit()
        if char in _LETTERS and not (char == "0" and digits) and not (char == "b" and not in_class):
            return _LETTERS[char]
        raise self._refuse(f"\\{char}, which grammars do not know or dialects read differently")

    def _class_escape(self, char: str, *, widely: bool) -> str:
        """A class in brackets, as few or as many members as dialects give it."""
        members = _CLASSES[char.lower()]
        negated = char.isupper()
        inner = members.wide if widely != negated else members.narrow
        return f"[{'^' if negated else ''}{members.ecma if self._exact else inner}]"

    def _class(self) -> str:
        self._at += 1
        negated = self._pattern.startswith("^", self._at)
        self._at += negated
        parts: list[str] = []
        writable = negated
        if self._pattern.startswith("]", self._at):
            raise self._refuse("[] or [^], which dialects read differently")
        while not self._pattern.startswith("]", self._at):
            first = self._member(negated)
            ranged = self._pattern.startswith("-", self._at) and not self._pattern.startswith(
                "-]", self._at
            )
            if not ranged:
                parts.append(_literal(first) if len(first) == 1 else first)
                writable |= len(first) > 1 or is_writable(first)
                continue
            self._at += 1
            last = self._member(negated)
            if len(first) > 1 or len(last) > 1 or first > last:
                raise self._refuse("a range that is none")
            parts.append(f"{_literal(first)}-{_literal(last)}")
            writable |= any(is_writable(chr(c)) for c in range(ord(first), ord(last) + 1))
        self._at += 1
        if not writable:
            raise self._refuse("a class of characters which an answer cannot hold")
        return f"[{'^' if negated else ''}{''.join(parts)}]"

    def _member(self, negated: bool) -> str:
        char = self._pattern[self._at : self._at + 1]
        if not char:
            raise self._refuse("an open bracket")
        if char != "\\":
            self._at += 1
            return char
        letter = self._pattern[self._at + 1 : self._at + 2]
        if letter.lower() in _CLASSES:
            self._at += 2
            return self._class_escape(letter, widely=negated)
        return self._escape(in_class=True)


def _literal(char: str) -> str:
    """One character that means itself, inside brackets and outside."""
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    return char if char.isalnum() or ord(char) > 126 or char in " <>" else "\\" + char
