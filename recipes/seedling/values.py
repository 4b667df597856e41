# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Makers of values: names, companies, places, products, identifiers, dates, amounts.

The space is large on purpose: a model that sees a value once can only learn to copy it. Which
split a made value belongs to is decided by a checksum of the value (one eighth is held out), so
the two splits can never share one, however many are drawn; listed words (`pools.py`) are in
lists of their own. Small quantities, times of day and parts of a sum (lines, tax) are not split.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date as Day
from datetime import timedelta
from zlib import crc32

from recipes.seedling import pools
from recipes.seedling.example import Split

_ONSETS = (
    "b br c ch cl d dr f fl fr g gl gr h j k kl kr l m n p pl pr qu r s sch sh sk sl sp st str sw t "
    "th tr v vl w wr y z zw"
).split()
_VOWELS = ("a e i o u " * 7 + "ai au ea ee ei ia ie io oa oo ou y ö ä é").split()
_SIMPLE = "b c d f g h j k l m n p r s t v w z".split()
_CODAS = [
    "",
    "",
    "",
    *"b ck d f g k l ld lf lk ll lm lt m mp n nd ng nk nn nt p r rd rk rm rn rt s sk ss st t tt x z".split(),
]
_CITY_ENDS = "ton burg field haven ford ville stad berg mouth bridge wick port dorf heim by".split()
_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_FIRST_DAY, _LAST_DAY = Day(2015, 1, 1).toordinal(), Day(2034, 12, 31).toordinal()
_CURRENCIES = (
    ("EUR", "€"),
    ("USD", "$"),
    ("GBP", "£"),
    ("CHF", "CHF"),
    ("SEK", "SEK"),
    ("CAD", "CAD"),
)
_LISTED = frozenset(
    word.lower()
    for listed in (
        pools.FIRST_TRAIN, pools.FIRST_HELDOUT, pools.LAST_TRAIN, pools.LAST_HELDOUT,
        pools.CITY_TRAIN, pools.CITY_HELDOUT, pools.STEM_TRAIN, pools.STEM_HELDOUT,
    )
    for word in listed
)  # fmt: skip


def side(value: str) -> Split:
    """The split a made value belongs to."""
    return "heldout" if crc32(value.lower().encode()) % 8 == 0 else "train"


BARE = 4  # the style of amounts without a currency; labels may name it instead


