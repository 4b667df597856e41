# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Arrangements: how labelled values, lines of a table and paragraphs stand on the page.

Training and held-out text use different arrangements: `TRAIN_*` and `HELDOUT_*` share nothing. The
held-out ones (arrows, brackets, numbered lines, aligned columns, tables without outer bars,
semicolons) are the sort of thing that a reader who has understood labels and values can read.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from recipes.seedling.values import Draw

Pair = tuple[str, str]  # label, value
Item = tuple[str, str, str, str]  # article, quantity, price of one, price of all
Block = Callable[[Draw, Sequence[Pair]], str]

TRAIN_SEPARATORS = (
    ": ", ": ", ": ", ": ", " : ", ":  ", " - ", " = ", "\t", ":\t", ": \t", " .... ", " ...... ",
    "=", ":", " :: ", " – ", " ~ ", " # ", " ... ", "..: ", " == ", ": - ",
)  # fmt: skip
HELDOUT_SEPARATORS = (" -> ", " => ", " >> ", " > ", " .. ", " >>> ", " --- ")
TRAIN_BULLETS = ("", "", "", "- ", "* ", "• ", "+ ", "  ", "# ")
HELDOUT_BULLETS = ("", "> ", "o ", "· ")
TRAIN_JOINS = (", ", "; ", " | ", ". ", " - ", "  ")
HELDOUT_JOINS = (" / ", " // ", " + ")


def cased(draw: Draw, label: str) -> str:
    """`label` in one of the usual letter cases."""
    roll = draw.rng.random()
    if roll < 0.5:
        return label[0].upper() + label[1:]
    if roll < 0.66:
        return label.title() if "'" not in label else label
    if roll < 0.8:
        return label.upper()
    return label


def _lines(draw: Draw, pairs: Sequence[Pair]) -> str:
    rng = draw.rng
    separator = rng.choice(TRAIN_SEPARATORS if draw.train else HELDOUT_SEPARATORS)
    bullet = rng.choice(TRAIN_BULLETS if draw.train else HELDOUT_BULLETS)
    gap = "\n\n" if rng.random() < 0.05 else "\n"
    return gap.join(f"{bullet}{label}{separator}{value}" for label, value in pairs)


def _below(draw: Draw, pairs: Sequence[Pair]) -> str:
    mark = draw.rng.choice((":", "", ":", " -"))
    return "\n".join(f"{label}{mark}\n{value}" for label, value in pairs)


def _indented(draw: Draw, pairs: Sequence[Pair]) -> str:
    return "\n".join(f"{label}:\n  {value}" for label, value in pairs)


def _bold(draw: Draw, pairs: Sequence[Pair]) -> str:
    pattern = draw.rng.choice(
        ("**{}:** {}", "**{}**: {}", "- **{}**: {}", "**{}** {}", "*{}*: {}", "- {}: **{}**")
    )
    return "\n".join(pattern.format(label, value) for label, value in pairs)


def _table(draw: Draw, pairs: Sequence[Pair]) -> str:
    cells = [f"| {label} | {value} |" for label, value in pairs]
    if draw.chance(0.25):
        cells[-1] = f"| **{pairs[-1][0]}** | **{pairs[-1][1]}** |"
    rows = "\n".join(cells)
    roll = draw.rng.random()
    if roll < 0.35:
        return rows
    return f"| {draw.rng.choice(('Field', 'Item', '', 'Key'))} | Value |\n|---|---|\n{rows}"


def _wide_table(draw: Draw, pairs: Sequence[Pair]) -> str:
    rule = draw.rng.choice(("|---" * len(pairs) + "|\n", "| --- " * len(pairs) + "|\n"))
    head = "| " + " | ".join(label for label, _ in pairs) + " |\n"
    return head + rule + "| " + " | ".join(value for _, value in pairs) + " |"


def _csv(draw: Draw, pairs: Sequence[Pair]) -> str:
    mark = draw.rng.choice((",", ",", "\t", ", "))
    quoted = [f'"{value}"' if "," in value else value for _, value in pairs]
    return mark.join(label for label, _ in pairs) + "\n" + mark.join(quoted)


def _inline(draw: Draw, pairs: Sequence[Pair]) -> str:
    rng = draw.rng
    separator = (
        rng.choice((": ", ": ", " ", " = ", "=")) if draw.train else rng.choice((": ", " > "))
    )
    join = rng.choice(TRAIN_JOINS if draw.train else HELDOUT_JOINS)
    if join in (", ", ". ", "  ") and separator == " ":
        separator = ": "
    return join.join(f"{label}{separator}{value}" for label, value in pairs)


def _two_a_line(draw: Draw, pairs: Sequence[Pair]) -> str:
    gap = draw.rng.choice(("   ", "    ", " | ", "\t"))
    cells = [f"{label}: {value}" for label, value in pairs]
    return "\n".join(gap.join(cells[i : i + 2]) for i in range(0, len(cells), 2))


