# SPDX-License-Identifier: Apache-2.0
"""Reading every byte of models again, to say whether they are what their records say.

Changes nothing. A file that several models share is read once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from freehold.hub.disk import Watch, digest_of, open_regular
from freehold.hub.store import StoredFile, StoredModel


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one file of one model."""

    model: str
    file: str
    what: str


def total_bytes(models: Iterable[StoredModel]) -> int:
    """Bytes that `verify` will read, if all are there."""
    return sum({file.path: file.size for model in models for file in model.files}.values())


def verify(models: Iterable[StoredModel], watch: Watch | None = None) -> list[Fault]:
    """All faults of `models`, in their order; none where every byte is as recorded."""
    read: dict[Path, tuple[str, int] | str] = {}
    faults: list[Fault] = []
    for model in models:
        for file in model.files:
            if file.path not in read:
                read[file.path] = _read(file.path, watch)
            if what := _compare(file, read[file.path]):
                faults.append(Fault(model.name, file.name, what))
    return faults


def _read(path: Path, watch: Watch | None) -> tuple[str, int] | str:
    try:
        with open_regular(path) as file:
            return digest_of(file, watch)
    except OSError as error:
        return f"{os.fspath(path)} cannot be read: {error.strerror}"


def _compare(file: StoredFile, found: tuple[str, int] | str) -> str | None:
    if isinstance(found, str):
        return found
    digest, size = found
    if size != file.size:
        return f"{file.path} has {size:,} bytes, not {file.size:,}"
    if digest != file.sha256:
        return f"{file.path} has another content than its digest says"
    return None
