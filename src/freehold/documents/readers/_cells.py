# SPDX-License-Identifier: Apache-2.0
"""What the cells of a spreadsheet say: shared strings, number formats, dates.

Knows how SpreadsheetML stores values (ECMA-376 part 1, 18.3.1.4, 18.8.30 and 18.17.4); knows
nothing of sheets and how they are laid out.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import re
from collections.abc import Iterable

from freehold.documents.document import Limits
from freehold.documents.readers import _text
from freehold.documents.readers._ooxml import Event
from freehold.errors import DocumentTooLargeError

_ESCAPE = re.compile("_x([0-9a-fA-F]{4})_")
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f]")
# What in a format is shown as it is, or is a colour, a locale, a condition.
_LITERAL = re.compile(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
_MAX_FORMATS = 100_000


class Format(enum.Enum):
    """How a number is meant."""

    NUMBER = enum.auto()
    PERCENT = enum.auto()
    DATE = enum.auto()
    TIME = enum.auto()
    DATE_TIME = enum.auto()


# Formats that have a number only; 27 to 36 and 50 to 58 are dates in East Asia.
_BUILT_IN = {
    **dict.fromkeys((9, 10), Format.PERCENT),
    **dict.fromkeys((14, 15, 16, 17, *range(27, 32), 36, *range(50, 59)), Format.DATE),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 46, 47), Format.TIME),
    22: Format.DATE_TIME,
}


class Cell:
    """A cell while its events come: what is its value, and what beside it."""

    def __init__(self, kind: str = "n", style: str = "") -> None:
        self.kind = kind
        self.style = style
        self.formula = False
        self._pieces: list[str] = []
        self._taking = False
        self._phonetic = 0

    @property
    def value(self) -> str:
        return "".join(self._pieces)

    def open(self, name: str) -> None:
        if name == "rPh":  # how it is pronounced
            self._phonetic += 1
        elif name in ("v", "t"):
            self._taking = not self._phonetic
        elif name == "f":
            self.formula = True

    def close(self, name: str) -> None:
        if name == "rPh":
            self._phonetic -= 1
        elif name in ("v", "t"):
            self._taking = False

    def text(self, piece: str) -> None:
        if self._taking:
            self._pieces.append(piece)


class Values:
    """From what is stored to what is meant."""

    def __init__(self, strings: list[str], formats: list[Format], since_1904: bool) -> None:
        self._strings = strings
        self._formats = formats
        self._since_1904 = since_1904

    def text(self, cell: Cell) -> str:
        value, kind = cell.value, cell.kind
        if kind == "s":
            number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else -1
            return self._strings[number] if 0 <= number < len(self._strings) else ""
        if kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(value.strip(), plain(value))
        if kind in ("str", "inlineStr", "e", "d"):
            return on_one_line(plain(value))
        style = cell.style
        number = int(style) if style.isascii() and style.isdigit() and len(style) < 7 else 0
        meant = self._formats[number] if number < len(self._formats) else Format.NUMBER
        return _number(value.strip(), meant, self._since_1904)


def shared_strings(events: Iterable[Event], limits: Limits) -> list[str]:
    """The texts that cells refer to by number."""
    strings: list[str] = []
    length = 0
    cell = Cell()
    for what, name, _ in events:
        if what == "t":
            cell.text(name)
            length += len(name)
            if length > limits.max_characters or len(strings) > limits.max_characters:
                raise DocumentTooLargeError(
                    f"texts of more than {limits.max_characters:,} characters"
                )
        elif name == "si":
            if what == "<":
                cell = Cell()
            else:
                strings.append(on_one_line(plain(cell.value)))
        elif what == "<":
            cell.open(name)
        else:
            cell.close(name)
    return strings


def formats(events: Iterable[Event]) -> list[Format]:
    """What each style of cells, by its number, says of numbers."""
    codes: dict[str, str] = {}
    found: list[Format] = []
    inside = False
    for what, name, attributes in events:
        if name == "cellXfs":
            inside = what == "<"
        elif what == "<" and name == "numFmt" and len(codes) < _MAX_FORMATS:
            codes[attributes.get("numFmtId", "")] = attributes.get("formatCode", "")[:255]
        elif what == "<" and name == "xf" and inside and len(found) < _MAX_FORMATS:
            number = attributes.get("numFmtId", "0")
            if number in codes:
                found.append(_meaning(codes[number]))
            else:
                known = number.isascii() and number.isdigit() and len(number) < 5
                found.append(_BUILT_IN.get(int(number) if known else 0, Format.NUMBER))
    return found


def plain(text: str) -> str:
    """``_x000D_`` is how a file spells what XML cannot hold."""
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    return _CONTROLS.sub("", _text.spoken(text))


def on_one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip() if "\n" in text else text.strip()


def _meaning(code: str) -> Format:
    """Of a format's first section, the one for positive numbers."""
    code = _LITERAL.sub("", code).partition(";")[0].lower()
    day = any(letter in code for letter in "yd") or ("mmm" in code)
    time = any(letter in code for letter in "hs")
    if "general" in code or not (day or time or "m" in code):
        return Format.PERCENT if "%" in code else Format.NUMBER
    if time:
        return Format.DATE_TIME if day else Format.TIME
    return Format.DATE


def _number(value: str, meant: Format, since_1904: bool) -> str:
    if meant is Format.NUMBER or _NUMBER.fullmatch(value) is None:
        return _shortest(value)
    if meant is Format.PERCENT:
        return f"{_written(decimal.Decimal(_shortest(value)) * 100)}%"
    days = float(value)
    if not 0 <= days < 2_958_466:  # the year 10000
        return _shortest(value)
    if meant is Format.TIME and days >= 1:
        return _duration(days)
    # Excel believes in 29 February 1900, so days before March are one off.
    first = (1904, 1, 1) if since_1904 else (1899, 12, 31) if days < 60 else (1899, 12, 30)
    seconds = round(days * 86_400)
    moment = datetime.datetime(*first) + datetime.timedelta(seconds=seconds)
    if meant is Format.TIME:
        return moment.time().isoformat()
    if meant is Format.DATE or seconds % 86_400 == 0:
        return moment.date().isoformat()
    return moment.isoformat(sep=" ")


def _duration(days: float) -> str:
    minutes, seconds = divmod(round(days * 86_400), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _shortest(value: str) -> str:
    """Excel writes 0.1 + 0.2 with 17 digits; it shows, and knows for sure, 15 of them."""
    if _NUMBER.fullmatch(value) is None:
        return on_one_line(plain(value))
    exponent = "e" in value.lower()
    if not exponent and (len(value) < 16 or "." not in value):
        return value
    return _written(decimal.Context(prec=15).create_decimal(value))


def _written(number: decimal.Decimal) -> str:
    number = number.normalize()
    return f"{number:f}" if -20 < number.adjusted() < 20 else str(number)