def _padded(draw: Draw, pairs: Sequence[Pair]) -> str:
    width = max(len(label) for label, _ in pairs) + 2
    return "\n".join(f"{label + ':':<{width}}{value}" for label, value in pairs)


def _right(draw: Draw, pairs: Sequence[Pair]) -> str:
    """Values at the right edge, as sums stand under a column."""
    label_width = max(len(label) for label, _ in pairs) + draw.rng.randint(0, 12)
    width = max(len(value) for _, value in pairs) + draw.rng.randint(2, 8)
    return "\n".join(f"{label:>{label_width}}{value:>{width}}" for label, value in pairs)


def _wide_pairs(draw: Draw, pairs: Sequence[Pair]) -> str:
    """Two to a line without colons, far apart."""
    cells = [f"{label} {value}" for label, value in pairs]
    gap = " " * draw.rng.randint(3, 24)
    return "\n".join(gap.join(cells[i : i + 2]) for i in range(0, len(cells), 2))


def _odd(draw: Draw, pairs: Sequence[Pair]) -> str:
    """Marks nobody uses: that what stands between label and value may be anything is what they
    teach."""
    separator, bullet = _odd_separator(draw), _odd_bullet(draw)
    return "\n".join(f"{bullet}{label}{separator}{value}" for label, value in pairs)


def _odd_inline(draw: Draw, pairs: Sequence[Pair]) -> str:
    """The same, several to a line."""
    separator = _odd_separator(draw) if draw.chance(0.5) else ": "
    while True:
        join = f" {_odd_mark(draw)} "
        if join not in HELDOUT_JOINS and join.strip() != separator.strip():
            break
    cells = [f"{label}{separator}{value}" for label, value in pairs]
    each = draw.rng.choice((2, 4, len(cells)))
    return "\n".join(join.join(cells[i : i + each]) for i in range(0, len(cells), each))


def _odd_around(draw: Draw, pairs: Sequence[Pair]) -> str:
    """Marks around the label, or around the value."""
    left, right = draw.rng.choice((("<", ">"), ("{", "}"), ("'", "'"), ("(", ")"), ('"', '"')))
    if draw.chance(0.5):
        return "\n".join(f"{left}{label}{right} {value}" for label, value in pairs)
    return "\n".join(f"{label} {left}{value}{right}" for label, value in pairs)


def _odd_mark(draw: Draw) -> str:
    return "".join(draw.rng.choice("~#*+%$@^&!?:=-.<>/_") for _ in range(draw.rng.randint(1, 4)))


def _odd_separator(draw: Draw) -> str:
    while True:
        mark = _odd_mark(draw)
        separator = draw.rng.choice((f" {mark} ", f"{mark} ", f" {mark}"))
        if separator.strip() not in {held.strip() for held in HELDOUT_SEPARATORS}:
            return separator


def _odd_bullet(draw: Draw) -> str:
    """Nothing, a mark, or a letter of a list."""
    roll = draw.rng.random()
    if roll < 0.5:
        return ""
    bullet = f"{draw.rng.choice('abcdeghxyz')}) " if roll < 0.6 else f"{_odd_mark(draw)} "
    return "" if bullet in HELDOUT_BULLETS else bullet


def _mixed(draw: Draw, pairs: Sequence[Pair]) -> str:
    """A part in one arrangement, the rest in another."""
    cut = draw.rng.randint(1, max(1, len(pairs) - 1))
    parts = [pairs[:cut], pairs[cut:]]
    return "\n".join(
        _lines(draw, part) if draw.chance(0.6) else _inline(draw, part) for part in parts if part
    )


def _bracketed(draw: Draw, pairs: Sequence[Pair]) -> str:
    return "\n".join(f"[{label}] {value}" for label, value in pairs)


def _numbered(draw: Draw, pairs: Sequence[Pair]) -> str:
    mark = draw.rng.choice((") ", ". "))
    return "\n".join(f"{n}{mark}{label}: {value}" for n, (label, value) in enumerate(pairs, 1))


def _columns(draw: Draw, pairs: Sequence[Pair]) -> str:
    width = max(len(label) for label, _ in pairs) + 3
    return "\n".join(f"{label:<{width}}{value}" for label, value in pairs)


def _bare_table(draw: Draw, pairs: Sequence[Pair]) -> str:
    return "\n".join(f"{label} | {value}" for label, value in pairs)


def _semicolons(draw: Draw, pairs: Sequence[Pair]) -> str:
    return ";".join(label for label, _ in pairs) + "\n" + ";".join(value for _, value in pairs)


def _three_a_line(draw: Draw, pairs: Sequence[Pair]) -> str:
    cells = [f"{label}: {value}" for label, value in pairs]
    return "\n".join("  ·  ".join(cells[i : i + 3]) for i in range(0, len(cells), 3))


