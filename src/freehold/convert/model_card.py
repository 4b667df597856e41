# SPDX-License-Identifier: Apache-2.0
"""`general.*` keys: name, size, licence and origin, out of a directory and its model card.

Reads the few plain fields of the card's YAML header that GGUF has keys for; anything nested is
passed over. Judges no licence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_MAX_CARD_BYTES = 1 << 18
_MAX_ENTRIES = 256
_FIELD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):\s*(.*)")


def general_keys(directory: Path, parameters: int) -> dict[str, Any]:
    """`general.name`, `.size_label`, `.license*`, `.base_model.*`, `.tags`, `.languages`."""
    card = _header(directory / "README.md")
    name = _text(card.get("model_name")) or _readable(directory)
    keys: dict[str, Any] = {"general.name": name, "general.size_label": size_label(parameters)}
    for field, key in (
        ("license", "license"), ("license_name", "license.name"), ("license_link", "license.link"),
    ):  # fmt: skip
        if value := _text(card.get(field)):
            keys[f"general.{key}"] = value
    if tags := _texts(card.get("tags")):
        keys["general.tags"] = tags
    if languages := _texts(card.get("language")):
        keys["general.languages"] = languages
    bases = _texts(card.get("base_model"))
    if bases:
        keys["general.base_model.count"] = len(bases)
    for index, base in enumerate(bases):
        organisation, _, short = base.rpartition("/")
        prefix = f"general.base_model.{index}."
        keys[prefix + "name"] = short.replace("-", " ")
        if organisation:
            keys[prefix + "organization"] = organisation
            keys[prefix + "repo_url"] = f"https://huggingface.co/{base}"
    return keys


def size_label(parameters: int) -> str:
    """1.2B, 135M, 260K."""
    for unit, label in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if parameters >= unit:
            return (
                f"{parameters / unit:.2g}{label}"
                if parameters < 10 * unit
                else (f"{parameters / unit:.0f}{label}")
            )
    return f"{parameters / 1e3:.0f}K"


def _readable(directory: Path) -> str:
    """The directory's name, or its parent's where it only says what lies in it."""
    path = directory.resolve()
    if path.name.lower() in ("hf", "model", "checkpoint", "final", "") and path.parent.name:
        path = path.parent
    return path.name


def _header(path: Path) -> dict[str, str | list[str]]:
    """Top-level scalars and lists of scalars between the two `---` lines."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        text = file.read(_MAX_CARD_BYTES).decode("utf-8", "replace")
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


def _text(value: str | list[str] | None) -> str:
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else ""
    return value or ""


def _texts(value: str | list[str] | None) -> list[str]:
    items = [value] if isinstance(value, str) else value or []
    return [item for item in items if item]