@dataclass(frozen=True)
class Money:
    """How one document writes amounts."""

    code: str
    symbol: str
    style: int
    decimal_comma: bool
    grouped: bool

    def write(self, cents: int, bare: bool = False) -> str:
        """`cents` as text; `bare` leaves the currency out, as columns of a table do."""
        whole = f"{cents // 100:,}" if self.grouped else str(cents // 100)
        if self.decimal_comma:
            number = f"{whole.replace(',', '.')},{cents % 100:02d}"
        else:
            number = f"{whole}.{cents % 100:02d}"
        if bare or self.style == BARE:
            return number
        return (
            f"{number} {self.code}",
            f"{self.code} {number}",
            f"{self.symbol}{number}" if len(self.symbol) == 1 else f"{self.symbol} {number}",
            f"{number} {self.symbol}",
        )[self.style]


class Draw:
    """A source of chance for one example, and the makers of its values."""

    def __init__(self, rng: random.Random, split: Split) -> None:
        self.rng = rng
        self.split: Split = split
        self.train = split == "train"
        self.money = self._money()
        self.date_style = rng.randrange(11 if self.train else 12)

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return self.rng.random() < share

    def word(self, least: int = 2, most: int = 3) -> str:
        """A made word of `least` to `most` syllables, capitalised."""
        rng = self.rng
        while True:
            parts: list[str] = []
            for _ in range(rng.randint(least, most)):
                onset = rng.choice(_ONSETS) if rng.random() < 0.4 else rng.choice(_SIMPLE)
                parts += (onset, rng.choice(_VOWELS))
            made = "".join(parts) + rng.choice(_CODAS)
            if rng.random() < 0.3:
                middle = len(parts) // 2 * 2 - 2
                parts[middle + 1] += rng.choice(_CODAS)
                made = "".join(parts)
            if len(made) > 2 and side(made) == self.split and made not in _LISTED:
                return made[0].upper() + made[1:]

    def first_name(self) -> str:
        """A given name."""
        if self.chance(0.45):
            return self.rng.choice(pools.FIRST_TRAIN if self.train else pools.FIRST_HELDOUT)
        return self.word(1, 2)

    def last_name(self) -> str:
        """A family name."""
        if self.chance(0.3):
            return self.rng.choice(pools.LAST_TRAIN if self.train else pools.LAST_HELDOUT)
        return self.word(2, 3)

    def person(self) -> str:
        """A full name; at least one half of it made or of the split's own lists."""
        rng = self.rng
        middle = f" {rng.choice('ABCDEFGHJKLMNPRSTW')}." if rng.random() < 0.07 else ""
        return f"{self.first_name()}{middle} {self.last_name()}"

    def stem(self) -> str:
        """The distinctive word of a company's name."""
        if self.chance(0.2):
            return self.rng.choice(pools.STEM_TRAIN if self.train else pools.STEM_HELDOUT)
        return self.word(1, 3)

    def company(self) -> str:
        """A company's name."""
        rng = self.rng
        trade = rng.choice(pools.TRADE_TRAIN if self.train else pools.TRADE_HELDOUT)
        legal = rng.choice(pools.LEGAL)
        roll = rng.random()
        if roll < 0.35:
            return f"{self.stem()} {legal}"
        if roll < 0.65:
            return f"{self.stem()} {trade} {legal}"
        if roll < 0.75:
            return f"{self.stem()} {trade}"
        if roll < 0.83:
            return f"{self.last_name()} & {self.last_name()}"
        if roll < 0.9:
            return f"{self.last_name()} & {rng.choice(('Sons', 'Co.', 'Partners', 'Daughters'))} {legal}"
        return f"{self.word(1, 2)}{rng.choice(('-', ' '))}{self.word(1, 2)} {legal}"

    def city(self) -> str:
        """A town."""
        rng = self.rng
        if rng.random() < 0.3:
            return rng.choice(pools.CITY_TRAIN if self.train else pools.CITY_HELDOUT)
        if rng.random() < 0.4:
            return self.word(2, 3)
        return self.word(1, 2) + rng.choice(_CITY_ENDS)

    def street(self) -> str:
        """A street and a house number."""
        rng = self.rng
        if rng.random() < 0.5:
            return f"{rng.randint(1, 199)} {self.word(1, 2)} {rng.choice(pools.STREETS)}"
        return f"{self.word(1, 2)}{rng.choice(('strasse', 'weg', 'gatan', ' Street', 'straat'))} {rng.randint(1, 199)}"

    def postcode(self) -> str:
        """A postal code."""
        return self.digits(self.rng.choice((4, 5, 5)))

    def product(self) -> str:
        """An article."""
        rng = self.rng
        noun = rng.choice(pools.NOUN_TRAIN if self.train else pools.NOUN_HELDOUT)
        roll = rng.random()
        if roll < 0.4:
            adjective = rng.choice(pools.ADJECTIVE_TRAIN if self.train else pools.ADJECTIVE_HELDOUT)
            name = f"{adjective} {noun}"
        elif roll < 0.6:
            name = f"{self.word(1, 2)} {noun}"
        elif roll < 0.68:
            name = f"{noun} {self.word(1, 2)}"
        elif roll < 0.78:
            name = f"{noun} {rng.choice('ABCDEFGKLMNPRSTVXZ')}{self.number(10, 999)}"
        elif roll < 0.9:
            name = f"{self.word(1, 2)} {self.number(10, 9000)}"
        else:
            return f"{self.word(1, 2)} {self.word(1, 2)}"
        return name if rng.random() < 0.4 else name[0].upper() + name[1:]

    def number(self, low: int, high: int) -> int:
        """A number of this split between `low` and `high`."""
        while True:
            number = self.rng.randint(low, high)
            if side(str(number)) == self.split:
                return number

    def text_of(self, train: tuple[str, ...], heldout: tuple[str, ...]) -> str:
        """A word of the split's own list."""
        return self.rng.choice(train if self.train else heldout)

    def digits(self, count: int) -> str:
        """`count` digits of this split."""
        return str(self.number(10 ** (count - 1), 10**count - 1))

    def identifier(self, prefixes: tuple[str, ...]) -> str:
        """A number of a paper: `prefixes` are the usual ones of its kind, often a made one is used."""
        rng = self.rng
        prefix = rng.choice(prefixes)
        if rng.random() < 0.45:
            prefix = "".join(
                rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.randint(1, 4))
            )
        body = self.digits(rng.choice((3, 4, 4, 5, 5, 5, 6, 7)))
        if rng.random() < 0.1:
            body = "0" * rng.randint(1, 2) + body
        roll = rng.random()
        if roll < 0.42:
            return f"{prefix}-{body}"
        if roll < 0.50:
            return f"{prefix}{body}"
        if roll < 0.57:
            return f"{prefix}/{body}"
        if roll < 0.64:
            return f"{prefix}-{rng.randint(2019, 2029)}-{body}"
        if roll < 0.70:
            return f"{rng.randint(2019, 2029)}{rng.choice('-/')}{body}"
        if roll < 0.76:
            return f"{prefix}{rng.choice('-/')}{body}-{rng.choice('ABCDEFX')}"
        if roll < 0.82:
            return f"#{body}"
        if roll < 0.92:
            return body if len(body) > 3 else f"{body}-{self.digits(3)}"
        return f"{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{body[:2]}{rng.choice('ABCDEFGHJKLMNPQRSTUVWXYZ')}{self.digits(4)}"

    def day(self, after: Day | None = None) -> Day:
        """A day of this split; within some weeks of `after` when given."""
        rng = self.rng
        while True:
            if after is None:
                day = Day.fromordinal(rng.randint(_FIRST_DAY, _LAST_DAY))
            else:
                day = after + timedelta(days=rng.randint(1, 90))
            if side(day.isoformat()) == self.split:
                return day

    def date(self) -> str:
        """Some date in this document's way of writing."""
        return self.write_day(self.day())

    def write_day(self, date_: Day) -> str:
        """`date_` in this document's way of writing."""
        year, month, day = date_.year, date_.month, date_.day
        name, short = _MONTHS[month - 1], _MONTHS[month - 1][:3]
        return (
            f"{year}-{month:02d}-{day:02d}",
            f"{day:02d}.{month:02d}.{year}",
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{month:02d}/{day:02d}/{year}",
            f"{day} {short} {year}",
            f"{short} {day}, {year}",
            f"{year}/{month:02d}/{day:02d}",
            f"{day}.{month}.{year}",
            f"{day:02d}/{month:02d}/{year}",
            f"{_DAYS[date_.weekday()]}, {day} {name} {year}",
            f"{day:02d}-{short}-{year}",
        )[self.date_style]

    def time(self) -> str:
        """A time of day."""
        return f"{self.rng.randint(0, 23):02d}:{self.rng.randint(0, 59):02d}"

    def cents(self, low: int = 500, high: int = 900_000) -> int:
        """An amount, small ones more often than large ones."""
        rng = self.rng
        while True:
            cents = int(low * (high / low) ** rng.random())
            if rng.random() < 0.3:
                cents = max(1, cents // 100) * 100
            if side(str(cents)) == self.split:
                return cents

    def amount(self, low: int = 500, high: int = 900_000) -> str:
        """An amount with its currency."""
        return self.money.write(self.cents(low, high))

    def email(self, name: str | None = None) -> str:
        """An address; of `name` when given."""
        rng = self.rng
        words = (name or self.person()).lower().replace(".", "").split()
        words = [word.translate(_PLAIN) for word in words]
        local = rng.choice(
            (f"{words[0]}.{words[-1]}", f"{words[0][0]}{words[-1]}", words[-1], words[0])
        )
        host = self.word(1, 2).lower().translate(_PLAIN)
        return f"{local}@{host}.{rng.choice(('com', 'org', 'net', 'de', 'example', 'io', 'co.uk'))}"

    def phone(self) -> str:
        """A telephone number."""
        rng = self.rng
        return rng.choice(("+{} {} {}", "+{} {}-{}", "0{} {} {}", "({}) {}-{}")).format(
            rng.randint(20, 99), self.digits(3), self.digits(4)
        )

    def _money(self) -> Money:
        rng = self.rng
        code, symbol = rng.choice(_CURRENCIES[:3] if rng.random() < 0.75 else _CURRENCIES)
        style = BARE if rng.random() < 0.14 else rng.randrange(4)
        return Money(code, symbol, style, rng.random() < 0.2, rng.random() < 0.75)


_PLAIN = str.maketrans("öäé", "oae", "'&")