TRAIN_BLOCKS: tuple[tuple[Block, int], ...] = (
    (_lines, 38), (_below, 5), (_indented, 3), (_bold, 7), (_table, 7), (_wide_table, 5), (_csv, 7),
    (_inline, 9), (_two_a_line, 5), (_padded, 6), (_odd, 26), (_odd_inline, 8), (_odd_around, 5), (_mixed, 5), (_right, 4), (_wide_pairs, 4),
)  # fmt: skip
HELDOUT_BLOCKS: tuple[tuple[Block, int], ...] = (
    (_lines, 36), (_bracketed, 10), (_numbered, 12), (_columns, 14), (_bare_table, 12),
    (_semicolons, 4), (_inline, 8), (_three_a_line, 6),
)  # fmt: skip


def block(draw: Draw, pairs: Sequence[Pair]) -> str:
    """`pairs` as a block of text in an arrangement of the draw's split."""
    choices = TRAIN_BLOCKS if draw.train else HELDOUT_BLOCKS
    arrange = draw.rng.choices(
        [block for block, _ in choices], weights=[weight for _, weight in choices]
    )[0]
    return arrange(draw, pairs)


TRAIN_ITEMS = (
    "{q} x {a} at {p} = {t}", "{q} x {a}: {t}", "- {q} x {a} ({p} each)", "{a}, {q} pcs, {p}, {t}",
    "| {a} | {q} | {p} | {t} |", "{a},{q},{p},{t}", "* {a} ({q} units) {t}", "{q}x {a}  {t}",
    "{a} - {q} @ {p}", "{q} {a} {t}", "{a}: {q} pieces, {p} each", "- {a} x{q} {t}",
    "{q} pcs {a} - {t}", "{q}   {a}      {p}      {t}", "  {a}      {q}    {t}", "{a} | {q} | {p}", "Item: {a}, quantity: {q}, price: {p}",
)  # fmt: skip
HELDOUT_ITEMS = (
    "{q} pieces of {a} for {t}", "{a} | {q} | {p} | {t}", "{q}\t{a}\t{t}", "+ {a} / {q} / {t}", "({q}) {a} .. {t}",
    "{a} ({q} at {p})", "{q} units {a}, {t}", "- {a}, qty {q}, {p}",
)  # fmt: skip
_HEADS = {
    "|": ("| Item | Qty | Price | Total |\n|---|---|---|---|\n", "| Description | Quantity | Unit price | Amount |\n|---|---|---|---|\n"),
    ",": ("Item,Qty,Price,Total\n", "article,quantity,price,total\n"),
}  # fmt: skip


def wrapped(draw: Draw, text: str) -> str:
    """`text` with its long lines broken, as mail programs and editors do."""
    width = draw.rng.randint(56, 76)
    return "\n".join(
        "\n".join(textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False))
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def _odd_item(draw: Draw) -> str:
    """A pattern of a line of an order with marks nobody uses."""
    rng = draw.rng
    while True:
        count = rng.choice(("{q}", "{q}", "({q})", "{q} x", "x{q}", "{q} pcs", "n={q}", "[{q}]"))
        price = rng.choice(("{p} {t}", "{t}", "{p}", "{t} ({p})", "{p} / {t}"))
        gaps = [rng.choice((" ", "  ", ", ", ": ", f" {_odd_mark(draw)} ")) for _ in range(2)]
        parts = [count, "{a}"] if draw.chance(0.6) else ["{a}", count]
        pattern = f"{_odd_bullet(draw)}{parts[0]}{gaps[0]}{parts[1]}{gaps[1]}{price}"
        if pattern not in HELDOUT_ITEMS:
            return pattern


def items(draw: Draw, rows: Sequence[Item]) -> str:
    """The lines of an invoice or order, all in one arrangement."""
    pattern = draw.rng.choice(TRAIN_ITEMS if draw.train else HELDOUT_ITEMS)
    if draw.train and draw.chance(0.3):
        pattern = _odd_item(draw)
    head = ""
    if draw.train and draw.chance(0.8):
        if pattern.startswith("|"):
            head = draw.rng.choice(_HEADS["|"])
        elif pattern == "{a} | {q} | {p}":
            head = draw.rng.choice(("Product | Quantity | Price each\n", "Article | Qty | Price\n"))
        elif pattern == "{a},{q},{p},{t}":
            head = draw.rng.choice(_HEADS[","])
    if pattern == "{a},{q},{p},{t}":
        pattern = '{a},{q},"{p}","{t}"' if any("," in t for *_, t in rows) else pattern
    if "   " in pattern:
        width = max(len(row[0]) for row in rows)
        rows = [(a.ljust(width), q.rjust(4), p.rjust(8), t.rjust(9)) for a, q, p, t in rows]
    return head + "\n".join(pattern.format(a=a, q=q, p=p, t=t) for a, q, p, t in rows)
