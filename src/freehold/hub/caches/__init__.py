# SPDX-License-Identifier: Apache-2.0
"""What other programs hold on this disk: one file per program, found by being in this folder.

Such a file has `TOOL` (the name to type), `TITLE`, `folders()` (where the program keeps its models
on this machine) and `scan(folder)`, which gives every model and, with the reason, everything that
looks like one and cannot be used. Reads names and small files; copies, moves and hashes nothing,
and trusts nothing: links that lead out, half-fetched files and odd names are skipped and told.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from freehold.errors import StoreError


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of a model as its program keeps it."""

    name: str  # what it is called inside the model
    path: Path
    size: int
    sha256: str | None = None  # as the program names the file; None: only reading it would tell


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One model. What its headers say of it is looked up when it is adopted."""

    tool: str
    name: str  # the reference under which the store will know it
    source: str  # as `StoredModel.source`
    repository: str
    revision: str | None
    quant: str | None
    files: tuple[FoundFile, ...]
    entry: str  # name of the file to open, or "" for the directory
    licence_claim: str | None = None  # what the program says; the model's own header goes before

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is no model for us, and why."""

    tool: str
    path: Path
    why: str


Find = FoundModel | Skipped


class Tool(Protocol):
    """A module of this folder."""

    TOOL: str
    TITLE: str

    def folders(self) -> list[Path]:
        """Where the program keeps models here; folders that are not there are left out."""

    def scan(self, folder: Path) -> Iterator[Find]:
        """All it has in one of them."""


def tools() -> dict[str, Tool]:
    """The programs by the name to type, in alphabetical order."""
    found: dict[str, Tool] = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = cast("Tool", importlib.import_module(f"{__name__}.{info.name}"))
            found[module.TOOL] = module
    return found


def get(name: str) -> Tool:
    """The program called `name`. Raises StoreError naming them all."""
    known = tools()
    if name not in known:
        raise StoreError(f"no program {name!r:.60} is known", hint=f"one of {', '.join(known)}")
    return known[name]
