# SPDX-License-Identifier: Apache-2.0
"""Where the commands write: data to stdout, everything else to stderr.

Knows how text from a file is made safe to show and how sizes and rates are spelled. Knows no
model, and imports nothing heavy: every command imports this module, `freehold --help` too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

# C0 without tab and newline, DEL and C1, and the characters that reorder a line: names inside
# a model file must not move the cursor, ring, or show a sentence other than the one stored.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` with control characters spelled out, so that a terminal only shows it."""
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)


def one_line(text: str, width: int = 100) -> str:
    """`text` on one line, cut to `width` characters with an ellipsis."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= width else flat[: width - 1] + "…"


def data(text: str, *, end: str = "\n") -> None:
    """Write `text` to stdout; control characters are spelled out on a terminal only."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def data_json(value: Any, *, indent: int | None = 2) -> None:
    """Write one JSON document to stdout. NaN and infinities, which JSON lacks, become null."""
    sys.stdout.write(json.dumps(_finite(value), ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def note(text: str) -> None:
    """Tell the person at the terminal something; never part of the data."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def aside(text: str) -> None:
    """Write a piece of a remark to stderr, dimmed on a terminal; the line stays open."""
    shown = printable(text)
    sys.stderr.write(f"\033[2m{shown}\033[0m" if sys.stderr.isatty() else shown)
    sys.stderr.flush()


def failure(message: str, hint: str | None = None) -> None:
    """Print the two lines every refusal looks like."""
    note(f"error: {' '.join(message.split())}")
    if hint:
        note(f"hint: {' '.join(hint.split())}")


def size(nbytes: float) -> str:
    """Bytes in the unit that keeps three or four digits: 1.34 GB, 66.4 KB."""
    value = float(nbytes)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def count(number: float) -> str:
    """A count as people say it: 8.03 B, 260 K."""
    value = float(number)
    for unit in ("", " K", " M", " B", " T"):
        if abs(value) < 1000 or unit == " T":
            break
        value /= 1000
    return f"{value:.0f}" if unit == "" else f"{value:.3g}{unit}"


def rate(value: float) -> str:
    """A rate with three significant digits and no exponent: 12.3, 0.45, 1,234."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows: Sequence[Sequence[str]], *, indent: str = "", right: Sequence[int] = ()) -> str:
    """Rows as aligned columns; the columns named in `right` hold numbers."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


class Progress(Protocol):
    """Called with (done, total, what is being worked on)."""

    def __call__(self, done: int, total: int, label: str = "") -> None: ...


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar on stderr when that is a terminal, else nothing: a log has no use for it."""
    if not sys.stderr.isatty():

        def quiet(done: int, total: int, label: str = "") -> None:
            del done, total, label

        yield quiet
        return
    # Rich takes as long to import as all the rest of the command line.
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}", markup=False),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, label="")

        def update(done: int, total: int, label: str = "") -> None:
            bar.update(task, completed=done, total=total, label=one_line(label, 40))

        yield update
