# SPDX-License-Identifier: Apache-2.0
"""What of the store nobody needs: found first, told, and then freed.

Never touches what lies outside the store. Records that cannot be read keep the blobs they name.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freehold.errors import StoreError
from freehold.hub import views
from freehold.hub.disk import file_lock, read_small, store_errors
from freehold.hub.stored_model import MAX_RECORD_BYTES, StoredModel, blob_path

if TYPE_CHECKING:
    from freehold.hub.store import Store

Kind = Literal["blob", "unfinished transfer", "left over", "view"]
_FRESH = 3600  # seconds
_DIGESTS = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Garbage:
    """One thing that can go."""

    kind: Kind
    path: Path
    size: int  # bytes


def find(store: Store, *, keep_unfinished: bool = False) -> list[Garbage]:
    """What `collect` would free now. Raises StoreError where a record is too large to be looked
    through for the blobs that it may need."""
    models, damaged = store.scan()
    needed = {file.sha256 for model in models for file in model.files}
    for record in damaged:
        needed |= _named_in(record.path)
    found = [
        Garbage("blob", path, _size(path))
        for path in _entries(store.root / "blobs")
        if path.name.removeprefix("sha256-") not in needed
    ]
    if not keep_unfinished:
        for path in _entries(store.root / "partial"):
            kind: Kind = "left over" if path.name.endswith(".lock") else "unfinished transfer"
            found.append(Garbage(kind, path, _size(path)))
    used = {folder_of(store, model) for model in models}
    for path in _entries(store.root / "views"):
        if path not in used and not _is_being_made(path):
            found.append(Garbage("view", path, _size(path)))
    records = store.root / "models"
    found += [
        Garbage("left over", path, _size(path))
        for path in _entries(records)
        if path.name.endswith(".partial")
    ]
    return found


def folder_of(store: Store, model: StoredModel) -> Path:
    """The view of a model."""
    return views.folder_of(store.root, {file.name: file.path for file in model.files})


def collect(store: Store, garbage: Iterable[Garbage]) -> int:
    """Free what of `garbage` is still not needed; gives the bytes freed.

    Raises StoreError while somebody is fetching a model."""
    wanted = {item.path for item in garbage}
    freed = 0
    with (
        store_errors(store.root),
        file_lock(store.root / "lock"),
        file_lock(store.root / "transfer.lock", wait=False) as alone,
    ):
        if not alone:
            raise StoreError(
                "a model is being fetched into the store", hint="try again when it is there"
            )
        for item in find(store):
            if item.path in wanted:
                freed += _delete(item.path)
    return freed


def free(store: Store, model: StoredModel) -> int:
    """Delete the blobs and the view of a model whose record is gone, as far as no other needs
    them; gives the bytes freed. The caller holds the locks."""
    models, damaged = store.scan()
    needed = {file.sha256 for other in models for file in other.files}
    for record in damaged:
        needed |= _named_in(record.path)
    freed = 0
    for sha256 in sorted({file.sha256 for file in model.files} - needed):
        freed += _delete(blob_path(store.root, sha256))
    if folder_of(store, model) not in {folder_of(store, other) for other in models}:
        _delete(folder_of(store, model))
    return freed


def _named_in(record: Path) -> set[str]:
    """Every digest that a damaged record may mean."""
    try:
        data = read_small(record, MAX_RECORD_BYTES)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(f"{record}: cannot be read: {error.strerror}") from None
    if data is None:
        raise StoreError(
            f"{record}: too large to be looked through for what it needs",
            hint=f"`freehold remove {record.stem}` first",
        )
    return {match.decode() for match in _DIGESTS.findall(data)}


def _is_being_made(view: Path) -> bool:
    """Whether somebody who opens a model may be making this view just now."""
    try:
        return view.name.endswith(".partial") and time.time() - view.lstat().st_mtime < _FRESH
    except OSError:
        return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _size(path: Path) -> int:
    """Bytes on the disk of a file, or of all files under a folder; links count nothing."""
    with contextlib.suppress(OSError):
        if path.is_symlink():
            return 0
        if path.is_dir():
            return sum(_size(inner) for inner in path.iterdir())
        return path.stat().st_size
    return 0


def _delete(path: Path) -> int:
    size = _size(path)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return 0
    return size
