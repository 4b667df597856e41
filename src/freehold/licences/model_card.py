# SPDX-License-Identifier: Apache-2.0
"""What a model's directory says of its licence: the head of its card, and the texts beside it.

Reads the few keys of a card's front matter that matter here, in the three ways in which lists are
written; the rest of YAML is not needed. Files are strangers': sizes are capped, and what cannot be
read is absent.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_CARD_BYTES = 65_536
_TEXT_BYTES = 1_000_000
_MAX_TEXTS = 8
_KEYS = frozenset(
    ("license", "license_name", "license_link", "base_model", "base_model_relation", "datasets",
     "model_name")
)  # fmt: skip
_TEXT_NAME = re.compile(r"(licen[cs]e|copying)([-_.]\w+)*", re.IGNORECASE)
_LINE = re.compile(r"([a-z_]+):[ \t]*(.*?)[ \t]*")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*?)[ \t]*")


def front_matter(card: str) -> dict[str, Any]:
    """The keys of a card's head that tell of licence and origin; values as text or lists."""
    block = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---", card, re.DOTALL)
    found: dict[str, Any] = {}
    key = None
    for line in block[1].splitlines() if block else ():
        if (item := _ITEM.fullmatch(line)) and key is not None:
            found.setdefault(key, [])
            if isinstance(found[key], list):
                found[key].append(_plain(item[1]))
        elif entry := _LINE.fullmatch(line):
            key = entry[1] if entry[1] in _KEYS else None
            if key is not None and entry[2]:
                found[key] = _value(entry[2])
        elif line and not line.startswith((" ", "\t", "#")):
            key = None
    return found


def _value(text: str) -> str | list[str]:
    if text.startswith("[") and text.endswith("]"):
        return [_plain(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return _plain(text)


def _plain(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in ("'", '"'):
        return text[1:-1]
    return text.partition(" #")[0].rstrip()


def card_of(directory: Path) -> dict[str, Any]:
    """The front matter of the model card in a directory; {} where there is none."""
    text = _read(directory / "README.md", _CARD_BYTES)
    return {} if text is None else front_matter(text)


def licence_texts(directory: Path) -> list[tuple[str, str]]:
    """Names and texts of the licence files in a directory."""
    try:
        names = sorted(path.name for path in directory.iterdir() if _TEXT_NAME.fullmatch(path.name))
    except OSError:
        return []
    texts = ((name, _read(directory / name, _TEXT_BYTES)) for name in names[:_MAX_TEXTS])
    return [(name, text) for name, text in texts if text is not None]


def _read(path: Path, limit: int) -> str | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None
