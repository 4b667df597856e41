# SPDX-License-Identifier: Apache-2.0
"""The header of a model card: the plain fields between the two `---` lines of a README.

Reads scalars and lists of scalars; anything nested is passed over, and whatever is not understood
is left out. Does not know what a field means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

MAX_CARD_BYTES = 1 << 18
_MAX_ENTRIES = 256
_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):\s*(.*)")

CardHeader: TypeAlias = Mapping[str, str | list[str]]


def read_card_header(path: Path) -> CardHeader:
    """The fields of the card at `path`; none where there is no such file or no header.

    Raises OSError where the file cannot be read."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        return card_header(file.read(MAX_CARD_BYTES).decode("utf-8", "replace"))


def card_header(text: str) -> CardHeader:
    """The same for a card's text."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return {}
    found: dict[str, str | list[str]] = {}
    items: list[str] | None = None
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        item = re.fullmatch(r"\s*-\s+(.*)", line)
        if item and items is not None:
            if len(items) < _MAX_ENTRIES:
                items.append(_plain(item[1]))
            continue
        field = _FIELD.fullmatch(line.rstrip())
        items = None
        if field is None:
            continue
        value = field[2]
        if not value:
            items = []
            found[field[1]] = items
        elif value.startswith("[") and value.endswith("]"):
            found[field[1]] = [_plain(part) for part in value[1:-1].split(",")][:_MAX_ENTRIES]
        elif value[0] not in "{|>&*!":
            found[field[1]] = _plain(value)
    return {}  # a header without an end is no header


def _plain(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.sub(r"\s+#.*", "", value)


def one_text(value: str | list[str] | None) -> str:
    """A field that should be one text; "" where it is none or several."""
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else ""
    return value or ""


def texts(value: str | list[str] | None) -> list[str]:
    """A field that may be one text or a list of them."""
    items = [value] if isinstance(value, str) else value or []
    return [item for item in items if item]
