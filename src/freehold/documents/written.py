# SPDX-License-Identifier: Apache-2.0
"""Numbers and dates as people write them, as values; the words they were read from stay beside.

What a figure means may depend on the rest of its document: 1.234 is a thousand in one and hardly
more than one in another. What cannot be decided is None, not a guess. Knows no schema and no model.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date

# Shapes for grammars: what a number or a date looks like, so that nothing else is copied for one.
# A number may have its currency or unit with it: a model writes what stands there as a whole.
NUMBER_SHAPE = (
    r"([^\p{Nd} \n:]{1,4} ?)?[-+−]?[.,]?\p{Nd}+([.,'’·٫٬]\p{Nd}+|[ \u00a0\u202f]\p{Nd}{3})*"
    r"( ?[^\p{Nd} \n.,:;]{1,4})?"
)
DATE_SHAPE = (
    r"(\p{L}{2,12},? )?(\p{Nd}{1,4}[-./]\p{Nd}{1,2}[-./]\p{Nd}{1,4}"
    r"|\p{Nd}{1,2}(\.|st|nd|rd|th|er|º)?[- ]((de|of) )?\p{L}{3,12}\.?,?[- ]((de|of) )?\p{Nd}{2,4}"
    r"|\p{L}{3,12}\.? \p{Nd}{1,2}(st|nd|rd|th)?,? \p{Nd}{4}"
    r"|\p{Nd}{4}年\p{Nd}{1,2}月\p{Nd}{1,2}日|\p{Nd}{4}년 ?\p{Nd}{1,2}월 ?\p{Nd}{1,2}일)"
)
_FIGURE = re.compile(r"[-+]?[^\d.,+-]{0,4}([.,]?\d[\d.,]*)")
_FIGURES = re.compile(r"\d+(?:[.,]\d+)+")
# In groups of three, the last one at least: other groups are of two in India.
_WHOLE = re.compile(r"\d+|\d{1,3}(?:[.,]\d{2,3})*[.,]\d{3}")
_GROUPS = re.compile(r"[ \u00a0\u202f'’·٬]")
_NUMERIC = re.compile(r"(\d{1,4})[-./年](\d{1,2})[-./月](\d{1,4})日?")
_WEEKDAY = re.compile(r"^[^\W\d_]{2,12},? (?=\d)")
_ALL_NUMERIC = re.compile(r"(?<!\d)(\d{1,2})[-./](\d{1,2})[-./](?:\d{4}|\d{2})(?!\d)")
_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar jänner janvier janv enero ene gennaio gen januari janeiro",
            "february feb februar février févr fev febrero febbraio februari fevereiro",
            "march mar märz mrz mars marzo maart mrt março",
            "april apr avril avr abril abr aprile",
            "may mai mayo maggio mag mei maio",
            "june jun juni juin junio giugno giu junho",
            "july jul juli juil juillet julio luglio lug julho",
            "august aug août aout agosto ago augustus",
            "september sep sept septembre septiembre settembre set setembro",
            "october oct oktober okt octobre octubre ottobre ott outubro out",
            "november nov novembre noviembre novembro",
            "december dec dezember dez décembre déc diciembre dic dicembre dezembro",
        ),
        1,
    )
    for name in names.split()
}


def number(quote: str, text: str = "") -> int | float | None:
    """The number that `quote` spells, by the habits of `text`; None where that is not certain."""
    plain = _GROUPS.sub("", _digits(quote).strip()).replace("−", "-").replace("٫", ",")
    found = _FIGURE.search(plain)
    if found is None or any(c.isdigit() for c in plain[: found.start()] + plain[found.end() :]):
        return None
    body = found[1].rstrip(".,")
    sign = "-" if "-" in plain[: found.start(1)] else ""
    decimal = _decimal_mark(body)
    if decimal == "?":
        marks = {_decimal_mark(found.group()) for found in _FIGURES.finditer(text[:100_000])}
        marks -= {"", "?"}
        if len(marks) != 1:
            # Alone it reads as most programs read it.
            marks = {"."}
        decimal = marks.pop()
    whole, _, part = body.partition(decimal) if decimal else (body, "", "")
    if whole and not _WHOLE.fullmatch(whole):
        return None
    whole = re.sub("[.,]", "", whole)
    if not (whole + part).isdigit() or len(whole) + len(part) > 300:
        return None
    return float(f"{sign}{whole or 0}.{part}") if part else int(f"{sign}{whole or 0}")


def _decimal_mark(figure: str) -> str:
    """``.`` or ``,`` where that is the decimal mark, "" for none, "?" where it may be either."""
    dots, commas = figure.count("."), figure.count(",")
    if dots and commas:
        last = max(figure.rfind("."), figure.rfind(","))
        return figure[last] if figure.count(figure[last]) == 1 else ""
    mark = "." if dots else "," if commas else ""
    if not mark:
        return ""
    if dots + commas > 1:
        return ""
    head, _, tail = figure.partition(mark)
    return "?" if len(tail) == 3 and 1 <= len(head) <= 3 and head.lstrip("0") == head else mark


def day(quote: str, text: str = "") -> str | None:
    """The day that `quote` names, as YYYY-MM-DD; None where it names none, or might name two."""
    plain = " ".join(_digits(quote).split())
    plain = re.sub(
        r"[년월일] ?", lambda m: {"년": "年", "월": "月", "일": "日"}[m.group()[0]], plain
    )
    found = _NUMERIC.fullmatch(_WEEKDAY.sub("", plain))
    if found is not None:
        return _numeric(*found.groups(), text=text, dotted="." in plain)
    figures = re.findall(r"\d+", plain)
    found_words = re.findall(r"[^\W\d_]+", plain.casefold())
    months = [month for month in map(_MONTHS.get, found_words) if month]
    if len(figures) != 2 or len(months) != 1:
        return None
    numbers = sorted(figures, key=len)
    return _iso(_year(numbers[1]), months[0], int(numbers[0]))


def _numeric(first: str, second: str, third: str, *, text: str, dotted: bool) -> str | None:
    if len(first) == 4:
        return _iso(int(first), int(second), int(third))
    if len(first) == 3 or len(third) == 3:
        return None
    a, b, year = int(first), int(second), _year(third)
    if a > 12 or a == b or dotted:  # with dots the day comes first wherever they are used
        return _iso(year, b, a)
    if b > 12:
        return _iso(year, a, b)
    # Either may be the day: other dates of the document tell.
    orders = set()
    for one, other in _ALL_NUMERIC.findall(_digits(text[:100_000])):
        if int(one) > 12 >= int(other):
            orders.add("day first")
        elif int(other) > 12 >= int(one):
            orders.add("month first")
    if len(orders) != 1:
        return None
    return _iso(year, b, a) if orders == {"day first"} else _iso(year, a, b)


def _iso(year: int, month: int, of_month: int) -> str | None:
    try:
        return date(year, month, of_month).isoformat()
    except ValueError:
        return None


def _year(figures: str) -> int:
    year = int(figures)
    if len(figures) > 2:
        return year
    return 2000 + year if year < 70 else 1900 + year


def _digits(text: str) -> str:
    """Digits of any script as 0 to 9."""
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(character)) if unicodedata.category(character) == "Nd"
        else character
        for character in text
    )  # fmt: skip
