# SPDX-License-Identifier: Apache-2.0
"""`general.*` keys: name, size, licence and origin, out of a directory and its model card.

Reads the few plain fields of the card's YAML header that GGUF has keys for; anything nested is
passed over. Judges no licence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from freehold.formats.card_header import one_text, read_card_header, texts


def general_keys(directory: Path, parameters: int) -> dict[str, Any]:
    """`general.name`, `.size_label`, `.license*`, `.base_model.*`, `.tags`, `.languages`."""
    card = read_card_header(directory / "README.md")
    name = one_text(card.get("model_name")) or _readable(directory)
    keys: dict[str, Any] = {"general.name": name, "general.size_label": size_label(parameters)}
    for field, key in (
        ("license", "license"), ("license_name", "license.name"), ("license_link", "license.link"),
    ):  # fmt: skip
        if value := one_text(card.get(field)):
            keys[f"general.{key}"] = value
    if tags := texts(card.get("tags")):
        keys["general.tags"] = tags
    if languages := texts(card.get("language")):
        keys["general.languages"] = languages
    bases = texts(card.get("base_model"))
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
